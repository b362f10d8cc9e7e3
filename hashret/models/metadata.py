"""What a checkpoint says of its encoder, read and checked without its tensors. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from ..bits import MAX_BITS, MIN_BITS
from ..errors import HashretError
from ..files import StrPath
from ..names import from_json, utf8_path
from ..records import Misfit, check_format, checked, fields, list_of, number, one_of, or_none, table_of, text, whole
from ..registry import Registry
from ..shards import LENGTHS, PROTOCOL
from ..vectors import METRICS
from .backbone import GATES, RESIZES
from .backbones import refusal
from .class_logits import KEY

if TYPE_CHECKING:
    from .heads import Head

FORMAT = 3  # of encoders with spread thresholds; 1 of all others
_OUTPUTS_SPREAD = 2  # was written for some days: queries had spread thresholds, too
METADATA = "hashret"  # the name under which a safetensors file has it
HEADS: Registry[type[Head]] = Registry(
    "head",
    {
        "fc": "hashret.models.heads:HashHead",
        "sliced": "hashret.models.heads:SlicedHead",
        "projection": "hashret.models.heads:ProjectionHead",
        "kernel": "hashret.models.heads:KernelHead",
        "perceptron": "hashret.models.heads:PerceptronHead",
    },
)


class Described:
    """Base of encoders: what their checkpoint's metadata say.

    Attributes:
        meta: the metadata (bits, image_size, classes, fingerprint ...).
    """

    meta: dict[str, Any]

    @property
    def bits(self) -> int:
        """Length of the codes."""
        return int(self.meta["bits"])

    @property
    def image_size(self) -> int:
        """Pixels a side of the images."""
        return int(self.meta["image_size"])

    @property
    def resize(self) -> str:
        """How photographs become squares of that size, see `hashret.data.images.read_image`."""
        return str(self.meta.get("resize", "squeeze"))

    @property
    def fingerprint(self) -> str:
        """What tells this encoder from any other that gives other codes."""
        return str(self.meta["fingerprint"])

    @property
    def dither(self) -> float:
        """Spread of the thresholds of photographs that are searched, see `hashret.bits.dithered`; 0 for none."""
        return float(self.meta.get("dither", 0))

    @property
    def vector_width(self) -> int | None:
        """Numbers of a vector, where vectors are encoded; None where photographs are."""
        return int(self.meta["arch"].removeprefix("vectors:")) if "metric" in self.meta else None


def _registered(registry: Mapping[str, object], what: str) -> Callable[[object, str], None]:
    """Return a check that a value is a name in a registry, which may have grown since this module was loaded."""

    def check(value: object, place: str) -> None:
        if not isinstance(value, str) or value not in registry:
            raise Misfit(f"{place} is {value!r}, and the {what} that are registered here are {', '.join(registry)}")

    return check


def _backbone(value: object, place: str) -> None:
    """Check that a backbone is one that a checkpoint may name."""
    if reason := refusal(value):
        raise Misfit(f"{place} {reason}")


_HEAD = _registered(HEADS, "heads")
_SIZE = whole(1, 2**20)
_CLASS_LOGITS = table_of(list_of(text("([0-9a-f]{2})+", "no numbers"), 1), r"[1-9]\d*", "no length of code")
_META = fields(
    {
        "bits": whole(MIN_BITS, MAX_BITS), "image_size": whole(1, 2**15), "arch": _backbone,
        "classes": list_of(text()), "width": _SIZE, "attention": one_of(True, False), "fingerprint": text(),
        "weights_fingerprint": text(), "method": text(),
    },
    {
        "head": _HEAD, "gate": one_of(*GATES), "dropout": number(0, 1), "anchors": _SIZE,
        "head_config": fields({"kind": _HEAD}), "classifier": one_of(True, False), "seed": whole(),
        "resize": one_of(*RESIZES), "metric": one_of(*METRICS), "unit_length": one_of(True, False), "rerank_by": text(),
        "lengths": LENGTHS, "dither": number(0, MAX_BITS**0.5), "multi_label": one_of(True, False), KEY: _CLASS_LOGITS,
        "protocol": or_none(PROTOCOL), "data": text(), "heldout_map": or_none(number()), "best_epoch": whole(),
    },
)  # fmt: skip
_OF_VECTORS = {"metric": None, "unit_length": None, "rerank_by": None}.keys()  # which encoders of vectors have


def read_meta(path: StrPath) -> dict[str, Any]:
    """Return the metadata of a checkpoint, without loading its tensors.

    Raises:
        HashretError: no such file, damaged, not a hashret checkpoint, of a later format, or with a backbone or head
            that is not registered.
    """
    path = Path(path)
    if not path.is_file():
        hint = "make one with hashret sync PHOTOS or hashret train, or name one with --model"
        raise HashretError(f"no checkpoint at {path}", hint=hint)
    try:
        with utf8_path(path) as name, safe_open(name, "np") as file:
            stored = (file.metadata() or {}).get(METADATA)
    except (SafetensorError, OSError) as error:
        raise HashretError(f"the checkpoint {path} is damaged: {error}") from None
    if stored is None:
        raise HashretError(f"{path} is a safetensors file, but not a hashret checkpoint")
    try:
        meta: dict[str, Any] = from_json(stored)
    except ValueError as error:
        raise HashretError(f"the checkpoint {path} is damaged: {error}") from None
    checked(meta, fields({}), f"the checkpoint {path}")
    check_format(meta.get("format", 0), FORMAT, path)
    if meta.get("format") == _OUTPUTS_SPREAD:
        raise HashretError(f"{path} spreads the thresholds of queries, too (format 2)", hint="train it again")
    checked(meta, _META, f"the checkpoint {path}")
    if meta["arch"].startswith("vectors:") != (meta.keys() >= _OF_VECTORS):
        raise HashretError(f"the checkpoint {path} is damaged: {', '.join(_OF_VECTORS)} go with {meta['arch']}")
    return meta
