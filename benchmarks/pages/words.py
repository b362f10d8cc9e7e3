"""Tables of the runs of `benchmarks.run.words`, from their JSON and nothing else: benchmarks/words.md.

python -m benchmarks.pages.words
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.lib import common
from benchmarks.lib.markdown import made_on, row, table_head

RESULT = common.RESULTS / "words_corel5k-21.json"
PAGE = common.TOP / "benchmarks" / "words.md"
PARTS = {"database": "the database, from which it learned", "test": "photographs that it never saw"}


def write() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")
    print(f"-> {PAGE}")


def page(result: Path = RESULT) -> str:
    """Return the page of a result."""
    found = json.loads(result.read_text(encoding="utf-8"))
    sections = [HEAD, asked(found)]
    for part, name in PARTS.items():
        sections.append(f"## {name[0].upper()}{name[1:]}\n\n{table(found, part)}")
    return "\n\n".join([*sections, f"{made_on([found])} Seed {found['seed']}, {found['bits']} bits."]) + "\n"


def asked(found: dict[str, Any]) -> str:
    """Return the table of words beside photographs as queries, re-ranked by directions as `hashret query` does."""
    lines = table_head(["method", "a word", "the same, unseen photographs", "a photograph"])
    for run in found["runs"]:
        words = [of["words"]["one"]["directions"] if (of := run[part]).get("words") else None for part in PARTS]
        lines.append(row([run["method"], *map(figure, words), figure(run["photographs"]["reranked"])]))
    return "\n".join(lines)


def table(found: dict[str, Any], part: str) -> str:
    """Return the table of all ways to make a query of a class, for one or the other set of photographs."""
    numbers = sorted({way["number"] for run in found["runs"] for way in run[part].values()})
    columns = [f"{what}, {by}" for what in ("a word", "two words") for by in ("Hamming", "values", "directions")]
    lines = table_head(["method", "query", *columns])
    for run in found["runs"]:
        for name, way in run[part].items():
            cells = [way[what][by] for what in ("one", "pairs") for by in ("hamming", "values", "directions")]
            lines.append(row([run["method"], name, *map(figure, cells)]))
    pairs, least = " or ".join(map(str, numbers)), found["least"][part]
    return "\n".join(lines) + f"\n\nOf two words, {pairs} pairs count, which {least} photographs or more have both of."


def figure(number: float | None) -> str:
    """Return a figure to three digits, or nothing for none."""
    return "" if number is None else f"{number:.3f}"


HEAD = """# What words find

`hashret query --words "bear, snow"` asks an encoder for classes that it has learned. mAP on Corel5k-21 over
EfficientNet-Lite0, frozen, at 224 px: each of the 21 labels is a query, to which the photographs that have it are
relevant; of two words, those that have both. What a head knows of a class (a codeword, or the weights of its
classifier) is taken for the logits of a photograph of it. Beside it, below, stand the same weights less their mean over
the classes, and the mean hash outputs of the photographs that have the label, less those of all.

**What they show**, by one seed. A codeword is a better query for a word than the mean of the photographs that were
drawn to it; for two words the mean is mostly better. The re-rank is worth more to words than to photographs: a word's
logits say which bits matter. Weights are taken less their mean where classes exclude each other, since it then counts
for nothing; where photographs have several labels, they are taken as they are, which for two words finds more. Encoders
that learned no classes, as ITQ, could be asked through the photographs that have a label, too, which finds less than
what most others find by words; but those photographs have the label already, and `--label` finds them. A photograph as
a query is scored by other photographs that share any of its labels, and so has other relevant ones.

Made by `benchmarks/pages/words.py` from what `benchmarks/run/words.py` writes."""


if __name__ == "__main__":
    write()
