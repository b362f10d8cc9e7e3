"""The settings of a training run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """What decides the result of a training run; recorded with it, and compared when it is resumed."""

    data: str
    split: str
    exclude: tuple[str, ...]
    include: tuple[str, ...]
    method: str
    bits: int
    image_size: int
    arch: str
    weights: str
    finetune: str
    width: int
    gate: str
    dropout: float
    epochs: int
    batch_size: int
    lr: float
    classifier_rate: float
    weight_decay: float
    quantization: float
    pairs: float
    balance: float
    smoothing: float
    augment: str
    heldout: float
    seed: int
    precision: str
