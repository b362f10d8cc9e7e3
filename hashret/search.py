"""From a photograph to its answers: the only module that knows both the encoder and the index."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from .bits import binarize, pack
from .data.batches import split_rows
from .data.images import UnreadableImage, read_image
from .errors import HashretError
from .index import open_index
from .models.checkpoint import load_encoder, read_meta

_AT_ONCE = 64  # photographs decoded before they are encoded


@dataclass(frozen=True)
class Hit:
    """One answer: ``rank`` from 1, ``id`` and ``path`` of the photograph, its ``label`` ("" where unknown), its
    ``hamming`` distance in bits, its ``euclidean`` distance (None without re-rank).
    """

    rank: int
    id: int
    path: str
    label: str
    hamming: int
    euclidean: float | None

    def as_dict(self):
        """The hit as plain types, for JSON."""
        return asdict(self)


class Searcher:
    """An index and the encoder it was built with.

    Args:
        index: folder of an index, see `hashret build-index`.
        model: checkpoint of the encoder.
        device: "auto", "cpu" or "cuda", for both.

    Raises:
        HashretError: either is missing or damaged, or the index was built by another encoder.
    """

    def __init__(self, index="index", model="model.safetensors", device="auto"):
        self.index = open_index(index, device)
        meta = read_meta(model)
        if meta["fingerprint"] != self.index.meta["encoder"]:
            raise HashretError(
                f"the index {index} was built by another encoder than {model}; "
                "name its own with --model, or encode and build the index again"
            )
        self.encoder = load_encoder(model, device, self.index.meta["precision"])

    def search(self, photo, k=10, candidates=1000, rerank=True, rerank_by="values"):
        """Answers to one photograph: path -> list of `Hit`, best first. Raises HashretError if it cannot be read."""
        return self.search_many([photo], k, candidates, rerank, rerank_by)[0]

    def search_many(self, photos, k=10, candidates=1000, rerank=True, rerank_by="values"):
        """Answers to several photographs: paths -> one list of `Hit` for each."""
        return self.hits(self.encode(photos), k, candidates, rerank, rerank_by)

    def encode(self, photos):
        """Hash-layer values of photographs: paths -> float32 (n, bits). Raises HashretError if one cannot be read."""
        if not len(photos):
            raise HashretError("no photographs to look for")
        return np.concatenate([self.encoder.values(self._pixels(some)) for some in split_rows(photos, _AT_ONCE)])

    def _pixels(self, photos):
        images = []
        for photo in photos:
            try:
                images.append(read_image(photo, self.encoder.image_size))
            except UnreadableImage as error:
                raise HashretError(f"cannot read {photo}: {error}") from None
        return np.stack(images)

    def hits(self, values, k=10, candidates=1000, rerank=True, rerank_by="values"):
        """Answers to encoded photographs: values (n, bits) -> one list of `Hit` for each."""
        found = self.index.search(pack(binarize(values)), values if rerank else None, k, candidates, rerank_by)
        return [self._hits(*row) for row in zip(found.rows, found.hamming, found.euclidean, strict=True)]

    def _hits(self, rows, hamming, euclidean):
        index = self.index
        return [
            Hit(
                rank, int(index.ids[row]), index.path(row), index.label(row), int(bits),
                None if math.isnan(distance) else float(distance),
            )
            for rank, (row, bits, distance) in enumerate(zip(rows, hamming, euclidean, strict=True), 1)
        ]  # fmt: skip


def query(
    photos,
    index="index",
    model="model.safetensors",
    *,
    k=10,
    candidates=1000,
    rerank=True,
    rerank_by="values",
    device="auto",
):
    """Look for photographs in an index: paths or folders -> list of (path, list of `Hit`).

    Args:
        photos: image files; a folder stands for all images below it.
        index, model, device: see `Searcher`.
        k: answers a photograph.
        candidates: nearest by Hamming distance that are re-ranked.
        rerank: False leaves the order of the Hamming distance.
        rerank_by: "values", or "directions" of the logits, see `hashret.index.rerank`.
    """
    files = expand(photos)
    searcher = Searcher(index, model, device)
    return list(zip(files, searcher.search_many(files, k, candidates, rerank, rerank_by), strict=True))


def expand(photos):
    """Image files of a list in which a folder stands for the images below it. Raises HashretError if one is missing."""
    from .data.folder import image_paths

    files = []
    for photo in photos:
        path = Path(photo)
        if path.is_dir():
            inside = [str(path / name) for name in image_paths(path)]
            if not inside:
                raise HashretError(f"no images in {path}")
            files += inside
        elif path.exists():
            files.append(str(path))
        else:
            raise HashretError(f"no such file: {photo}")
    return files
