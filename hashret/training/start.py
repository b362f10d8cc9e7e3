"""`hashret train`: labelled photographs to a checkpoint."""

from __future__ import annotations

from pathlib import Path

import torch

from ..bits import check_bits
from ..data import open_data
from ..distributed import local_device, main_first, process_group, world
from ..errors import HashretError
from ..methods import get_method
from ..models.attention import GATES
from ..models.backbones import get_backbone
from ..models.encoder import pick_compute_dtype, pick_device
from ..models.heads import head_config
from ..models.network import HashNet
from ..models.weights import load_backbone
from ..progress import takes_quiet
from .feed import FeatureFeed, ImageFeed
from .loop import Run
from .settings import Settings


@takes_quiet
@process_group()
def train(
    data,
    out="model.safetensors",
    *,
    split="train",
    exclude=(),
    include=(),
    method="am-vggh",
    bits=48,
    image_size=224,
    arch="vgg16",
    weights="imagenet",
    finetune="head",
    width=4096,
    gate="unit",
    dropout=None,
    epochs=10,
    batch_size=128,
    lr=None,
    classifier_rate=None,
    weight_decay=0.01,
    quantization=None,
    pairs=None,
    balance=0.0,
    smoothing=0.0,
    augment="crop-flip",
    heldout=0.05,
    seed=0,
    device="auto",
    precision=None,
    cache=None,
    workers=None,
    download=False,
    resume=False,
    overwrite=False,
):
    """Train an encoder and write its checkpoint to ``out``, the training record as JSON beside it.

    Args:
        data, split, exclude, include, download: see `hashret.data.open_data`.
        method: one of `hashret.methods.METHODS`.
        bits: nodes of the hash layer, 8 to 256.
        image_size: pixels a side, a multiple of 32.
        arch, weights: the convolutions, see `hashret.models.weights.load_backbone`.
        finetune: "head" freezes the convolutions, whose features are cached on disk; "all" trains everything.
        width, gate, dropout: see `hashret.models.heads.HashHead`.
        epochs, batch_size, weight_decay: of AdamW under a cosine schedule; ``lr`` None is 1e-4 where the convolutions
            train too.
        classifier_rate: the classifier's learning rate over ``lr``; None is 1, but 30 where photographs have several
            labels: few steps then leave the classifier of a short code near its start, and the codes unlearned.
        quantization, pairs, balance, smoothing: see the method's loss.
        augment: "none", "crop" or "crop-flip", where the convolutions train.
        heldout: share of the train images that picks the epoch; 0 trains on all and keeps the last epoch.
        device, precision: "auto", "cpu", "cuda"; "bfloat16", "float32" or None for what is fast there.
        cache: folder of feature caches; None for `hashret.data.feature_cache.default_cache`.
        workers: decoding processes; None for one a core.
        resume: go on with a run that was killed.
        overwrite: replace a checkpoint that exists.

    Under torchrun, the processes share each batch, and the result is that of one process up to rounding: how many
    there are may differ from run to run, and when a run is resumed. All must see ``out`` and ``cache``.

    Where ``lr``, ``dropout``, ``quantization`` or ``pairs`` is None, the method's own default for so many bits holds,
    or else 3e-4, 0.5, 0 and 0.

    Returns:
        The training record, as written. Its ``codes`` say how far the codes differ, see `hashret.collapse`; where they
        tell photographs no better apart than chance, it has a ``warning``, which is a warning here, too.

    Raises:
        HashretError: impossible settings, data without labels, ``out`` exists or cannot be written, a full disk,
            photographs that are all alike, a loss that is no longer a number.
    """
    check_bits(bits)
    architecture = get_backbone(arch)
    architecture.side(image_size)
    method_class = get_method(method)
    _check_choice("finetune", finetune, ("head", "all"))
    _check_choice("augment", augment, ("none", "crop", "crop-flip"))
    _check_choice("gate", gate, GATES)
    if method_class.fitted and finetune == "all":
        raise HashretError(f"{method} is fitted to the features of frozen convolutions; leave --finetune all out")
    if weights == "none" and finetune == "head":
        other = "name weights" if method_class.fitted else "add --finetune all"
        raise HashretError(f"--weights none has nothing to freeze; {other}")
    if epochs < 1 or batch_size < 2:
        raise HashretError("epochs must be at least 1, the batch size at least 2")
    if batch_size < world():
        raise HashretError(f"a batch of {batch_size} cannot be shared by {world()} processes; raise --batch-size")
    if not 0 <= heldout < 1:
        raise HashretError(f"the held-out share must be at least 0 and below 1, not {heldout}")
    device = local_device(pick_device(device))
    precision = precision or pick_compute_dtype(device)
    exclude, include = tuple(exclude), tuple(include)
    names = Settings.__dataclass_fields__
    given = {name: value for name, value in locals().items() if name in names}
    with main_first():  # what is downloaded or unpacked is so once
        source = open_data(data, split, download=download, exclude=exclude, include=include).single_label()
    if method_class.needs_labels:
        source.require_labels()
    several_labels = source.labels is not None and source.labels.ndim == 2
    defaults = {"lr": 3e-4, "dropout": 0.5, "quantization": 0.0, "pairs": 0.0}
    defaults["classifier_rate"] = 30.0 if several_labels else 1.0
    defaults |= method_class.defaults_for(bits, several_labels)
    if finetune == "all":
        defaults["lr"] = 1e-4
    settings = given | {name: value for name, value in defaults.items() if given[name] is None}
    settings = Settings(**settings | {"data": str(data)})
    run = Run(Path(out), settings, device)
    run.claim(source, resume, overwrite)
    torch.manual_seed(seed)
    shape = {"attention": method_class.attention, "width": width, "gate": gate, "dropout": settings.dropout}
    config = head_config(method_class.head, shape)
    classes = len(source.classes) if method_class.classifier else 0
    net = HashNet(bits, classes, image_size, arch, head=config.pop("kind"), **config)
    with main_first():
        net.backbone = load_backbone(weights, arch)
    run.check_space(net, method_class.fitted)
    if finetune == "head":
        feed = FeatureFeed(source, net.backbone, architecture, image_size, precision, device, cache, workers)
    else:
        feed = ImageFeed(source, image_size, augment, device, workers)
    net.to(device, memory_format=torch.channels_last)
    return run.train(net, method_class(settings), source, feed)


def _check_choice(name, value, choices):
    if value not in choices:
        raise HashretError(f"--{name} must be {' or '.join(choices)}, not {value}")
