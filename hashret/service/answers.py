"""The answer to one query: both orders, and the time of each stage."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from ..bits import Codes, HashOutputs, binarize, pack
from ..similar import bits_within, similarity
from ..vectors import Vectors
from .live import Snapshot
from .schema import Answer, Hit, Query, SearchParameters


def answer(
    snapshot: Snapshot,
    code: Codes,
    hash_outputs: HashOutputs | None,
    parameters: SearchParameters,
    rerank: tuple[str, Vectors] | None,
    **query: Any,
) -> Answer:
    """Search for one query, and return the order of the re-rank and that of the Hamming distance.

    Args:
        snapshot: the index to search.
        code: packed, uint8 (w,).
        hash_outputs: float32 (bits,), where they are known.
        parameters: the parameters of the search; a wrong ``least`` is a HashretError.
        rerank: what the re-rank compares, one of `hashret.index.rerank.CHOICES`, and that of the query, float32 (1, d);
            None leaves the Hamming order.
        query: further fields of `Query`; the time of the two stages is added to its ``milliseconds``.
    """
    index, milliseconds = snapshot.index, dict(query.pop("milliseconds", {}))
    among = snapshot.among(parameters.label)
    most_bits = None if parameters.least is None else bits_within(parameters.least, index.bits)
    [ranked] = index.ranked(code[None], rerank, parameters.k, parameters.candidates, among)  # one query is one group
    ranked = ranked.with_near_first(most_bits)
    [hamming], [positions], [cut] = ranked.candidates[1:]
    [euclidean], [order] = ranked.euclidean, ranked.order
    milliseconds |= zip(("hamming", "rerank"), (round(1000 * seconds, 3) for seconds in ranked.seconds), strict=True)
    reranked_ranks = np.argsort(order)  # of each candidate, from 0; candidates are numbered by Hamming distance
    near = len(hamming) if most_bits is None else int((hamming <= most_bits).sum())
    best, by_hamming = order[: min(parameters.k, near)].tolist(), range(min(parameters.k, near))
    beyond = [0] if len(positions) and not near else []
    candidate_numbers = sorted({*best, *by_hamming, *beyond})
    items = dict(zip(candidate_numbers, index.items(positions[candidate_numbers].tolist(), codes=True), strict=True))

    def hit(candidate_number: int, rank: int) -> Hit:
        item, reranked_rank = items[candidate_number], int(reranked_ranks[candidate_number])
        differing, distance = int(hamming[candidate_number]), float(euclidean[reranked_rank])
        assert item.code is not None
        return Hit(
            rank=rank, id=item.id, path=snapshot.path_for_visitors(item.path), label=item.label,
            labels=list(item.labels),
            hamming=differing, similarity=similarity(differing, index.bits), hamming_rank=candidate_number + 1,
            euclidean=distance if math.isfinite(distance) else None,  # as `hashret.hits.hits_of` has it
            reranked_rank=reranked_rank + 1, code=item.code.tobytes().hex(), nearest_to=None,
            columns=dict(item.columns), digest=snapshot.digest(item),
        )  # fmt: skip

    return Answer(
        query=Query(
            code=code.tobytes().hex(),
            values=None if hash_outputs is None else hash_outputs.tolist(),
            milliseconds=milliseconds,
            **query,
        ),
        hits=[hit(number, rank) for rank, number in enumerate(best, 1)],
        hamming_hits=[hit(number, number + 1) for number in by_hamming],
        nearest=next((hit(number, 1) for number in beyond), None),
        count=len(index) if among is None else len(among),
        candidates=len(positions) if rerank else 0,
        ties_cut=bool(cut),
        generation=index.meta["generation"],
    )


def union(answers: Sequence[Answer], k: int) -> Answer:
    """Return the answer to any of several queries, as `hashret.Searcher.search_together` has it: by least distance.

    Args:
        answers: those to each of the queries, of the same index.
        k: hits.
    """

    def by_codes(hit: Hit) -> tuple[float, int, int]:
        return hit.hamming, hit.hamming, hit.id

    def reranked(hit: Hit) -> tuple[float, int, int]:
        return hit.hamming if hit.euclidean is None else hit.euclidean, hit.hamming, hit.id

    def merged(lists: Iterable[Iterable[Hit]], distance: Callable[[Hit], tuple[float, int, int]]) -> list[Hit]:
        best: dict[int, Hit] = {}
        for number, hits in enumerate(lists):
            for hit in hits:
                numbered = hit.model_copy(update={"nearest_to": number})
                best[hit.id] = min(best.get(hit.id, numbered), numbered, key=distance)
        return [
            hit.model_copy(update={"rank": rank}) for rank, hit in enumerate(sorted(best.values(), key=distance)[:k], 1)
        ]

    stages = {stage for one in answers for stage in one.query.milliseconds}
    spent = {stage: round(sum(one.query.milliseconds.get(stage, 0) for one in answers), 3) for stage in stages}
    codes = [one.query.code for one in answers if one.query.code]
    hits = merged((one.hits for one in answers), reranked)
    beyond = [[] if hits or one.nearest is None else [one.nearest] for one in answers]
    together = {
        "query": Query.model_validate({"code": None, "codes": codes, "milliseconds": spent}),
        "hits": hits,
        "hamming_hits": merged((one.hamming_hits for one in answers), by_codes),
        "nearest": next(iter(merged(beyond, by_codes)), None),
        "candidates": max(one.candidates for one in answers),
        "ties_cut": any(one.ties_cut for one in answers),
    }
    return answers[0].model_copy(update=together)


def code_of(hash_outputs: HashOutputs) -> Codes:
    """Return the packed code (w,) of hash outputs (bits,)."""
    code: Codes = pack(binarize(hash_outputs[None]))[0]
    return code


def since(started: float) -> float:
    """Return the milliseconds since a `time.perf_counter`."""
    return round(1000 * (time.perf_counter() - started), 3)
