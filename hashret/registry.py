"""Registries of what can be exchanged, by name, and the plugins that add to them from outside hashret.

A plugin is a module that registers something when it is imported, or a function that does so when it is called. An
installed distribution names its plugins as entry points of the group ``hashret.plugins``, and the environment variable
``HASHRET_PLUGINS`` names others: ``module`` or ``module:function``, with commas between. They are loaded when a
registry is asked for what it does not have, or listed, so that no command that needs none of them waits for them.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from importlib import import_module
from typing import TYPE_CHECKING, TypeVar

from .errors import HashretError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

T = TypeVar("T")
GROUP, VARIABLE = "hashret.plugins", "HASHRET_PLUGINS"
_lock = threading.RLock()
_pending: list[tuple[EntryPoint, str]] | None = None  # plugins that are not loaded yet, each with who names it


class Registry(MutableMapping[str, T]):
    """What is registered, by name.

    Args:
        noun: what a registered object is, for messages.
        built_in: names whose objects are imported when they are first asked for, each with its ``module:attribute``,
            so that the names can be listed without importing torch.
    """

    def __init__(self, noun: str, built_in: Mapping[str, str] | None = None) -> None:
        self.noun = noun
        self._built_in = dict(built_in or {})
        self._known: dict[str, T | None] = dict.fromkeys(self._built_in)

    def __getitem__(self, name: str) -> T:
        if name not in self:
            raise KeyError(name)
        known = self._known[name]
        if known is None:
            module, _, attribute = self._built_in[name].partition(":")
            known = self._known[name] = getattr(import_module(module), attribute)
        return known

    def __setitem__(self, name: str, registered: T) -> None:
        self._known[name] = registered

    def __delitem__(self, name: str) -> None:
        del self._known[name]

    def __contains__(self, name: object) -> bool:
        if name not in self._known:
            load_plugins()
        return name in self._known

    def __iter__(self) -> Iterator[str]:
        load_plugins()
        return iter(self._known)

    def __len__(self) -> int:
        load_plugins()
        return len(self._known)

    def add(self, name: str, registered: T) -> None:
        """Register an object. Raises ValueError if another one has that name."""
        if name in self._known:  # and plugins are not loaded by what they import
            raise ValueError(f"there is a {self.noun} {name!r} already")
        self[name] = registered

    def find(self, fits: Callable[[T], bool], *, in_plugins: bool) -> T | None:
        """Return the first object that fits, or None; plugins are loaded only if ``in_plugins`` and no other fits."""
        found = next((self[name] for name in self._known if fits(self[name])), None)
        return next(filter(fits, self.values()), None) if found is None and in_plugins else found


def load_plugins() -> None:
    """Load the plugins that are not loaded yet.

    Raises:
        HashretError: one of them fails; the next call tries it again.
    """
    global _pending
    with _lock:
        if _pending is None:
            _pending = _named_plugins()
        while _pending:
            plugin, named_by = _pending.pop(0)  # before it is loaded, since it asks the registries itself
            try:
                loaded = plugin.load()
                if callable(loaded):
                    loaded()
            except Exception as error:
                _pending.insert(0, (plugin, named_by))
                reason = f"{type(error).__name__}: {error}".partition("\n")[0]
                raise HashretError(f"the plugin {plugin.value}, named by {named_by}, fails: {reason}") from error


def _named_plugins() -> list[tuple[EntryPoint, str]]:
    from importlib.metadata import EntryPoint, entry_points  # 30 ms

    named = [text.strip() for text in os.environ.get(VARIABLE, "").split(",")]
    plugins = [(EntryPoint(text, text, GROUP), VARIABLE) for text in named if text]
    return plugins + [(one, one.dist.name if one.dist else GROUP) for one in entry_points(group=GROUP)]
