"""A process that has imported everything, and forks one for each run of a verb: python warm.py TRAP.SO BASE.

A request is a pickled tuple on standard input, its answer another on standard output; see `Warm` in `runs.py`.
"""

import ctypes
import gc
import hashlib
import os
import pickle
import shutil
import signal
import sys
import tempfile
import traceback
from pathlib import Path

LIMIT = 120  # seconds of a run

os.environ |= {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", "MPLBACKEND": "agg"}
sys.dont_write_bytecode = True


def prepare_imports():
    """Import what the verbs need, and make the network and the digits small."""
    import cases
    import conftest  # noqa: F401
    import faiss
    import matplotlib.pyplot  # noqa: F401
    import PIL.Image
    import sklearn.datasets
    import torch
    import torch.utils.data
    from torchvision.datasets import CIFAR10

    import hashret.cli
    import hashret.demo
    import hashret.near_duplicates.moving
    import hashret.reporting.page  # noqa: F401
    from hashret.models import vgg
    from hashret.rendering import pages

    PIL.Image.init()
    pages.environment()
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    vgg._LAYERS["vgg11"] = (4, "M", 4, "M", 4, "M", 4, "M", 512, "M")
    loader, digits = torch.utils.data.DataLoader, sklearn.datasets.load_digits()
    digits.images, digits.target = digits.images[:110], digits.target[:110]
    sklearn.datasets.load_digits = lambda: digits

    def alone(*arguments, num_workers=0, prefetch_factor=None, worker_init_fn=None, **options):
        return loader(*arguments, **options | {"multiprocessing_context": None})  # workers decode, and write nothing

    torch.utils.data.DataLoader = alone
    checks = {name: hashlib.md5(raw).hexdigest() for name, raw in cases.cifar_files().items()}
    CIFAR10.train_list, CIFAR10.test_list = ([[name, checks[name]]] for name in ("data_batch_1", "test_batch"))
    CIFAR10.meta = {"filename": "batches.meta", "key": "label_names", "md5": checks["batches.meta"]}


class Server:
    """Answers requests; all but `reset` in a fork."""

    def __init__(self, library, base):
        self.library, self.base, self.root = ctypes.CDLL(library), base, base / "root"

    def forked(self, function):
        """Call in a fork: -> (exit code, what it printed, the error's traceback or what it returned)."""
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            self._child(function, writing)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            raw = pipe.read()
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        said = {name: (self.base / name).read_text(errors="replace") for name in ("stdout", "stderr")}
        return code, said, pickle.loads(raw) if raw else None

    def _child(self, function, writing):
        code, result = 1, None
        try:
            signal.alarm(LIMIT)
            gc.disable()  # which would copy the memory that it looks at
            for number, name in ((1, "stdout"), (2, "stderr")):
                os.dup2(os.open(self.base / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.environ |= {"HASHRET_CACHE": str(self.root / "cache"), "TMPDIR": str(self.root / "tmp")}
            tempfile.tempdir = str(self.root / "tmp")
            sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)
            os.chdir(self.root)
            result, code = function(), 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os.write(writing, pickle.dumps(result))
        os._exit(code)

    def make(self, name):
        """Prepare the folder of a case, and keep a copy for every run."""
        import cases

        shutil.rmtree(self.root, ignore_errors=True)
        for folder in ("w", "cache", "tmp"):
            (self.root / folder).mkdir(parents=True)
        world = self.base / "world"
        if world.exists():
            self._copy(world)
        prepare = cases.CASES[name].prepare

        def prepared():
            os.chdir("w")
            if not world.exists():
                cases.make_world()
                self._keep(world)
            if prepare:
                prepare()

        result = self.forked(prepared)
        self._keep(self.base / "template")
        return result

    def _keep(self, copy):
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self.root, copy, symlinks=True)

    def _copy(self, copy):
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.copytree(copy, self.root, symlinks=True)

    def reset(self):
        """Put the folder of the case back as it was prepared."""
        self._copy(self.base / "template")

    def can_watch(self):
        """Whether the system lets a process filter its calls."""
        self.root.mkdir()
        return self.forked(lambda: self._watch(0, 0, False))[0] == 0

    def _watch(self, mode, at, apart):
        log = os.open(self.base / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        wrong = self.library.hashret_watch(os.fsencode(self.root), mode, at, int(apart), log)
        if wrong:
            raise OSError(wrong, os.strerror(wrong))

    def run(self, name, argv, mode=0, at=0):
        """Run hashret as a case wants it: -> (exit code, what it printed, trace). See trap.c for the modes."""
        from cases import CASES

        from hashret.cli import main

        def watched():
            os.chdir("w")
            CASES[name].change()
            self._watch(mode, at, CASES[name].apart)
            main(list(argv))

        code, said, _ = self.forked(watched)
        lines = [line.split("\t") for line in (self.base / "log").read_text().splitlines()]
        return code, said, [(int(number), call, int(result), *paths) for number, call, result, *paths in lines]

    def view(self, name):
        """What a reader finds: -> (exit code, what was printed, view)."""
        import cases

        return self.forked(cases.CASES[name].view)

    def tree(self, name):
        """All files of the root."""
        import cases

        return cases.tree(self.root, cases.CASES[name].dated)


def main(library, base):
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    prepare_imports()
    server = Server(library, Path(base))
    gc.freeze()
    while True:
        try:
            name, *arguments = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        pickle.dump(getattr(server, name)(*arguments), answers)
        answers.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
