"""The old names of attributes and keywords: each leads to a name that is there, and warns."""

import importlib
import inspect

import pytest

from hashret import renamed


def found(path):
    """What a dotted path of a class, a function or a method names."""
    parts = path.split(".")
    for end in range(len(parts) - 1, 0, -1):
        try:
            target = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for name in parts[end:]:
            target = getattr(target, name)
        return target
    raise AssertionError(path)


def test_old_attributes_lead_to_new_ones():
    for path, names in renamed.ATTRIBUTES.items():
        cls = found(path)
        known = set(dir(cls)) | {name for base in cls.__mro__ for name in getattr(base, "__annotations__", {})}
        for old, new in names.items():
            assert isinstance(inspect.getattr_static(cls, old), property), (path, old)
            assert new in known or f"self.{new}" in inspect.getsource(cls), (path, new)


def test_old_keywords_lead_to_new_ones():
    for path, names in renamed.KEYWORDS.items():
        known = inspect.signature(found(path)).parameters
        for old, new in names.items():
            assert new in known, (path, new)
            assert old not in known, (path, old)


def test_they_warn(monkeypatch):
    class Thing:
        new = 5

        def double(self, number=1):
            return 2 * number

    name = f"{Thing.__module__}.{Thing.__qualname__}"
    monkeypatch.setitem(renamed.ATTRIBUTES, name, {"old": "new"})
    monkeypatch.setitem(renamed.KEYWORDS, f"{name}.double", {"n": "number"})
    thing = renamed.old_attributes(Thing)()
    with pytest.warns(DeprecationWarning, match=r"Thing\.old is now Thing\.new"):
        assert thing.old == 5
    double = renamed.old_keywords(Thing.double)
    with pytest.warns(DeprecationWarning, match=r"double\(n=\) is now .*double\(number=\)"):
        assert double(thing, n=4) == 8
    assert double(thing, number=3) == 6
