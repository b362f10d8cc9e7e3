"""One case in a process of its own: forked from one that has imported everything, bounded, watched and judged."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from hashret.files import partial_folder

from . import cases, workplace

SECONDS = 60  # that a case may take; it takes 0.2, and more on a busy machine
CPU_SECONDS = 20
GROWTH_MB = 400  # that a case may take in memory beyond what the process has that it is forked from
_ADDRESS_SPACE = 6 * 2**30  # beyond it; what asks for more is told so by a MemoryError
_TRACEBACK = re.compile(r"Traceback \(most recent call last\)")
# What may stand before the one line of a mistake: warnings, and what is said of the work while it goes on.
_NOTE = re.compile(
    r"note: |going on with |epoch \d+: |fitted: |[\d,]+ of [\d,]+ photographs |[\w ,]+: [\d,]+/[\d,]+ \w+, "
)
_TIMES = re.compile(r'"(hamming_)?seconds": [\d.]+|[\d.]+ images/s|, [\d.]+ s\b')
_OPENED_FOR_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
# Audit events that change files -> the arguments that name what is changed, and those with the folder they start from.
_CHANGES = {
    "os.rename": ((0, 2), (1, 3)), "os.remove": ((0, 1),), "os.rmdir": ((0, 1),), "os.mkdir": ((0, 2),),
    "os.link": ((1, 3),), "os.symlink": ((1, 2),), "os.truncate": ((0, None),), "os.chmod": ((0, 2),),
    "shutil.rmtree": ((0, 1),), "shutil.move": ((0, None), (1, None)),
}  # fmt: skip


_OTHER_ANSWER = "an answer that differs, though a checksum covers the file"
_FAULTS = {  # how a fault begins -> what it is counted as
    "a traceback": "tracebacks",
    "signal": "signals",
    "a hang": "hangs",
    "touched outside": "files touched outside",
    "memory": "memory beyond the bound",
    _OTHER_ANSWER: "wrong answers where a checksum covers the file",
}


@dataclass(frozen=True)
class Outcome:
    """What a case did; ``faults`` is what it must not have done, empty if all is well.

    ``answer``: "refused", "answered", "answered as before" (compared where a checksum covers the file) or "fault".
    """

    number: int
    kind: str
    verb: str
    done: str
    arguments: list
    answer: str
    faults: tuple
    status: int
    seconds: float
    growth_mb: float
    stderr: str

    def as_dict(self):
        return asdict(self)


class Sandbox:
    """A folder for cases: `pristine`, what they begin with, and `case`, made anew for each.

    Args:
        top: an empty folder.
        seed: of all cases; a case is the same whatever ran before it.
    """

    def __init__(self, top, seed=0):
        self.top, self.seed = Path(top).resolve(), seed
        self.answers, self.resident = {}, 0
        self.pristine, self.case = self.top / "pristine", self.top / "case"
        self.case.mkdir(parents=True)
        _import_everything()
        status, _, _ = self._forked(lambda: workplace.build(self.case), 600)
        if status:
            raise RuntimeError(f"the folder to damage could not be made: {self._text('stderr')}")
        self.case.rename(self.pristine)
        _warm()
        self.before = self._snapshot()
        self.resident = self._forked(lambda: None, 60)[2]  # of a process that does nothing

    def run(self, number):
        """Run the case of a number: -> `Outcome`."""
        rng = np.random.default_rng((self.seed, number))
        self._fresh()
        kind, done, arguments = cases.draw(rng, self.case / "work")
        unchecked = bool(rng.random() < 0.5)
        status, seconds, growth = self._verb(arguments, unchecked)
        out, err = self._text("stdout"), self._text("stderr")
        faults = list(self._faults(status, err, growth))
        answer = "refused"
        if status == 0:
            answer = "answered"
            checked = kind in cases.KINDS and cases.KINDS[kind].checked and arguments[0] != "info"  # which describes
            if checked and not (unchecked and kind == "index segment"):
                same = self._answer(arguments, out) == self._answer_before(arguments)
                answer = "answered as before"
                if not same:
                    faults.append(_OTHER_ANSWER)
        return Outcome(
            number, kind, arguments[0], done + (", no checksums" if unchecked and "index" in kind else ""), arguments,
            "fault" if faults else answer, tuple(faults), status, round(seconds, 2), round(growth), err[-3000:],
        )  # fmt: skip

    def _answer_before(self, arguments):
        """What a verb answers where nothing is damaged."""
        key = tuple(arguments)
        if key not in self.answers:
            self._fresh()
            self._verb(arguments, False)
            self.answers[key] = self._answer(arguments, self._text("stdout"))
        return self.answers[key]

    def _answer(self, arguments, out):
        """What was printed, less the times, and the index that was built."""
        text = _TIMES.sub("", out)
        if arguments[0] == "build-index":
            built = self.case / "work" / arguments[arguments.index("--out") + 1] if "--out" in arguments else None
            for file in sorted(built.glob("0*/*")) if built else ():
                text += hashlib.sha256(file.read_bytes()).hexdigest()
        return text

    def _faults(self, status, err, growth):
        lines = [line for line in err.splitlines() if not _NOTE.match(line)]
        if status < 0:
            name = "hang" if status == -signal.SIGKILL else signal.Signals(-status).name
            yield "a hang" if name in ("hang", "SIGXCPU") else f"signal {name}"
        elif _TRACEBACK.search(err):
            yield f"a traceback: {lines[-1] if lines else ''}"[:200]
        elif status not in (0, 2):
            yield f"exit code {status}"
        elif status == 2 and (len(lines) != 1 or not lines[0].startswith("hashret: ")):
            yield f"{len(lines)} lines on stderr"
        if growth > GROWTH_MB:
            yield "memory"
        if touched := self._touched():
            yield f"touched outside: {touched}"

    def _touched(self):
        """What was changed outside of the folder: the first, or None."""
        seen = self._text("touched").splitlines()
        if seen:
            return seen[0]
        after = self._snapshot()
        changed = [name for name in self.before.keys() | after.keys() if self.before.get(name) != after.get(name)]
        outside = self.case / "outside"
        for file in (self.pristine / "outside").iterdir():
            if not (outside / file.name).is_file() or (outside / file.name).read_bytes() != file.read_bytes():
                changed.append(str(outside / file.name))
        if len(list(outside.iterdir())) != len(list((self.pristine / "outside").iterdir())):
            changed.append("a new file")
        return min(changed) if changed else None

    def _snapshot(self):
        found = {}
        for path in self.pristine.rglob("*"):
            stat = path.lstat()
            found[str(path)] = (stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_mode)
        return found

    def _fresh(self):
        """Lay the case's folder out anew: copies, and links to large files, which a fault may not write to either."""
        shutil.rmtree(self.case, ignore_errors=True)
        shutil.copytree(self.pristine, self.case, symlinks=True, copy_function=_copy)

    def _verb(self, arguments, unchecked):
        """Run a verb as a user would: -> exit status (a signal's number, negative), seconds, growth of memory in MB."""

        def verb():
            os.chdir(self.case / "work")
            if unchecked:
                _take_for_large()
            sys.addaudithook(_Watch(self.case, self.top / "touched"))
            from hashret.cli import main

            main(arguments, prog_name="hashret")

        return self._forked(verb, SECONDS)

    def _forked(self, function, seconds):
        (self.top / "touched").write_text("")
        for name in ("home", "tmp"):
            (self.case / name).mkdir(parents=True, exist_ok=True)
        sys.stdout.flush()
        started = time.monotonic()
        pid = os.fork()
        if not pid:
            self._child(function, seconds)
        descriptor = os.pidfd_open(pid)
        ended, _, _ = select.select([descriptor], [], [], seconds)
        os.close(descriptor)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        if not ended:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        _, status, usage = os.wait4(pid, 0)
        resident = usage.ru_maxrss / 1024
        return os.waitstatus_to_exitcode(status), time.monotonic() - started, resident - self.resident

    def _child(self, function, seconds):
        """Never returns."""
        status = 1
        try:
            os.setsid()
            for number, name in ((1, "stdout"), (2, "stderr")):
                os.dup2(os.open(self.top / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), number)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            sys.stdout = open(1, "w", encoding="utf-8", errors="surrogateescape", closefd=False)
            sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
            os.environ |= {"HOME": str(self.case / "home"), "TMPDIR": str(self.case / "tmp")}
            os.environ |= {"HASHRET_CACHE": str(self.case / "home" / "cache"), "MPLCONFIGDIR": str(self.case / "home")}
            tempfile.tempdir = None
            if seconds == SECONDS:
                space = _virtual() + _ADDRESS_SPACE
                resource.setrlimit(resource.RLIMIT_AS, (space, space))
                resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 5))
                resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            function()
            status = 0
        except SystemExit as done:
            status = done.code if isinstance(done.code, int) else 0 if done.code is None else 1
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(BaseException):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status & 0xFF)

    def _text(self, name):
        try:
            return (self.top / name).read_text("utf-8", "backslashreplace")
        except FileNotFoundError:
            return ""


def run_cases(numbers: range, seed: int, verbose: bool) -> list[Outcome]:
    """Run the cases of some numbers in a folder of their own, and print those with a fault; ``verbose`` prints all."""
    outcomes = []
    with partial_folder(Path(tempfile.gettempdir(), "damage")) as top:  # which removes what a killed run left
        sandbox = Sandbox(top / "cases", seed)
        for number in numbers:
            outcome = sandbox.run(number)
            outcomes.append(outcome)
            if outcome.faults or verbose:
                print(f"{number} {outcome.kind} | {outcome.done} | {' '.join(outcome.arguments)[:150]!r}")
                print(
                    f"    {outcome.answer} {'; '.join(outcome.faults)} ({outcome.seconds} s, {outcome.growth_mb} MB)",
                    flush=True,
                )
    return outcomes


def summary(outcomes):
    """Counts of outcomes: -> dict with ``by_kind`` and ``by_verb``, and every fault."""
    outcomes = list(outcomes)
    kinds, verbs = {}, {}
    for one in outcomes:
        for table, name in ((kinds, one.kind), (verbs, one.verb)):
            table.setdefault(name, Counter())[one.answer] += 1
    faults = Counter(_group_of(fault) for one in outcomes for fault in one.faults)
    limits = {"seconds": SECONDS, "memory_mb": GROWTH_MB}
    return {
        "cases": len(outcomes),
        "answers": dict(Counter(one.answer for one in outcomes)),
        "faults": {name: faults[name] for name in _FAULTS.values()} | {"other": faults["other"]},
        "limits": limits,
        "slowest_seconds": max((one.seconds for one in outcomes), default=0),
        "most_memory_mb": max((one.growth_mb for one in outcomes), default=0),
        "by_kind": {name: dict(sorted(counts.items())) for name, counts in sorted(kinds.items())},
        "by_verb": {name: dict(sorted(counts.items())) for name, counts in sorted(verbs.items())},
        "failures": [one.as_dict() for one in outcomes if one.faults],
    }


def _group_of(fault):
    return next((name for words, name in _FAULTS.items() if fault.startswith(words)), "other")


class _Watch:
    """An audit hook that notes the first change of a file outside a case's own folders."""

    def __init__(self, case, note):
        self.mine = tuple(f"{case / name}/" for name in ("work", "home", "tmp"))
        self.note = os.open(note, os.O_WRONLY | os.O_APPEND)
        self.busy = False

    def __call__(self, event, arguments):
        if self.busy or (event != "open" and event not in _CHANGES):
            return
        self.busy = True
        try:
            if event == "open":
                path, _, flags = arguments
                if isinstance(path, (str, bytes)) and isinstance(flags, int) and flags & _OPENED_FOR_WRITING:
                    self._check(event, os.path.realpath(os.fsdecode(path)))
                return
            for place, at in _CHANGES[event]:
                path, folder = arguments[place], arguments[at] if at is not None and at < len(arguments) else -1
                if isinstance(path, int):
                    continue
                path = os.fsdecode(path)
                if isinstance(folder, int) and folder >= 0:
                    path = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), path)
                parent, name = os.path.split(os.path.abspath(path))
                self._check(event, os.path.join(os.path.realpath(parent), name))
        finally:
            self.busy = False

    def _check(self, event, path):
        if (event == "os.mkdir" and os.path.isdir(path)) or (event == "os.remove" and not os.path.lexists(path)):
            return  # which changes nothing
        if "__pycache__" in path:  # where numba looks whether it may keep what it compiled
            return
        if path.startswith(self.mine) or path in ("/dev/null", "/dev/zero") or path.startswith("/proc/"):
            return
        os.write(self.note, f"{event} {path!r}\n".encode())


def _copy(source, target):
    if os.path.getsize(source) > 2**20:
        os.link(source, target)
    else:
        shutil.copy2(source, target)
    return target


def _import_everything():
    """What verbs import, so that a case need not."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.dont_write_bytecode = True
    import faiss
    import h5py  # noqa: F401
    import matplotlib.figure  # noqa: F401
    import torch
    import torch.utils.data

    import hashret.cli
    import hashret.encoding
    import hashret.explanation
    import hashret.near_duplicates.groups
    import hashret.rendering.pages
    import hashret.reporting.page
    import hashret.training.start  # noqa: F401

    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    from PIL import Image

    Image.init()


def _warm():
    """Load the compiled scan, so that a case need not."""
    from hashret.index.hamming import load_scan

    if load_scan():
        load_scan().compile_scan()


def _take_for_large():
    """Open an index as one that is too large for checksums, and search it as one that is worth the compiled scan.

    Checksums in the background would refuse a small index before it is searched; of a large one they come later.
    """
    from hashret.index import folder, hamming, opening

    opening._VERIFY_BYTES = -1
    folder.Index.verify_in_background = lambda self: self
    hamming._COMPARISONS_TO_LOAD = hamming._COMPARISONS_TO_COMPILE = 0


def _virtual():
    """Address space of this process in bytes."""
    with open("/proc/self/status") as file:
        return 1024 * next(int(line.split()[1]) for line in file if line.startswith("VmSize:"))
