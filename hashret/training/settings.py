"""The settings of a training run, and the report of one. Nothing here needs torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..records import fields, number, or_none, whole
from ..results import WasDict

# Options of methods that every record has, also that of a method without them.
ALWAYS_RECORDED = {"quantization": 0.0, "pairs": 0.0, "balance": 0.0, "smoothing": 0.0, "classifier_rate": 1.0}


# What a training notes of each epoch.
EPOCH = fields(
    {"epoch": whole(1), "loss": or_none(number())},
    {"heldout_map": number(), "heldout_error": number(), "lr": number(), "seconds": number()},
)


@dataclass(frozen=True)
class Chosen:
    """What was chosen for a training run. Tuples, or lists where they were read from a record.

    All are as in `hashret.train` but ``bits``, the longest of the ``lengths`` of code, and ``arch``, the name of the
    backbone.
    """

    data: str
    split: str
    exclude: Sequence[str]
    include: Sequence[str]
    method: str
    bits: int
    lengths: Sequence[int]
    image_size: int
    resize: str
    arch: str
    weights: str
    finetune: str
    width: int
    gate: str
    dropout: float
    epochs: int
    batch_size: int
    lr: float
    backbone_lr: float | None
    weight_decay: float
    augment: str
    views: int
    dither: bool
    heldout: float
    seed: int
    precision: str
    metric: str | None


@dataclass(frozen=True)
class Settings(Chosen):
    """What decides the result of a training run; recorded with it, and compared when it is resumed.

    Attributes:
        options: the value of each option of the method.

    Raises:
        ValueError: an option of the method has the name of a setting.
    """

    options: dict[str, float]

    def __post_init__(self) -> None:
        taken = vars(self).keys() & self.options.keys()
        if taken:
            raise ValueError(f"the method {self.method} has options with names of settings: {', '.join(taken)}")

    def as_record(self) -> dict[str, Any]:
        """Return the settings as the training record has them, where options stand beside the others."""
        settings = {name: value for name, value in vars(self).items() if name != "options"}
        return settings | ALWAYS_RECORDED | self.options

    def changed_since(self, record: Mapping[str, Any]) -> list[str]:
        """Return the settings that differ from those of an earlier record, each with both values."""
        now, unused = self.as_record(), ALWAYS_RECORDED.keys() - self.options.keys()
        of_earlier_records = {"resize": "squeeze", "metric": None, "views": 0, "backbone_lr": None, "dither": False}
        record = of_earlier_records | {"lengths": (record.get("bits"),)} | dict(record)
        if record.get("weights") == "imagenet":  # the old name
            record["weights"] = "pretrained"
        return [
            f"{name} {value} (now {now.get(name)})"
            for name, value in record.items()
            if name not in unused and (name not in now or now[name] != value)
        ]


@dataclass(frozen=True)
class TrainReport(Chosen, WasDict):
    """The record of a training run: its settings, where it ran, and how it went.

    Attributes:
        data, split, exclude, include, method, bits, lengths, image_size, resize, arch, weights, finetune, width, gate,
            dropout, epochs, batch_size, lr, backbone_lr, weight_decay, augment, views, dither, heldout, seed,
            precision, metric: see `Chosen`.
        hashret, torch: versions.
        device: where the network was trained.
        processes: processes that shared each batch.
        train_images, heldout_images: images learned from, and images that picked the epoch.
        classes: names of the classes.
        multi_label: whether photographs have several labels.
        protocol: the evaluation protocol that the data are a part of, or None.
        best_epoch: number of the epoch that was kept, from 1 on.
        epochs_run: for each epoch its loss and, where images were held out, their mAP as ``heldout_map`` and its
            standard error as ``heldout_error``.
        seconds: time that training took, with that of the epochs before a kill.
        dither_spread: spread of the thresholds that was chosen, see `hashret.bits.dithered`; 0 for none.
        codes: how far the codes differ, see `hashret.collapse.code_figures`.
        warning: what is wrong with the codes, where they tell photographs no better apart than chance; else None.
        fingerprint: what tells the encoder from all others.
        options: value of each option of the method, and of those that every record has.
    """

    hashret: str
    torch: str
    device: str
    processes: int
    train_images: int
    heldout_images: int
    classes: list[str]
    multi_label: bool
    protocol: dict[str, Any] | None
    best_epoch: int
    epochs_run: list[dict[str, Any]]
    seconds: float
    dither_spread: float
    codes: dict[str, Any]
    warning: str | None
    fingerprint: str
    options: dict[str, float]

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> TrainReport:
        """Return the report of a run from the record that it wrote."""
        record = {"dither": False, "dither_spread": 0.0} | dict(record)  # which earlier records lack
        return cls(**{name: record[name] for name in cls._beside_options()}, options=cls.options_in(record))

    @classmethod
    def options_in(cls, record: Mapping[str, Any]) -> dict[str, Any]:
        """Return of a training record, or of a part of one, the value of each option of a method."""
        return {name: value for name, value in record.items() if name not in cls._beside_options()}

    @classmethod
    def _beside_options(cls) -> set[str]:
        return {field.name for field in dataclasses.fields(cls)} - {"options"}

    def as_dict(self) -> dict[str, Any]:
        """Return the record as it is written, where options stand beside the settings."""
        record = super().as_dict()
        options: dict[str, float] = record.pop("options")
        return record | options
