"""Sort keys: a distance and a number packed into one 64-bit integer, so that one plain sort orders by both.

Such a sort is about three times as fast as `np.lexsort` or a stable `np.argsort`. From the highest bit down, a key is

    query (where there are several) | distance: 13 bits, 0 to 4,096 | number: 32 bits

where the number is an item of a segment or a column, or, with `POSITION_BITS`, a position in an index of any size.
The functions take int64 arrays of numpy and tensors of torch alike.
"""

from __future__ import annotations

from typing import Any

NUMBER_BITS = 32
POSITION_BITS = 40
_DISTANCE_BITS = 13
MOST_QUERIES = 2 ** (63 - NUMBER_BITS - _DISTANCE_BITS)  # whose keys are sorted together


def make_keys(distance: Any, number: Any, number_bits: int = NUMBER_BITS) -> Any:
    """Return keys that sort by (distance, number): whole numbers of 64 bits of one shape, not negative."""
    return distance << number_bits | number


def split_keys(keys: Any, number_bits: int = NUMBER_BITS) -> tuple[Any, Any]:
    """Return the distances and the numbers of keys that `make_keys` made."""
    return keys >> number_bits, keys & ((1 << number_bits) - 1)


def make_query_keys(query: Any, distance: Any, number: Any) -> Any:
    """Return keys that sort by (query, distance, number), each int64 of one shape."""
    return query << (_DISTANCE_BITS + NUMBER_BITS) | make_keys(distance, number)


def split_query_keys(keys: Any) -> tuple[Any, Any]:
    """Return the distances and the numbers of keys that `make_query_keys` made, without the queries."""
    distance, number = split_keys(keys)
    return distance & ((1 << _DISTANCE_BITS) - 1), number
