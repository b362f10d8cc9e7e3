"""`hashret train`: labelled photographs to a checkpoint."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ..data import Source, VectorSource, as_source
from ..data.walk import as_patterns
from ..distributed import local_device, main_first, process_group
from ..errors import HashretError, refuse_given
from ..files import StrPath
from ..methods import AUTO, WITH_LABELS, WITHOUT_LABELS, get_method
from ..methods.method import Method
from ..models.backbone import RESIZES
from ..models.backbones import get_backbone
from ..models.encoder import pick_device, pick_precision
from ..models.heads import POOLED, HashHead, head_config
from ..models.network import HashNet
from ..models.weights import last_convolution, load_backbone
from ..progress import takes_quiet
from ..renamed import old_keywords
from ..vectors import check_metric
from .choices import (
    check_choice,
    check_combination,
    check_values,
    lengths_of_code,
    options_from_flags,
    stages_trained,
    warn_of_unused,
)
from .cpu import fast_training
from .feed import FeatureFeed, Feed, ImageFeed, ViewFeed
from .loop import TrainingRun
from .run_files import RunFiles
from .settings import Settings, TrainReport
from .vector_feed import VectorFeed


@old_keywords
@takes_quiet
@process_group()
def train(
    data: StrPath | Source | npt.NDArray[np.number],
    out: StrPath = "model.safetensors",
    *,
    split: str = "train",
    exclude: Sequence[str] = (),
    include: Sequence[str] = (),
    method: str = AUTO,
    options: Mapping[str, float | str] | None = None,
    bits: int | Sequence[int] = 48,
    backbone: str = AUTO,
    weights: StrPath = "pretrained",
    image_size: int | None = None,
    resize: str | None = None,
    finetune: str = "head",
    width: int | None = None,
    gate: str = "unit",
    dropout: float | None = None,
    epochs: int | None = None,
    batch_size: int = 128,
    lr: float | None = None,
    backbone_lr: float | None = None,
    classifier_rate: float | None = None,
    weight_decay: float = 0.01,
    quantization: float | None = None,
    pairs: float | None = None,
    balance: float | None = None,
    smoothing: float | None = None,
    augment: str | None = None,
    views: int = 0,
    dither: bool = False,
    heldout: float = 0.05,
    seed: int = 0,
    device: str = "auto",
    precision: str | None = None,
    runtime: str = "auto",
    metric: str = "cosine",
    cache: StrPath | None = None,
    workers: int | None = None,
    download: bool = False,
    resume: bool = False,
    overwrite: bool = False,
) -> TrainReport:
    """Train an encoder and write its checkpoint to ``out``, the training record as JSON beside it.

    Args:
        data, split, exclude, include, download: see `hashret.data.open_data`; ``data`` may be an open source as well,
            or an array of vectors.
        method: one of `hashret.methods.METHODS`; "auto" for what found most in measurements, `WITH_LABELS` there, or
            `WITHOUT_LABELS` where there are not labels of at least two classes.
        options: values of the method's own options, as ``hashret methods`` lists them, by name.
        bits: length of the codes, 8 to 256; or several lengths, of which the longest is that of the codes, and the
            first bits of a code are a code of each of the others.
        backbone: what turns images into feature maps, see `hashret.models.backbones.get_backbone`; "auto" for the
            method's own: VGG16 for the methods of the paper, else EfficientNet-Lite0.
        weights: what the backbone starts from, see `hashret.models.weights.load_backbone`.
        image_size: pixels a side, a multiple of the backbone's stride; None for the size of its pretrained weights.
        resize: how photographs become squares, "squeeze", "crop" or "pad", see `hashret.data.images.read_image`; None
            for the backbone's own way.
        finetune: "head" freezes the backbone, "last:N" all but its last N stages, and what the frozen layers give is
            cached on disk; "all" trains everything.
        width, gate, dropout: see `hashret.models.heads.HashHead`; ``width`` None is 4,096, or 2,048 where the head is
            pooled, ``dropout`` None the method's default, or 0.5.
        epochs, batch_size, weight_decay: of AdamW under a cosine schedule; ``epochs`` None is the method's default, or
            10.
        lr: learning rate; None for 1e-4 where stages of the backbone train too, else the method's default, or 3e-4.
        backbone_lr: learning rate of the backbone's stages that train, where some do; None for ``lr``.
        classifier_rate, quantization, pairs, balance, smoothing: options of methods, which may stand here, too.
        augment: one of `hashret.training.feed.AUGMENTS`, where the whole backbone trains, or of ``views``; None for
            "crop-flip".
        views: where layers are frozen, the augmented views of each photograph that are cached, of which every epoch
            takes another, or the photograph as it is.
        dither: spread the thresholds of the bits of photographs that are searched, see `hashret.bits.dithered`, as far
            as helps the held-out images most, which may be not at all.
        heldout: fraction of the train images that picks the epoch: the latest of those whose mAP is within a standard
            error of the highest; 0 trains on all and keeps the last epoch.
        seed: a whole number below 2^53; decides all that is random but the augmented views that are cached, which the
            pixels of a photograph decide, so that runs with other seeds find them in the cache.
        device: "auto", "cpu" or "cuda".
        precision: number format of the network, "bfloat16", "float32" or None for what is fast on the device.
        runtime: what runs frozen backbones, "torch", "openvino" or "auto", see
            `hashret.models.encoder.pick_precision`.
        metric: of vectors, "cosine" or "euclidean": what nearest means. Vectors have no backbone, and take none of its
            options; trained methods learn a perceptron on them.
        cache: folder of feature caches; None for `hashret.files.default_cache`.
        workers: decoding processes; None for one a core.
        resume: go on with a run that was killed.
        overwrite: replace a checkpoint that exists.

    Under torchrun, the processes share each batch, and the result is that of one process up to rounding: how many
    there are may differ from run to run, and when a run is resumed. All must see ``out`` and ``cache``.

    An option that cannot do what it says here, as a learning rate of a frozen backbone, is an error; one that the
    method has no use for, as epochs where it is fitted at once, is left out with a warning.

    Returns:
        The training record, as written. Where the codes tell photographs no better apart than chance, it has a
        ``warning``, which is a warning here, too.

    Raises:
        HashretError: impossible settings, data without labels, ``out`` exists or cannot be written, a full disk,
            photographs that all look the same, a loss that is no longer a number.
    """
    lengths = lengths_of_code(bits)
    check_metric(metric)
    check_values(
        augment=augment, gate=gate, image_size=image_size, width=width, dropout=dropout, epochs=epochs,
        batch_size=batch_size, lr=lr, backbone_lr=backbone_lr, weight_decay=weight_decay, views=views, heldout=heldout,
        seed=seed, workers=workers,
    )  # fmt: skip
    with main_first():  # what is downloaded or unpacked is so once
        source = as_source(data, split, download=download, exclude=exclude, include=include).single_label()
    if method == AUTO:
        several_classes = source.labels is not None and len(source.classes) > 1
        method = WITH_LABELS if several_classes else WITHOUT_LABELS
    method_class = get_method(method)
    tuned = {
        "width": width, "dropout": dropout, "epochs": epochs, "lr": lr, "gate": gate != "unit",
        "batch_size": batch_size != 128, "weight_decay": weight_decay != 0.01,
    }  # fmt: skip
    if isinstance(source, VectorSource):
        refuse_given(
            "vectors have no backbone",
            backbone=backbone != AUTO, weights=weights not in ("pretrained", "imagenet", "none"),
            image_size=image_size, resize=resize, finetune=finetune != "head", backbone_lr=backbone_lr,
            augment=augment not in (None, "none"), precision=precision not in (None, "float32"),
            runtime=runtime != "auto",
        )  # fmt: skip
        backbone, weights, image_size, resize, finetune = f"vectors:{source.width}", "none", 1, None, "head"
        width = width or 1024
    elif metric != "cosine":
        raise HashretError("photographs have no metric, which is of vectors", hint="leave --metric out")
    on_vectors = isinstance(source, VectorSource)
    backbone = method_class.backbone if backbone == AUTO else backbone
    architecture = get_backbone(backbone)
    image_size, resize = image_size or architecture.image_size, resize or architecture.resize
    check_choice("resize", resize, RESIZES)
    trained_stages = stages_trained(finetune)
    check_combination(
        method_class, on_vectors, trained_stages, weights=weights, views=views, augment=augment,
        backbone_lr=backbone_lr, dither=dither, heldout=heldout,
    )  # fmt: skip
    torch_device = local_device(pick_device(device))
    if method_class.needs_labels:
        source.require_labels()
    several_labels = source.labels is not None and source.labels.ndim == 2
    flags = {
        "classifier_rate": classifier_rate, "quantization": quantization, "pairs": pairs, "balance": balance,
        "smoothing": smoothing,
    }  # fmt: skip
    given = options_from_flags(method_class, flags) | dict(options or {})
    warn_of_unused(method_class, on_vectors, [name for name, value in tuned.items() if value])
    defaults = {"lr": 3e-4, "dropout": 0.5, "epochs": 10} | method_class.defaults_for(lengths[-1], several_labels)
    if trained_stages != 0:
        defaults["lr"] = 1e-4
    settings = Settings(
        data=str(data) if isinstance(data, str | os.PathLike) else source.spec,
        split=split,
        exclude=as_patterns(exclude),
        include=as_patterns(include),
        method=method,
        bits=lengths[-1],
        lengths=lengths,
        image_size=image_size,
        resize=resize,
        arch=backbone,
        weights="pretrained" if weights == "imagenet" else str(weights),
        finetune=finetune,
        width=width or (2048 if architecture.is_pooled(image_size) else 4096),
        gate=gate,
        dropout=defaults["dropout"] if dropout is None else dropout,
        epochs=defaults["epochs"] if epochs is None else epochs,
        batch_size=batch_size,
        lr=defaults["lr"] if lr is None else lr,
        backbone_lr=backbone_lr,
        weight_decay=weight_decay,
        augment=augment or "crop-flip",
        views=views,
        dither=dither,
        heldout=heldout,
        seed=int(seed),
        precision="float32"
        if on_vectors
        else pick_precision(precision, runtime, torch_device, architecture, trained=trained_stages != 0),
        metric=metric if on_vectors else None,
        options=method_class.choose(given, lengths[-1], several_labels),
    )
    files = RunFiles(out)
    with files.claimed(settings, source, resume, overwrite) as state:
        torch.manual_seed(settings.seed)
        net = _untrained(settings, method_class, len(source.classes), weights)
        frozen, trained = net.divided(trained_stages)
        files.check_space(net, trained, method_class.fitted)
        feed = _feed(settings, method_class, source, frozen, trained, torch_device, cache, workers)
        net.to(torch_device).to(memory_format=torch.channels_last)
        trainer = method_class(settings.bits, settings.seed, settings.options)
        trainer.train_with(
            [
                method_class(length, settings.seed, method_class.choose(given, length, several_labels))
                for length in lengths[:-1]
            ]
        )
        for one in trainer.family():
            one.classes = len(source.classes)
        with fast_training(trained) if torch_device.type == "cpu" else nullcontext():
            return TrainingRun(files, settings, torch_device, state, net, trained, trainer, source, feed).train()


def _untrained(settings: Settings, method: type[Method], classes: int, weights: StrPath) -> HashNet:
    """Return the network of a run before it is trained: its backbone with ``weights``, its head as a seed decides."""
    architecture, on_vectors = get_backbone(settings.arch), settings.metric is not None
    pooled = architecture.is_pooled(settings.image_size)
    shape: dict[str, Any] = {
        "attention": method.attention and not on_vectors, "width": settings.width, "gate": settings.gate,
        "dropout": settings.dropout,
    }  # fmt: skip
    if on_vectors:
        shape |= {"centred": True, "unit": settings.metric == "cosine"}
    if pooled:
        shape["pooled"] = POOLED
    shape |= method.head_options
    if len(settings.lengths) > 1 and method.classifier:
        shape["lengths"] = settings.lengths
    config = head_config(method.head, settings.options | shape)
    net = HashNet(
        settings.bits, classes if method.classifier else 0, settings.image_size, settings.arch,
        head=config.pop("kind"), **config,
    )  # fmt: skip
    if not on_vectors:
        with main_first():
            net.backbone = load_backbone(weights, settings.arch)
            if pooled and isinstance(net.head, HashHead) and (found := last_convolution(weights, settings.arch)):
                net.head.start_at(*found)
    return net


def _feed(
    settings: Settings,
    method: type[Method],
    source: Source,
    frozen: nn.Module | None,
    trained: nn.Module,
    device: torch.device,
    cache: StrPath | None,
    workers: int | None,
) -> Feed:
    """Return what reads the batches that go into the ``trained`` layers, through those below where some are frozen."""
    if isinstance(source, VectorSource):
        assert settings.metric is not None
        return VectorFeed(source, settings.metric, settings.seed, device)
    size, resize = settings.image_size, settings.resize
    if frozen is None:
        return ImageFeed(source, size, settings.augment, device, workers, resize=resize)
    of_features = (frozen, get_backbone(settings.arch), size, settings.precision, device, cache, workers)
    if method.views:
        return ViewFeed(method.views, source, *of_features, resize=resize)
    return FeatureFeed(
        source, *of_features, resize=resize, module=trained, views=settings.views, augment=settings.augment
    )
