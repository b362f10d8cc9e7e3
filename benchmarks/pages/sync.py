"""The figures of random changes and kills in docs/sync.md, from benchmarks/results/sync_random.json and nothing else.

python -m benchmarks.pages.sync
"""

from __future__ import annotations

import json

from benchmarks.lib import common
from benchmarks.lib.markdown import fill, made_on, row, table_head

RESULT = common.RESULTS / "sync_random.json"
PAGE = common.TOP / "docs" / "sync.md"
_FIGURES = (
    "killed", "two at once", "contents encoded", "encoded though in the index", "encoded again after a kill",
)  # fmt: skip


def write() -> None:
    """Write the figures into the page."""
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"-> {PAGE}")


def page(text: str) -> str:
    """Return the page's text with the figures between its markers made anew."""
    return fill(text, {"random": section()})


def section() -> str:
    """Return the table of what was done and found, as Markdown."""
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    lines = table_head(["rounds", "changes", *_FIGURES, "not as built anew"])
    counts = [result["rounds"], sum(result["changes"].values()), *(result[name] for name in _FIGURES), 0]
    lines.append(row(f"{number:,}" for number in counts))
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in result["changes"].items())
    return "\n".join(lines) + (
        f"\n\nChanges: {kinds}. A kill loses the {result['shard']} photographs of a shard at most here, 256 otherwise. "
        "The run ends at the first fault, so that the last column is of all rounds. Made by "
        f"`benchmarks/run/sync_random.py`. {made_on([result])} Seed {result['seed']}."
    )


if __name__ == "__main__":
    write()
