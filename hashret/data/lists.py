"""`list:FILE`: photographs and their labels, one photograph a line.

A path ends at the last ending of a picture's name, such as ``.jpg``, so that names may hold blanks, tabs and commas.
Where a line has no such ending, its path ends at the first blank, tab or comma. A path may stand in double quotes.
Then follow the labels, behind blanks, tabs or commas, and in the same way on every line:

    sea.jpg 0 1 0       a column a label: 1 where the photograph has it, 0 (or -1) where it has not
    sea.jpg 3           the number of its class, from 0
    sea.jpg beach       the name of its class; a name of several words has a tab or comma before it
    sea.jpg             nothing

A line of `# comment` is refused, unless there is a file of that name.
So a single column is the number of a class, even if it is 0 or 1 on every line, unless `labels.txt` has just one name.
"""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..bits import Labels
from ..errors import HashretError, warn
from ..files import StrPath
from .formats import READABLE_SUFFIXES
from .source import ImageSource, SourceRequest, register

_EXAMPLE = '"photo.jpg 0 1 0", "photo.jpg 3" or "photo.jpg cat"'
_ENDING = "|".join(map(re.escape, sorted(READABLE_SUFFIXES)))
_LINE = re.compile(rf'[ \t]*(?:"((?:[^"]|"")+)"|(.*(?:{_ENDING})|[^ \t,;]+))(?:([ \t,;]+)(.*))?', re.I | re.S)
_COMMENT = re.compile(r"[ \t]*#([ \t]|\Z)")  # or a photograph that is called so
_NUMBER = re.compile(r"[-+]?\d+(\.\d*)?(e[-+]?\d+)?", re.I | re.A)
_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16",
}  # fmt: skip
Columns = npt.NDArray[np.float64]  # labels as they stand in a list, (n, columns)
Names = tuple[Path, list[str], list[str]]  # a file of names, its lines and its words
_LOOKED_FOR = 100  # photographs, to find the folder that paths start from


def open_list(
    file: StrPath,
    subset: str | None = None,
    root: StrPath | None = None,
    spec: str = "",
    check_images: bool = True,
) -> ImageSource:
    """Read a label list. ``file`` may be a folder that holds ``train.txt``, ``test.txt``, ``database.txt``.

    ``root`` is where the paths start; by default the list's folder or the one above it, whichever holds one of the
    first images; with ``check_images`` off, the list's folder where neither does. Names of the labels are read from
    ``labels.txt`` beside the list, or above it: a line each, or words of one line.

    Raises:
        HashretError: no such file, a line that cannot be read, images that are not there.
    """
    path = Path(file)
    spec = spec or f"list:{file}"
    if path.is_dir():
        path = _subset_file(path, subset)
    numbers, paths, fields = _parse(path, read_lines(path), (root,) if root else (path.parent, path.parent.parent))
    if root:
        _check_below(root, paths, path)
    folder = Path(root) if root else _find_root(path, paths, check_images)
    _refuse_heading(path, numbers[0], folder, paths)
    labels, classes = _named(path, numbers, fields)
    _warn_of_repeats(path, numbers, paths, labels)
    return ImageSource(folder, tuple(paths), labels if classes else None, classes, spec)


def _subset_file(folder: Path, subset: str | None) -> Path:
    present = sorted(file.stem for file in folder.glob("*.txt") if file.stem != "labels")
    if subset is None or subset not in present:
        wrong = f"no {subset}.txt" if subset else "several lists: say which with --split"
        raise HashretError(f"{folder}: {wrong}; there is {', '.join(present) or 'nothing'}")
    return folder / f"{subset}.txt"


def read_lines(file: Path) -> list[str]:
    """Read the lines of a text file. Bytes that are not UTF-8 are kept, as they may be of names."""
    if file.exists() and not file.is_file():
        raise HashretError(f"cannot read the list {file}: not a file")
    try:
        raw = file.read_bytes()
        mark = next((mark for mark in _BYTE_ORDER_MARKS if raw.startswith(mark)), b"")
        encoding = _BYTE_ORDER_MARKS.get(mark, "utf-8")
        text = raw.decode(encoding, "surrogateescape" if encoding == "utf-8" else "strict").removeprefix("\ufeff")
    except FileNotFoundError:
        raise HashretError(f"no such list: {file}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise HashretError(f"cannot read the list {file}: {error}") from None
    if "\0" in text:
        raise HashretError(f"cannot read the list {file}: it holds NUL bytes", hint="save it as UTF-8")
    text = text.replace("\r\n", "\n")
    return text.split("\n" if "\n" in text else "\r")


def _parse(
    file: Path, lines: Sequence[str], folders: Sequence[StrPath]
) -> tuple[list[int], list[str], list[str] | Columns]:
    """Return the number of each line that has a photograph, its path, and the labels as they stand there.

    A comment is refused as a heading is, unless one of ``folders``, where paths may start, has a file of that name.

    The labels are float64 (n, columns), or a list of n names of classes.
    """
    numbers: list[int] = []
    paths: list[str] = []
    fields: list[str | list[str]] = []
    numeric: set[str] = set()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise HashretError(f"{file}:{number}: a line must be {_EXAMPLE}, and begin with the path")
        quoted, plain, separator, rest = match.groups()
        if _COMMENT.match(line) and not any(os.path.lexists(os.path.join(folder, plain)) for folder in folders):
            raise HashretError(
                f"{file}:{number}: {plain} is no photograph",
                hint="if this line is a comment, remove it; a name that begins so stands in double quotes",
            )
        words = rest.replace(",", " ").replace(";", " ").split() if rest else []
        labels: str | list[str] = words
        if not numeric.issuperset(words):
            numeric.update(word for word in words if _NUMBER.fullmatch(word))
            if not numeric.issuperset(words):
                name = _class_name(rest, len(words) if separator.isspace() and "\t" not in separator else 1)
                if name is None:
                    raise HashretError(
                        f"{file}:{number}: a line must be {_EXAMPLE}; a class name of several words has a tab before it"
                    )
                labels = name
        if fields and type(labels) is not type(fields[0]):
            first = "a class name" if isinstance(fields[0], str) else f"{len(fields[0])} numbers"
            raise HashretError(f"{file}:{number}: {rest or 'nothing'} follows the path, but {first} in the first line")
        if fields and isinstance(labels, list) and len(labels) != len(fields[0]):
            raise HashretError(
                f"{file}:{number}: {len(labels)} label columns, but {len(fields[0])} in the first line; "
                f"a line must be {_EXAMPLE}"
            )
        numbers.append(number)
        paths.append(plain if quoted is None else quoted.replace('""', '"'))
        fields.append(labels)
    if not paths:
        raise HashretError(f"the list {file} is empty")
    if isinstance(fields[0], str):
        return numbers, paths, [str(name) for name in fields]
    value = {word: float(word) for word in numeric}
    flat = np.array([value[word] for words in fields for word in words])
    return numbers, paths, flat.reshape(len(paths), -1)


def _class_name(text: str, words: int) -> str | None:
    """Return the name of a class; None where several words are no name."""
    names = [name.strip().removeprefix('"').removesuffix('"') for name in re.split("[\t,;]", text) if name.strip()]
    return names[0] if words == 1 and len(names) == 1 else None


def _check_below(root: StrPath, paths: Sequence[str], file: Path) -> None:
    """Refuse absolute paths elsewhere than below ``root``, which would be followed regardless of it."""
    above = os.path.join(os.path.abspath(root), "")
    other = next((path for path in paths if os.path.isabs(path) and not os.path.normpath(path).startswith(above)), None)
    if other is not None:
        raise HashretError(
            f"{file} names whole paths, as {other}, which root={root} cannot change", hint="leave root= out"
        )


def _refuse_heading(file: Path, number: int, root: Path, paths: Sequence[str]) -> None:
    """Refuse a list that begins with the names of its columns, which would become a photograph and a class."""
    ending = re.compile(rf".*(?:{_ENDING})", re.I | re.S)
    others = paths[1 : 1 + _LOOKED_FOR]
    if (
        others
        and not ending.fullmatch(paths[0])
        and all(map(ending.fullmatch, others))
        and not (root / paths[0]).exists()
    ):
        raise HashretError(
            f"{file}:{number}: {paths[0]} is no photograph", hint="if this line names the columns, remove it"
        )


def _find_root(file: Path, paths: Sequence[str], check_images: bool) -> Path:
    first = paths[:_LOOKED_FOR]
    for root in (file.parent, file.parent.parent):
        if any((root / path).exists() for path in first):
            return root
    if not check_images:
        return file.parent
    backslash = ", with / for each \\" if "\\" in paths[0] else ""
    raise HashretError(
        f"the photographs of {file} are missing: {paths[0]} is neither in {file.parent} nor in the folder above",
        hint=f"name their folder with list:{file},root=DIR{backslash}",
    )


def _named(
    file: Path, numbers: Sequence[int], labels: list[str] | Columns
) -> tuple[npt.NDArray[np.int64] | npt.NDArray[np.uint8], tuple[str, ...]]:
    """Return labels, as `_parse` has them, as `ImageSource` has them, and the names of the classes."""
    if isinstance(labels, list):
        classes = tuple(sorted(set(labels)))
        number = {name: i for i, name in enumerate(classes)}
        return np.array([number[name] for name in labels], np.int64), classes
    columns = labels.shape[1]
    looked_at = [_names(folder / "labels.txt") for folder in (file.parent, file.parent.parent)]
    named = [names for names in looked_at if names]
    if columns == 1 and not any(len(words) == 1 for _, _, words in named):
        return _class_numbers(file, numbers, labels[:, 0], named)
    flags = _flags(file, numbers, labels)
    for path, lines, words in named:
        for names in (lines, words):
            if len(names) == columns:
                return flags, _distinct(path, names)
    if named and columns:
        path, lines, words = named[0]
        count = len(lines) if len(lines) > 1 else len(words)
        warn(
            f"{path} has {count} names for the {columns} columns of {file}, which are called 0 to {columns - 1} instead"
        )
    return flags, tuple(map(str, range(columns)))


def _flags(file: Path, numbers: Sequence[int], labels: Columns) -> npt.NDArray[np.uint8]:
    """Turn columns of 0 and 1, or of -1 and 1: float64 (n, columns) -> uint8, 1 where a photograph has the label."""
    negative = bool((labels < 0).any())
    _check_each(
        file, numbers, labels, ~np.isin(labels, (-1, 1) if negative else (0, 1)), " beside -1" if negative else ""
    )
    return (labels > 0).astype(np.uint8)


def _class_numbers(
    file: Path, numbers: Sequence[int], column: npt.NDArray[np.float64], named: Sequence[Names]
) -> tuple[npt.NDArray[np.int64], tuple[str, ...]]:
    """Return one column of class numbers, float64 (n,), as int64 (n,), and the names of the classes."""
    _check_each(
        file, numbers, column[:, None], ((column < 0) | (column >= 2**53) | (column != column.round()))[:, None]
    )
    labels = column.astype(np.int64)
    for path, lines, words in named:
        names = lines if len(lines) > 1 else words
        if len(names) > labels.max():
            return labels, _distinct(path, names)
        warn(
            f"{path} has {len(names)} names, but {file} has a class {labels.max()}: classes are called by their numbers"
        )
    present, labels = np.unique(labels, return_inverse=True)
    return labels.astype(np.int64), tuple(map(str, present.tolist()))


def _check_each(
    file: Path, numbers: Sequence[int], labels: Columns, wrong: npt.NDArray[np.bool_], beside: str = ""
) -> None:
    """Refuse a list in which labels (n, columns) are ``wrong``, naming the first of them."""
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise HashretError(
            f"{file}:{numbers[row]}: a line must be {_EXAMPLE}; {labels[row, column]:g} is no label{beside}"
        )


def _names(file: Path) -> Names | None:
    """Read file, lines and words of a `labels.txt`, of one line the parts between commas; None where there is none."""
    if not file.is_file():
        return None
    lines = [line.strip() for line in read_lines(file) if line.strip()]
    words = " ".join(lines).split()
    if len(lines) == 1 and "," in lines[0]:
        words = [word.strip() for word in lines[0].split(",") if word.strip()]
    return file, lines, words


def _distinct(file: Path, names: Sequence[str]) -> tuple[str, ...]:
    again = {name for name in names if names.count(name) > 1}
    if again:
        raise HashretError(f"{file} has the name {min(again)} more than once")
    return tuple(names)


def _warn_of_repeats(file: Path, numbers: Sequence[int], paths: Sequence[str], labels: Labels) -> None:
    """Say how often a list names a photograph that it has named before; each time counts as a photograph."""
    first: dict[str, int] = {}
    for row, path in enumerate(paths):
        first.setdefault(path, row)
    again = [] if len(first) == len(paths) else [row for row, path in enumerate(paths) if first[path] != row]
    if again:
        others = [row for row in again if (labels[row] != labels[first[paths[row]]]).any()]
        row = (others or again)[0]
        warn(
            f"{file} names {len(again):,} photographs again, {len(others):,} of them with other labels, as "
            f"{paths[row]} in lines {numbers[first[paths[row]]]} and {numbers[row]}; each line counts"
        )


def _open_request(asked: SourceRequest) -> ImageSource:
    """Open the source ``list:FILE`` or ``list:FILE,root=DIR``."""
    file, _, root = asked.where.partition(",root=")
    return open_list(file, asked.subset, root or None, asked.spec)


register("list", _open_request, "list:FILE[,root=DIR]")
