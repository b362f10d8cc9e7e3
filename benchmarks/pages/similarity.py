"""What the words of ``query --least`` find, in docs/photographs.md, from results/similarity_levels.json alone.

python -m benchmarks.pages.similarity
"""

from __future__ import annotations

import json
from typing import Any

from benchmarks.lib import common
from benchmarks.lib.markdown import fill, made_on, row, table_head
from hashret.similar import LEVELS

RESULT = common.RESULTS / "similarity_levels.json"
PAGE = common.TOP / "docs" / "photographs.md"


def write() -> None:
    """Write the figures into the page."""
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"-> {PAGE}")


def page(text: str) -> str:
    """Return the page's text with the figures between its markers made anew."""
    return fill(text, {"similarity": section()})


def section() -> str:
    """Return the table of levels, as Markdown."""
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    runs = result["runs"]
    [bits] = {run["bits"] for run in runs}
    [counts] = {(run["queries"], run["photographs"]) for run in runs}
    head = ["`--least`", "percent", f"of {bits} bits differ at most"]
    lines = table_head(head + [f"of the same class: `{run['method']}`" for run in runs])
    for word, percent in LEVELS.items():
        shares = [share_of(run, run["levels"][word]) for run in runs]
        within = runs[0]["levels"][word]["within bits"]
        lines.append(row([f"`{word}`", percent, within, *shares]))
    queries, photographs = counts
    return "\n".join(lines) + (
        f"\n\nOf the same class: how many of the pairs that are at least so similar, of {queries:,} test and "
        f"{photographs:,} train photographs of `cifar10-1`; of all pairs it is one in ten. Of `efficientnet_lite0`, "
        f"`itq` without the labels. Made by `benchmarks/run/similarity_levels.py`. {made_on([result])}"
    )


def share_of(run: dict[str, Any], level: dict[str, float]) -> str:
    """Return of a level the share of pairs with a label in common, where it is one of a hundred pairs or more."""
    pairs = level["hits a query"] * run["queries"]
    return f"{100 * level['share with a label in common']:.1f} %" if pairs >= 100 else f"{pairs:.0f} pairs alone"


if __name__ == "__main__":
    write()
