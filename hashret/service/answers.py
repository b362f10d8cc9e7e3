"""From an encoded query to what the service answers."""

from __future__ import annotations

import time

import numpy as np

from ..bits import binarize, pack
from .schema import Answer, Hit, Query


def answer(snapshot, code, values, wanted, **query):
    """Search for one query: -> `Answer` with both orders, that of the re-rank and that of the Hamming distance.

    Args:
        snapshot: a `hashret.service.live.Snapshot`.
        code: packed, uint8 (w,).
        values: of the hash layer, float32 (bits,), or None to leave the Hamming order.
        wanted: its ``k``, ``candidates`` and ``rerank_by`` as of `hashret.index.Database.search`, its ``label`` to
            search among, or None.
        query: further fields of `Query`, ``milliseconds`` among them, to which those of the two stages are added.
    """
    index, milliseconds = snapshot.index, dict(query.pop("milliseconds", {}))
    among = snapshot.among(wanted.label)
    started = time.perf_counter()
    D, rows, cut = index.candidates(code[None], wanted.k, wanted.candidates, among)
    milliseconds["hamming"] = since(started)
    started = time.perf_counter()
    if values is None:
        euclidean, order = np.full(rows.shape, np.nan, np.float32), np.arange(rows.shape[1])[None]
    else:
        euclidean, order = index.reranked(values[None], rows, wanted.rerank_by)
    milliseconds["rerank"] = since(started)
    place = np.argsort(order[0])  # of each candidate after the re-rank
    best, nearest = order[0, : wanted.k].tolist(), range(min(wanted.k, rows.shape[1]))
    columns = sorted({*best, *nearest})
    items = dict(zip(columns, index.items(rows[0, columns].tolist(), codes=True), strict=True))

    def hit(column, rank):
        item, distance = items[column], float(euclidean[0, place[column]])
        return Hit(
            rank=rank, id=item.id, path=item.path, label=item.label, labels=list(item.labels),
            hamming=int(D[0, column]), euclidean=None if values is None else distance,
            hamming_rank=column + 1, reranked_rank=int(place[column]) + 1, code=item.code.tobytes().hex(),
        )  # fmt: skip

    return Answer(
        query=Query(
            code=code.tobytes().hex(),
            values=None if values is None else values.tolist(),
            milliseconds=milliseconds,
            **query,
        ),
        hits=[hit(column, rank) for rank, column in enumerate(best, 1)],
        hamming_hits=[hit(column, column + 1) for column in nearest],
        count=len(index) if among is None else len(among),
        candidates=rows.shape[1],
        ties_cut=cut,
        generation=index.meta["generation"],
    )


def code_of(values):
    """The code of hash-layer values: float32 (bits,) -> packed uint8 (w,)."""
    return pack(binarize(values[None]))[0]


def since(started):
    """Milliseconds since a `time.perf_counter`."""
    return round(1000 * (time.perf_counter() - started), 3)
