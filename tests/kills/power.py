"""What a power loss could take, told from a trace of system calls: what was not flushed before others counted on it."""

import os
import re

_TEMPORARY = re.compile(r"(^|/)(\.[^/]+\.(tmp|new|old|training)|\.tmp\w+)(/|$)|^(tmp|cache)(/|$)")


def is_temporary(path):
    """Whether a name below the root is one that no reader looks at."""
    return bool(_TEMPORARY.search(path))


class Disk:
    """What of the files below a root is not on the disk yet.

    Attributes:
        old: paths that were there before the run, under the names that they have now.
        known: all paths that are there.
        contents: files with changes that were not flushed.
        names: folders with new names that were not flushed, and these names.
    """

    def __init__(self, before):
        self.old, self.known = set(before), {*before, "."}
        self.contents, self.names = set(), {}

    def dangers(self, trace, root):
        """Lines about what a power loss could take, each with the number of its call."""
        failed = {number for number, call, *_ in trace if call == "failed"}
        found = []
        for number, call, _, *paths in trace:
            if not number or number in failed:
                continue
            path, other = (os.path.normpath(os.path.relpath(path, root)) if path else "" for path in paths)
            found += [f"{number}: {call} {path} {other}: {line}" for line in self._step(call, path, other)]
        return found + [f"at the end: {line}" for line in self._waiting(".")]

    def _step(self, call, path, other):
        if call in ("open", "create", "mkdir", "link", "symlink"):
            if call == "create" or path not in self.known:
                self.contents.add(path) if call in ("open", "create") else None
            self._name(path)
        elif call in ("write", "truncate"):
            self.contents.add(path)
        elif call == "fsync":
            self.contents.discard(path)
            self.names.pop(path, None)
        elif call == "sync":
            self.contents, self.names = set(), {}
        elif call == "unlink":
            if path in self.old:
                yield from (f"{line}, and the old is removed" for line in self._waiting("."))
            self._forget(path)
        elif call in ("rename", "exchange"):
            if not is_temporary(other):
                yield from self._waiting(path, temporary=True)
                yield from self._waiting(os.path.dirname(other) or ".", but=other)
            if call == "exchange":
                self._move(other, "?")
                self._move(path, other)
                self._move("?", path)
            else:
                self._forget(other)
                self._move(path, other)
            for name in (other, path) if call == "exchange" else (other,):
                self._name(name, again=True)

    def _name(self, path, again=False):
        if path not in self.known or again:
            self.names.setdefault(os.path.dirname(path) or ".", set()).add(os.path.basename(path))
        self.known.add(path)

    def _forget(self, path):
        for paths in (self.old, self.known, self.contents):
            paths -= set(_below(paths, path))
        self.names = {folder: names for folder, names in self.names.items() if not _is_below(folder, path)}
        self.names.get(os.path.dirname(path) or ".", set()).discard(os.path.basename(path))

    def _move(self, path, other):
        for paths in (self.old, self.known, self.contents):
            moved = set(_below(paths, path))
            paths -= moved
            paths |= {other + one[len(path) :] for one in moved}
        names = self.names
        self.names = {other + one[len(path) :] if _is_below(one, path) else one: names[one] for one in names}
        self.names.get(os.path.dirname(path) or ".", set()).discard(os.path.basename(path))

    def _waiting(self, folder, temporary=False, but=None):
        """Lines about what is not on the disk below a folder; of temporary names only where asked for."""
        for path in sorted(_below(self.contents, folder)):
            if path != but and (temporary or not is_temporary(path)):
                yield f"the content of {path} is not on the disk"
        for place in sorted(_below(self.names, folder)):
            for name in sorted(self.names[place]):
                path = os.path.normpath(os.path.join(place, name))
                if path != but and (temporary or not is_temporary(path)):
                    yield f"the name {path} is not on the disk"


def _is_below(path, folder):
    return folder == "." or path == folder or path.startswith(f"{folder}/")


def _below(paths, folder):
    return [path for path in paths if _is_below(path, folder)]
