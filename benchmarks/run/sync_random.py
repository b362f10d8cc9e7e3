"""Whether `hashret sync` keeps an index equal to one built anew, whatever happens to the photographs and to itself.

    python -m benchmarks.run.sync_random --work runs/sync --changes 1000

Each round changes a folder of small pictures at random: some are added, edited, edited with size and time kept,
renamed, copied, exchanged, deleted, spoiled; folders are renamed, and so is the root with the index in it. Then
`hashret sync` runs in a process of its own, which in some rounds is killed after a random time, once or several times,
with further changes between; in some, two run at once. After each round the index must have the paths, codes and hash
outputs of one that is built anew, and no content may have been encoded that was in the index before the round. The
encoder is untrained and tiny, so that a round takes a second.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import os
import shutil
import signal
import time
import traceback
import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.lib import common

SHARD = 4  # photographs a shard of `sync` here, so that a kill may leave some whole
FEWEST, MOST = 15, 90  # photographs
NAMES = ("a b.png", "[1].png", "line\nfeed.png", "é.png", b"\xff.png".decode(errors="surrogateescape"), "x.PNG")


class Folder:
    """The photographs that are changed at random."""

    def __init__(self, work: Path, rng: np.random.Generator) -> None:
        self.work, self.rng, self.number = work, rng, 0
        self.root = work / "photos"
        self.root.mkdir(parents=True)
        self.kinds: collections.Counter[str] = collections.Counter()

    def files(self) -> list[Path]:
        """The photographs, the ones that cannot be read among them."""
        return sorted(path for path in self.root.rglob("*") if path.is_file() and ".hashret" not in path.parts)

    def folders(self) -> list[Path]:
        """The folders below the root that may be renamed."""
        return sorted({path.parent for path in self.files()} - {self.root})

    def any_file(self) -> Path:
        """One of the photographs."""
        files = self.files()
        return files[self.rng.integers(len(files))]

    def new_path(self) -> Path:
        """A name that is free, in a folder that may be new."""
        self.number += 1
        folder = self.root.joinpath(*(f"f{self.rng.integers(3)}" for _ in range(self.rng.integers(3))))
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{self.number}{NAMES[self.rng.integers(len(NAMES))]}"

    def draw(self, path: Path) -> None:
        """Write a picture that no other is like."""
        pixels = self.rng.integers(0, 256, (4, 4, 3), dtype=np.uint8).repeat(6, 0).repeat(6, 1)
        Image.fromarray(pixels).save(path, "PNG")

    def change(self) -> None:
        """Change something at random."""
        files = len(self.files())
        kinds = ["add"] if files < FEWEST else ["delete"] if files > MOST else list(CHANGES)
        kind = kinds[self.rng.integers(len(kinds))]
        self.kinds[kind] += 1
        CHANGES[kind](self)

    def edit_unnoticed(self) -> None:
        """Change the last bytes of a file, in the checksum behind the picture, and keep size and time."""
        path = self.any_file()
        raw, status = path.read_bytes(), path.stat()
        path.write_bytes(raw[:-1] + bytes([self.rng.integers(256)]))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    def rename_folder(self) -> None:
        """Give a folder another name, below the root or in another folder."""
        folders = self.folders()
        if folders:
            self.number += 1
            folders[self.rng.integers(len(folders))].rename(self.root / f"moved{self.number}")

    def rename_root(self) -> None:
        """Move photographs and index together."""
        self.number += 1
        self.root = self.root.rename(self.work / f"photos{self.number}")

    def exchange(self) -> None:
        """Let two photographs exchange their names."""
        one, other, aside = self.any_file(), self.any_file(), self.work / "aside"
        if one != other:
            one.rename(aside)
            other.rename(one)
            aside.rename(other)


CHANGES = {
    "add": lambda folder: folder.draw(folder.new_path()),
    "edit": lambda folder: folder.draw(folder.any_file()),
    "edit, size and time kept": Folder.edit_unnoticed,
    "touch": lambda folder: os.utime(folder.any_file()),
    "rename": lambda folder: folder.any_file().rename(folder.new_path()),
    "rename to another's name": lambda folder: folder.any_file().replace(folder.any_file()),
    "rename a folder": Folder.rename_folder,
    "rename the root": Folder.rename_root,
    "copy": lambda folder: shutil.copy(folder.any_file(), folder.new_path()),
    "exchange": Folder.exchange,
    "delete": lambda folder: folder.any_file().unlink(),
    "spoil": lambda folder: folder.any_file().write_bytes(folder.rng.bytes(20)),
}


def forked(function, *arguments) -> int:
    """Start a function in a process of its own, which ends with 0 where it returns: -> its number."""
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            function(*arguments)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def ended(pid: int) -> int:
    """Wait for a process: -> 0, or how it ended otherwise."""
    return os.waitpid(pid, 0)[1]


def sync_once(root: Path, model: Path, log: Path) -> None:
    """Sync, and note the content of each photograph that is read to be encoded."""
    import hashret
    from hashret.data import batches
    from hashret.mirror import syncing

    syncing._SHARD = SHARD
    read, noted = batches.read_image, os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def read_and_note(path, *rest, **options):
        os.write(noted, f"{digest(path)}\n".encode())
        return read(path, *rest, **options)

    batches.read_image = read_and_note
    with hashret.quieted():
        report = hashret.sync(root, model=model, workers=0, device="cpu", yes=True)
    assert report.photographs == report.unchanged + report.new + report.changed + report.moved, report
    assert report.held == report.out_of_reach == 0, report


def digest(path) -> str:
    """The sha256 of a file, in hexadecimal."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def compare(root: Path, model: Path, work: Path, result: Path) -> None:
    """Build an index anew, and write to a file which contents it has, or raise where `sync` made another."""
    import hashret

    shutil.rmtree(work / "anew", ignore_errors=True)
    with hashret.quieted():
        hashret.encode(root, model, work / "anew" / "codes", workers=0, device="cpu", cache=work / "none")
    hashret.build_index(work / "anew" / "codes", work / "anew" / "index")
    anew, mirrored = held_by(work / "anew" / "index"), held_by(root / ".hashret" / "index")
    if anew != mirrored:
        wrong = {path for path in anew.keys() | mirrored.keys() if anew.get(path) != mirrored.get(path)}
        raise AssertionError(f"other than built anew: {sorted(wrong)[:5]}")
    left = set(os.listdir(root / ".hashret" / "index"))
    assert all(name.isdecimal() or name in ("index.json", "sync.json", "sync.lock") for name in left), left
    result.write_text("".join(f"{digest(path)}\n" for path in anew))


def held_by(index: Path) -> dict[str, tuple[bytes, bytes]]:
    """What an index has: path -> code and hash outputs."""
    import hashret

    opened = hashret.open_index(index, "cpu", verify=True)
    rows = np.flatnonzero(opened.alive).tolist()
    assert len({opened.path(row) for row in rows}) == len(rows)
    return {opened.path(row): (opened.code(row).tobytes(), opened.hash_outputs[row].tobytes()) for row in rows}


def make_model(path: Path, seed: int) -> None:
    """Save an untrained encoder of 32 bits on pictures of 32 pixels."""
    import torch

    from hashret.models.checkpoint import save_checkpoint
    from hashret.models.network import HashNet
    from hashret.models.weights import init_from_scratch

    torch.manual_seed(seed)
    shape = {"image_size": 32, "arch": "vgg11", "width": 32, "gate": "unit"}
    net = HashNet(32, 2, attention=False, **shape)
    init_from_scratch(net.backbone)
    with torch.no_grad():
        net.head.hash.weight *= 20
    weights = net.architecture.fingerprint(net.backbone)
    meta = {"method": "vggh", "bits": 32, "classes": ["a", "b"], "seed": seed, "attention": False, **shape}
    save_checkpoint(path, net, meta | {"weights_fingerprint": weights})


def run(work: Path, changes: int, seed: int) -> dict[str, object]:
    """Do rounds until there were so many changes, and return the figures.

    Raises:
        AssertionError: `sync` has done what it must not.
    """
    from hashret import encoding  # noqa: F401  (and torch, so that no process has to import them again)
    from hashret.mirror import syncing  # noqa: F401

    shutil.rmtree(work, ignore_errors=True)
    rng = np.random.default_rng(seed)
    folder, model, log, result = Folder(work, rng), work / "model.safetensors", work / "log", work / "result"
    assert ended(forked(make_model, model, seed)) == 0
    for _ in range(3 * FEWEST):
        folder.draw(folder.new_path())
    had: set[str] = set()
    seconds: list[float] = [1.0]
    figures = collections.Counter[str]()
    started, number = time.monotonic(), -1
    while folder.kinds.total() < changes:
        number += 1
        for _ in range(rng.integers(1, 6) if number else 0):
            folder.change()
        lost, log_before = 0, log.read_text().splitlines() if log.exists() else []
        while rng.random() < 0.4:  # killed, and often changed before the next try
            pid = forked(sync_once, folder.root, model, log)
            time.sleep(rng.random() * 1.1 * np.median(seconds[-50:]))
            os.kill(pid, signal.SIGKILL)
            killed = ended(pid) != 0
            figures["killed" if killed else "killed too late"] += 1
            lost += killed
            for _ in range(rng.integers(0, 3)):
                folder.change()
        begun = time.monotonic()
        pids = [forked(sync_once, folder.root, model, log) for _ in range(1 + (rng.random() < 0.05))]
        assert {ended(pid) for pid in pids} == {0}, f"round {number}: sync failed"
        seconds.append(time.monotonic() - begun)
        figures["two at once"] += len(pids) > 1
        assert ended(forked(compare, folder.root, model, work, result)) == 0, f"round {number}: not as built anew"
        encoded = log.read_text().splitlines()[len(log_before) :] if log.exists() else []
        again = len(encoded) - len(set(encoded))
        figures["encoded"] += len(encoded)
        figures["contents encoded"] += len(set(encoded))
        figures["encoded though in the index"] += len(had & set(encoded))
        figures["encoded again after a kill"] += again
        assert not had & set(encoded), f"round {number}: encoded again"
        assert again <= lost * SHARD, f"round {number}: {again} encoded again after {lost} kills"
        had = set(result.read_text().splitlines())
        if number % 50 == 49:
            print(f"round {number + 1}: {dict(figures)}", flush=True)
    return {
        "rounds": number + 1, "seed": seed, "photographs": len(folder.files()), "shard": SHARD,
        "changes": dict(sorted(folder.kinds.items())), **figures,
        "sync_seconds_median": round(float(np.median(seconds[1:])), 3),
        "seconds": round(time.monotonic() - started),
    }  # fmt: skip


def main() -> None:
    """Run, and save the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder that is made and removed")
    parser.add_argument("--changes", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    common.add_results(parser)
    options = parser.parse_args()
    figures = run(options.work, options.changes, options.seed)
    shutil.rmtree(options.work)
    common.save("sync_random", figures, options.results)


if __name__ == "__main__":
    main()
