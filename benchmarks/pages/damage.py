"""The figures of damaged files in docs/your-files.md, from benchmarks/results/damage.json and nothing else.

python -m benchmarks.pages.damage
"""

from __future__ import annotations

import json

from benchmarks.lib import common
from benchmarks.lib.markdown import fill, made_on, row, table_head

RESULT = common.RESULTS / "damage.json"
PAGE = common.TOP / "docs" / "your-files.md"


def write() -> None:
    """Write the figures into the page."""
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"-> {PAGE}")


def page(text: str) -> str:
    """Return the page's text with the figures between its markers made anew."""
    return fill(text, {"damage": section()})


def section() -> str:
    """Return the table of what the cases ended in, and their limits, as Markdown."""
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    answers, faults, limits = result["answers"], result["faults"], result["limits"]
    lines = table_head(["cases", "refused in one line", "answered", "answered, and compared", "faults"])
    counts = [answers.get(name, 0) for name in ("refused", "answered", "answered as before", "fault")]
    lines.append(row(f"{number:,}" for number in (result["cases"], *counts)))
    return "\n".join(lines) + (
        f"\n\nFaults: {', '.join(f'{number} {name}' for name, number in faults.items())}. Compared: a checksum covers "
        "the file, and the answer is that of the undamaged one. The slowest case took "
        f"{result['slowest_seconds']:.0f} s of {limits['seconds']} allowed, on a busy machine; the most "
        f"memory was {result['most_memory_mb']:,} MB beyond that of a process that does nothing, of "
        f"{limits['memory_mb']:,} allowed. {made_on([result])} Seed {result['seed']}."
    )


if __name__ == "__main__":
    write()
