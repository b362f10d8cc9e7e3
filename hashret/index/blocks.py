"""How much of an index is handled in one step of numpy: enough to hide the cost of a step, little beside the memory."""

from __future__ import annotations

ROWS_AT_ONCE = 2**18  # rows of a mapped file, of some ten to a hundred bytes each
PAIRS_AT_ONCE = 2**22  # numbers of a temporary array: queries times items, or times candidates
