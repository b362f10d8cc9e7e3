"""`hashret compare`: two photographs, and how similar their codes are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .bits import binarize
from .data.in_memory import Photo, photographs
from .errors import HashretError
from .files import StrPath
from .index.rerank import directions
from .models.checkpoint import load_encoder
from .names import shown_path
from .opening import find_model
from .places import find_index
from .queries import read_query
from .results import Result
from .similar import similarity


@dataclass(frozen=True)
class Comparison(Result):
    """Two photographs beside each other.

    Attributes:
        first, second: their paths, or what photographs in memory are called.
        bits: length of their codes.
        hamming: bits in which these differ.
        similarity: percent, see `hashret.similar.similarity`.
        distance: Euclidean distance of the directions of their logits, from 0 to 2, by which a search re-ranks.
    """

    first: str
    second: str
    bits: int
    hamming: int
    similarity: int
    distance: float

    def __str__(self) -> str:
        differ = f"{self.hamming} of {self.bits} bits differ, distance {self.distance:.3g}"
        return f"{shown_path(self.first)} and {shown_path(self.second)} are {self.similarity} % similar: {differ}"


def compare(first: Photo, second: Photo, model: StrPath | None = None, *, device: str = "auto") -> Comparison:
    """Compare two photographs by the codes that an encoder gives them.

    Args:
        first, second: image files, or what else `hashret.data.in_memory.photographs` takes.
        model: checkpoint; None for the one of `hashret.opening.find_model`.
        device: see `hashret.models.checkpoint.load_encoder`.

    Raises:
        HashretError: no encoder, one of vectors, or a photograph that cannot be read.
    """
    encoder = load_encoder(find_model(model, find_index()), device)
    if encoder.vector_width:
        raise HashretError("this encoder is of vectors, not of photographs")
    one_photo, other_photo = photographs([first, second])
    images = [read_query(photo, encoder) for photo in (one_photo, other_photo)]
    outputs = encoder.hash_outputs(np.stack([image for image in images if image is not None]))
    one, other = binarize(outputs)
    away = directions(outputs)
    hamming, distance = int((one != other).sum()), float(np.linalg.norm(away[0] - away[1]))
    names = str(one_photo), str(other_photo)
    return Comparison(*names, encoder.bits, hamming, similarity(hamming, encoder.bits), distance)
