"""`hashret sync --watch`: sync again whenever something changes in the folder."""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Iterable, Iterator
from threading import Event
from typing import Any, TypeVar

from ..errors import HashretError, warn
from ..files import StrPath
from ..names import shown_path
from ..places import OWN_FOLDER
from .syncing import SyncReport, sync

T = TypeVar("T")

_log = logging.getLogger("hashret")
_WAKE = 500  # ms between two looks at the clock
_AT_LEAST = 600  # seconds after which a folder is looked at in any case: of a network disk, no changes may be told


def watch(photos: StrPath = ".", *, stop: Event | None = None, **options: Any) -> Iterator[SyncReport]:
    """Sync a folder now and whenever something changes in it, for as long as the caller goes on.

    Whatever makes a later sync fail, as a disk that is away for a while or a device whose memory is full, is a warning,
    and the next is tried when something changes. A warning is given once.

    Args:
        photos: folder.
        stop: ends the watching once it is set.
        options: further keywords of `hashret.sync`.

    Yields:
        The report of the first sync, and of each that found something to do.

    Raises:
        HashretError: the first sync fails, or the folder cannot be watched.
    """
    try:
        import watchfiles
    except ImportError:
        raise HashretError("watching needs watchfiles", hint="pip install 'hashret[watch]'") from None
    root, index, said = os.path.realpath(photos), options.get("index"), set[str]()
    own = None if index is None else os.path.realpath(index)

    def counts(_change: object, path: str) -> bool:
        """Whether a change is of interest: not one that hashret itself makes, nor of what is hidden."""
        parts = os.path.relpath(path, root).split(os.sep)
        return (
            OWN_FOLDER not in parts and not parts[-1].startswith(".") and not (own and f"{path}/".startswith(f"{own}/"))
        )

    looks = watchfiles.watch(
        root, watch_filter=counts, stop_event=stop, rust_timeout=_WAKE, yield_on_timeout=True,
        ignore_permission_denied=True,
    )  # fmt: skip
    due, first = 0.0, True  # nothing is missed between the first sync and the next: the first look comes before
    for changes in _watched(photos, looks):
        if not changes and time.monotonic() < due:
            continue
        due = time.monotonic() + _AT_LEAST
        report = _synced(photos, options, said, first)
        if report and (first or report.new or report.changed or report.moved or report.gone):
            yield report
        if first:
            _log.info("watching %s; Ctrl-C ends it", shown_path(photos))
        first = False


def _watched(photos: StrPath, looks: Iterable[T]) -> Iterator[T]:
    """Yield what each look at a folder tells.

    Raises:
        HashretError: the folder cannot be watched, as where the system watches no more folders.
    """
    try:
        yield from looks
    except (OSError, RuntimeError) as error:
        hint = "or set WATCHFILES_FORCE_POLLING=1, which looks again and again"
        raise HashretError(f"cannot watch {photos}: {error}", hint=hint) from error


def _synced(photos: StrPath, options: dict[str, Any], said: set[str], first: bool) -> SyncReport | None:
    """Sync, and warn of what was not warned of before; None where it fails, which is a warning, too.

    Raises:
        Exception: whatever the first sync raises.
    """
    report = None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)
        try:
            report = sync(photos, **options)
        except Exception as error:  # as of the memory of a device, which may be free at the next
            if first:
                raise
            line = str(error) if isinstance(error, HashretError) else f"sync failed: {type(error).__name__}: {error}"
            warnings.warn(" ".join(line.split()), stacklevel=2)
    for text in map(str, (one.message for one in caught)):
        if text not in said:
            said.add(text)
            warn(text)
    return report
