"""What is to be done so that an index has what a folder has: its rows compared with the files there."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..bits import Positions
from ..data.formats import missing_plugin
from ..data.walk import LINKED_TO_NOTHING, PassedOver
from ..index import Index
from ..index.changes import digests_at
from ..index.gone import is_large, missing_are_gone
from .photographs import Memory, Seen

_CANNOT = "that cannot be"  # how reasons begin of what `hashret.data.walk` could not look into


@dataclass
class Plan:
    """What a sync has to do; paths are those below the root.

    Attributes:
        unchanged: how many photographs stay as they are.
        new, changed: photographs that came, and those with another content than before.
        moved: new path and old one of photographs whose content was elsewhere.
        gone: photographs whose files are gone, and which leave the index.
        held: photographs whose files are gone, and which stay, as they are a large part of the index.
        away: photographs that are out of reach, and stay. Those that only a plugin could read that is not installed
            here stay, too, and are passed over.
        unreadable: photographs that cannot be read, with the reason.
        leaving: positions that leave the index, int64 (n,).
        copies: photographs whose code the index has, by the position that has it.
        taken: photographs whose code is among those that were encoded, by their digest.
        to_encode: photographs to encode, one for each content.
    """

    unchanged: int = 0
    new: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    moved: list[tuple[str, str]] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    held: list[str] = field(default_factory=list)
    away: list[str] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)
    leaving: Positions = field(default_factory=lambda: np.zeros(0, np.int64))
    copies: dict[str, int] = field(default_factory=dict)
    taken: dict[str, str] = field(default_factory=dict)
    to_encode: list[str] = field(default_factory=list)

    @property
    def needed(self) -> int:
        """How many photographs enter the index."""
        return len(self.copies) + len(self.taken)


class Indexed:
    """The photographs of an index below its root.

    Attributes:
        index: the opened index, or None before there is one.
        paths: position -> path below the root.
        digests: position -> sha256 in hexadecimal, "" where it is unknown.
    """

    def __init__(self, index: Index | None, root: str) -> None:
        self.index, self.root = index, root
        self.paths: dict[int, str] = {}
        self.digests: dict[int, str] = {}
        start = root.rstrip("/") + "/"
        for segment, offset in zip(index.segments, index.offsets, strict=False) if index else ():
            alive = np.flatnonzero(segment.alive)
            digests = digests_at(segment, alive)
            known = np.any(digests, axis=1).tolist()
            for row, digest, is_known in zip(alive.tolist(), digests, known, strict=True):
                path = segment.paths[row]
                if path.startswith(start):
                    self.paths[row + offset] = path[len(start) :]
                    self.digests[row + offset] = digest.tobytes().hex() if is_known else ""

    def __len__(self) -> int:
        return len(self.paths)


def make_plan(
    indexed: Indexed,
    files: Mapping[str, Seen],
    unreadable: Mapping[str, str],
    passed_over: Sequence[PassedOver],
    memory: Memory,
    encoded: Container[str] = (),
    yes: bool = False,
) -> Plan:
    """Compare an index with a folder.

    Args:
        indexed: the photographs of the index.
        files: the photographs of the folder.
        unreadable: photographs of it that cannot be looked at, with the reason; their rows stay.
        passed_over: what lies in the folder and is left out.
        memory: knows which content cannot be read.
        encoded: digests of what is encoded and not in the index yet.
        yes: let a large part of the index go, too.
    """
    plan, leaving = Plan(unreadable=dict(unreadable)), set[int]()
    positions: dict[str, list[int]] = defaultdict(list)
    having: dict[str, int] = {}  # digest -> a position that has it
    lost: dict[str, list[int]] = defaultdict(list)  # digest -> positions whose path is no longer there
    for position, path in indexed.paths.items():
        positions[path].append(position)
        having.setdefault(indexed.digests[position], position)
        if path not in files and path not in unreadable:
            lost[indexed.digests[position]].append(position)
    having.pop("", None)
    wanted = set[str]()
    for path, seen in files.items():
        here = positions.get(path, [])
        same = [position for position in here if indexed.digests[position] == seen.digest]
        leaving.update(set(here) - set(same[:1]))
        if same:
            plan.unchanged += 1
            continue
        if seen.digest in memory.unreadable:
            plan.unreadable[path] = memory.unreadable[seen.digest]
            continue
        if here:
            plan.changed.append(path)
        elif lost.get(seen.digest):
            position = lost[seen.digest].pop(0)
            plan.moved.append((path, indexed.paths[position]))
            leaving.add(position)
        else:
            plan.new.append(path)
        if seen.digest in having:
            plan.copies[path] = having[seen.digest]
        elif seen.digest in encoded:
            plan.taken[path] = seen.digest
        elif seen.digest not in wanted:
            wanted.add(seen.digest)
            plan.to_encode.append(path)
    of_plugin = {item.path for item in passed_over if missing_plugin(item.reason)}
    missing = np.array(
        sorted(p for found in lost.values() for p in found if indexed.paths[p] not in of_plugin), np.int64
    )
    gone = _gone(indexed, missing, files, passed_over)
    plan.away = [indexed.paths[position] for position in missing[~gone].tolist()]
    names = [indexed.paths[position] for position in missing[gone].tolist()]
    if yes or (files and not is_large(len(names), len(indexed))):
        plan.gone = names
        leaving.update(missing[gone].tolist())
    else:
        plan.held = names
    plan.leaving = np.array(sorted(leaving), np.int64)
    return plan


def _gone(
    indexed: Indexed, missing: Positions, files: Mapping[str, Seen], passed_over: Sequence[PassedOver]
) -> NDArray[np.bool_]:
    """Return which photographs that were not found are gone, bool (n,); the others are out of reach."""
    if not len(missing) or indexed.index is None:
        return np.zeros(len(missing), bool)
    there = {os.path.dirname(os.path.join(indexed.root, path)) for path in files}
    gone = missing_are_gone(indexed.index, missing, there)
    reasons = {item.path: item.reason for item in passed_over}
    for number, position in enumerate(missing.tolist()):
        path = indexed.paths[position]
        above = [path, *(path[:end] for end, letter in enumerate(path) if letter == "/")]
        why = next((reasons[part] for part in above if part in reasons), None)
        if why is not None:  # the file may be there, and is left out
            gone[number] = why != LINKED_TO_NOTHING and not why.startswith(_CANNOT)
    return gone
