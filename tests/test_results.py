"""Results are dataclasses, and can for this release still be used as what a verb returned before."""

from dataclasses import dataclass

import pytest

from hashret.results import ResultList, WasDict, WasInt, WasTuple


@dataclass(frozen=True)
class Described(WasDict):
    count: int
    parts: tuple[int, ...] = ()


@dataclass(frozen=True)
class Compacted(WasTuple):
    count: int
    before: int


@dataclass(frozen=True, eq=False)
class Removed(WasInt):
    count: int


@dataclass(frozen=True, eq=False)
class Found(ResultList[str]):
    names: list[str]
    radius: int = 1


def test_what_is_a_list(recwarn):
    result = Found(["b", "a"])
    assert (len(result), result[-1], result[:1], [*result], "b" in result) == (2, "a", ["b"], ["b", "a"], True)
    assert result == ["b", "a"] == Found(["b", "a"], 2)
    assert result != []
    assert not Found([])
    assert result.as_dict() == {"names": ["b", "a"], "radius": 1}
    assert not recwarn


def test_what_was_a_dict():
    result = Described(3, (1, 2))
    assert result.as_dict() == {"count": 3, "parts": (1, 2)}
    with pytest.warns(DeprecationWarning, match="Described is no longer a dict; use its fields, or as_dict") as caught:
        assert result["count"] == 3
    assert caught[0].filename == __file__
    with pytest.warns(DeprecationWarning, match="no longer"):
        assert ("count" in result, "x" in result, len(result), [*result]) == (True, False, 2, ["count", "parts"])
    with pytest.warns(DeprecationWarning, match="no longer"):
        assert {**result} == dict(result.items()) == result.as_dict()
    with pytest.warns(DeprecationWarning, match="no longer"):
        assert result.get("x", 5) == 5
    assert result == Described(3, (1, 2))


def test_what_was_a_tuple():
    with pytest.warns(DeprecationWarning, match="Compacted is no longer a tuple; use its fields"):
        count, before = Compacted(3, 7)
    with pytest.warns(DeprecationWarning, match="no longer"):
        assert (count, before) == (3, 7) == (Compacted(3, 7)[0], Compacted(3, 7)[1])
    with pytest.warns(DeprecationWarning, match="no longer"):
        assert len(Compacted(3, 7)) == 2


def test_what_was_a_number():
    result = Removed(3000)
    assert result == Removed(3000) != Removed(2)
    assert str(result) == f"{result}" == "Removed(count=3000)"
    with pytest.warns(DeprecationWarning, match="Removed is no longer a number; use its field count"):
        assert result == 3000
    with pytest.warns(DeprecationWarning, match="no longer"):
        assert (f"{result:,}", int(result), range(4000)[result], bool(Removed(0))) == ("3,000", 3000, 3000, False)
