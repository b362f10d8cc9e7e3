"""What every verb returns: a frozen dataclass whose fields are documented, with `Result.as_dict` for JSON.

`WasDict`, `WasTuple` and `WasInt` let a result still be used as what the verb returned before; each use warns.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Result:
    """Base of the results."""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON has them."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True, eq=False)
class ResultList(Result, Sequence[T]):
    """Base of a result that also is the list of its first field: it has a length, and its items by number."""

    @property
    def _items(self) -> list[T]:
        items: list[T] = getattr(self, dataclasses.fields(self)[0].name)
        return items

    def __getitem__(self, number: Any) -> Any:
        return self._items[number]

    def __len__(self) -> int:
        return len(self._items)

    def __eq__(self, other: object) -> bool:
        return self._items == (other._items if isinstance(other, ResultList) else other)


class _WasCollection(Result):
    def _old(self) -> Any:
        raise NotImplementedError

    def __getitem__(self, key: Any) -> Any:
        return self._old()[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._old())

    def __len__(self) -> int:
        return len(self._old())


class WasDict(_WasCollection, Mapping[str, Any]):
    """Base of a result whose verb returned a dict."""

    def _old(self) -> dict[str, Any]:
        return _warned(self, self.as_dict(), "a dict", "its fields, or as_dict()")


class WasTuple(_WasCollection):
    """Base of a result whose verb returned a tuple of the fields, in their order."""

    def _old(self) -> tuple[Any, ...]:
        fields = tuple(getattr(self, field.name) for field in dataclasses.fields(self))
        return _warned(self, fields, "a tuple", "its fields")


class WasInt(Result):
    """Base of a result whose verb returned a number, which is now its first field.

    The dataclass is made with ``eq=False``, so that comparing it with a number still works.
    """

    def _old(self) -> int:
        name = dataclasses.fields(self)[0].name
        return _warned(self, int(getattr(self, name)), "a number", f"its field {name}")

    def __int__(self) -> int:
        return self._old()

    def __index__(self) -> int:
        return self._old()

    def __bool__(self) -> bool:
        return bool(self._old())

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Result):
            return type(self) is type(other) and self.as_dict() == other.as_dict()
        return self._old() == other

    def __hash__(self) -> int:
        return hash(self._old())

    def __format__(self, spec: str) -> str:
        return format(self._old(), spec) if spec else str(self)


def _warned(result: Result, old: T, was: str, now: str) -> T:
    """Return ``old``, and warn that the result is used as what it was."""
    warnings.warn(f"{type(result).__name__} is no longer {was}; use {now}", DeprecationWarning, stacklevel=4)
    return old
