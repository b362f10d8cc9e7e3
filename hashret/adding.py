"""`hashret add`: new photographs, or vectors, into an index that is searched meanwhile."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from . import __version__
from .data import ImageSource, Source, VectorSource, as_source, open_data
from .data.in_memory import refuse_in_memory
from .data.references import is_there, status
from .engines import refuse_engine
from .errors import HashretError, warn
from .files import StrPath, partial_folder, remove_leftovers
from .index import Index, open_index
from .index.given import CodeFile, is_code_file
from .index.paths import file_key
from .models.metadata import read_meta
from .names import to_json
from .opening import find_model
from .places import find_index
from .progress import takes_quiet
from .queries import nothing_read, warn_unreadable

if TYPE_CHECKING:
    from .encoding import EncodeReport


@takes_quiet
def add(
    index: StrPath,
    photos: StrPath | Iterable[StrPath] | Source | npt.NDArray[np.number],
    model: StrPath | None = None,
    *,
    split: str | None = None,
    again: bool = False,
    device: str = "auto",
    workers: int | None = None,
    exclude: Sequence[str] = (),
    include: Sequence[str] = (),
) -> EncodeReport:
    """Encode photographs, add those to an index that are new, and report what was added.

    A file is added once, even if it is named by two paths, or added by two processes at a time. A call that was killed
    is taken up by the next one for the same photographs.

    Vectors are told by their ids, else by their paths. Where several have one path, as those of a document, all are
    added if the index has none of that path; else none is, and a warning says how many that are.

    Args:
        index, model, device: see `hashret.Searcher`.
        photos: image files, or data sources as of `hashret.data.open_data`, which ``split``, ``exclude`` and
            ``include`` are for; or an open source, or an array of vectors; or ``codes:FILE`` of `hashret.index.given`.
        again: add also photographs whose file is in the index already, which are left out otherwise.
        workers: decoding processes, see `hashret.encoding.encode`.

    Raises:
        HashretError: nothing there, none of the photographs can be read, or the index is of another encoder.
    """
    from .encoding import SKIPPED, EncodeReport, encode
    from .index import append

    refuse_engine(index)
    index = find_index(index)
    opened = open_index(index, "cpu")
    names = [photos] if isinstance(photos, str) else photos if isinstance(photos, list | tuple) else []
    if names and all(map(is_code_file, names)):
        if not again:
            files = [file for name in names if (file := CodeFile(str(name)).source).ids is None]
            known_files = [opened.known_files(list(file), file.earlier_names()) for file in files]
            _warn_of_changed(known_files)
            _warn_of_untold([_untold(opened, *pair) for pair in zip(files, known_files, strict=True)])
        return EncodeReport(append(index, [str(name) for name in names], new_only=not again), 0, 0.0)
    model = find_model(model, opened)
    if read_meta(model)["fingerprint"] != opened.meta["encoder"]:
        raise HashretError(
            f"the index {index} was built by another encoder than {model}", hint="name its own with --model"
        )
    sources = list(_sources(photos, split, exclude, include))
    passed_over = tuple(item for source in sources for item in source.files_passed_over())
    new = _new_photographs(opened, sources, again)
    if not new:
        remove_leftovers(index, r"added-\w+")  # of a run that was killed when all was in the index
        return EncodeReport(0, 0, 0.0, (), passed_over)
    # A killed run is taken up, by the name of its folder, where all of this is the same.
    same = [__version__, read_meta(model)["fingerprint"], opened.meta["precision"], opened.has_fc_features]
    same += [[source.fingerprint, source.classes, source.protocol] for source in new]
    name = hashlib.sha256(to_json(same).encode()).hexdigest()[:16]
    reports, shards = [], []
    with partial_folder(Path(index) / f"added-{name}", resume=True) as folder:
        for number, source in enumerate(new):
            shards.append(folder / str(number))
            (shards[-1] / SKIPPED).unlink(missing_ok=True)  # of a run that was killed after this source
            report = encode(
                source, model, shards[-1], device=device, precision=opened.meta["precision"],
                features=opened.has_fc_features and not isinstance(source, VectorSource), workers=workers,
                vectors=_stored(opened) if isinstance(source, VectorSource) else None,
            )  # fmt: skip
            assert report is not None  # as this is the main process
            reports.append(report)
        unreadable = tuple(line for report in reports for line in report.unreadable)
        reasons = {line["path"]: line["reason"] for line in unreadable}
        if len(reasons) == sum(map(len, sources)):
            raise nothing_read(reasons)
        added = append(index, shards, new_only=not again)
    warn_unreadable(reasons)
    rate = float(np.mean([report.rate for report in reports]))
    return EncodeReport(added, len(unreadable), rate, unreadable, passed_over)


def _stored(index: Index) -> str | None:
    """Return how an index keeps vectors, as `hashret.encode` takes it; None where that is as they come."""
    if not index.has_fc_features:
        return "none"
    dtype = str(index.segments[0].columns["fc_features"].dtype)
    return dtype if dtype in ("float32", "float16") else None


def _new_photographs(index: Index, sources: Iterable[Source], again: bool) -> list[Source]:
    """Return the photographs whose file is not in the index yet, each once, as sources that are not empty."""
    folders: dict[str, Any] = {}
    seen, new, all_known, untold = set(), [], [], []
    for source in sources:
        own_ids = source.ids if isinstance(source, VectorSource) else None
        if own_ids is not None:
            unknown = np.arange(len(source)) if again else np.flatnonzero(~index.has_ids(own_ids))
            new += [source.subset(unknown)] if len(unknown) else []
            continue
        paths = [source.reference(row) for row in range(len(source))]
        earlier = source.earlier_names() if isinstance(source, VectorSource) else {}
        known = {} if again else index.known_files(paths, earlier)
        all_known.append(known)
        keys = [file_key(path, folders) for path in paths]
        if isinstance(source, VectorSource):
            named_before = {path for path, key in zip(paths, keys, strict=True) if key in seen}
            untold.append(_untold(index, source, known, named_before))
        rows = []
        for row, (path, key) in enumerate(zip(paths, keys, strict=True)):
            if path not in known and key not in seen:
                rows.append(row)
            if not isinstance(source, VectorSource):  # of which several may have one path
                seen.add(key)
        seen.update(keys)
        if rows:
            new.append(source.subset(rows))
    _warn_of_changed(all_known)
    _warn_of_untold(untold)
    return new


def _untold(
    index: Index, source: VectorSource, known: Mapping[str, float], named_before: Collection[str] = ()
) -> list[str]:
    """Return the paths of the vectors that are left out though their path does not say which vector it is.

    Args:
        known: what `Index.known_files` returns of the paths.
        named_before: the paths that vectors of an earlier source have.
    """
    if not source.paths:
        return []  # the number of the row is in the name
    counts, shared = Counter(source.paths), index.shared(source.paths)
    return [
        path
        for path in source.paths
        if path in named_before or (path in known and (counts[path] > 1 or path in shared))
    ]


def _warn_of_untold(untold: Iterable[Sequence[str]]) -> None:
    """Warn of vectors that are left out, by what `_untold` returns."""
    paths = [path for of_source in untold for path in of_source]
    if paths:
        warn(
            f"{len(paths):,} vectors are left out whose path another vector has already, as {paths[0]}; paths that "
            "several vectors have do not tell which of them are new: give ids, or take --again to add all"
        )


def _warn_of_changed(known: Iterable[Mapping[str, float]]) -> None:
    """Warn of files that were written to after they were indexed, by what `Index.known_files` returns of them."""
    changed = [path for times in known for path, indexed in times.items() if _written(path) > indexed]
    if changed:
        more = f" and {len(changed) - 1:,} more" if len(changed) > 1 else ""
        warn(
            f"written to since it was indexed: {changed[0]}{more}; the index keeps the code from before. Remove what "
            "shall be added again first, or let hashret sync follow a folder of photographs"
        )


def _written(path: str) -> float:
    """Return when the file of a reference was last written, in seconds since 1970; 0 where that is not known, and for
    a name that is no whole path, whatever is called so in the working folder.
    """
    with suppress(OSError, ValueError):
        return status(path)[1] / 1e9 if os.path.isabs(path) else 0.0
    return 0.0


def _sources(
    photos: StrPath | Iterable[StrPath] | Source | npt.NDArray[np.number],
    split: str | None,
    exclude: Sequence[str],
    include: Sequence[str],
) -> Iterator[Source]:
    """Yield data sources of what a user names: files together as one, each folder or data set on its own."""
    if isinstance(photos, np.ndarray | ImageSource):
        yield as_source(photos)
        return
    refuse_in_memory(photos)
    named = [photos] if isinstance(photos, (str, os.PathLike)) else list(cast(Iterable[StrPath], photos))
    files = [photo for photo in named if is_there(photo)]
    if files:
        yield ImageSource(Path("."), tuple(str(file) for file in files), spec=str(files[0]))
    for photo in named:
        if photo not in files:
            yield open_data(photo, split, exclude=exclude, include=include)
