"""The feature cache: a row a photograph, whatever happens to the others."""

import errno
import hashlib
import json
import os
import shutil
import struct
import tempfile
import zlib
from pathlib import Path

import numpy as np
import platformdirs
import pytest
import torch
from click.testing import CliRunner
from conftest import make_photos
from PIL import Image

from hashret.cli import main
from hashret.data import feature_cache, open_data
from hashret.data.feature_cache import MISSING, PRESENT, UNREADABLE, FeatureCache, caches, clear_caches, default_cache
from hashret.encoding import encode
from hashret.errors import HashretError


class Mean:
    """Stands in for convolutions: each photograph's features are its mean, and it counts them."""

    def __init__(self, shape=(5, 2, 2)):
        self.computed, self.shape = 0, shape

    def __call__(self, images):
        self.computed += len(images)
        return torch.from_numpy(images.mean(axis=(1, 2, 3), keepdims=True)).half().expand(-1, *self.shape)


def hashret(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.fixture
def place(tmp_path):
    make_photos(tmp_path / "photos", 4, 0)
    return tmp_path


def opened(place, spec=None, weights="w", **options):
    return FeatureCache(place / "cache", open_data(spec or place / "photos"), weights, 32, "float32", **options)


def fill(place, spec=None, convolve=None):
    """Fill a cache: -> how many photographs were computed. Every feature must be that of its photograph."""
    convolve = convolve or Mean()
    cache = opened(place, spec)
    state = cache.fill(convolve, workers=0)
    again = opened(place, spec)
    assert again.state().tolist() == state.tolist()
    rows = np.flatnonzero(state == PRESENT)
    wanted = [again.whole.pixels(again.rows[row], 32).mean() for row in rows]
    assert again.open()[rows][:, 0, 0, 0] == pytest.approx(wanted, rel=1e-3)
    return convolve.computed


def folder_of(place):
    [folder] = (place / "cache" / "features").iterdir()
    return folder


def test_only_what_changed_is_computed_anew(place):
    photos = place / "photos"
    assert fill(place) == 12
    assert fill(place) == 0
    os.utime(photos / "red" / "01.png", (1, 1))
    assert opened(place).state().tolist().count(MISSING) == 1
    assert fill(place) == 1
    Image.new("RGB", (40, 40), (9, 8, 7)).save(photos / "red" / "01.png")
    Image.new("RGB", (40, 40), (1, 2, 3)).save(photos / "aaa.png")  # before all others
    os.remove(photos / "blue" / "00.png")
    os.rename(photos / "green" / "02.png", photos / "green" / "zz.png")
    assert fill(place) == 3
    shutil.copy(photos / "red" / "00.png", photos / "blue" / "00.png")
    assert fill(place) == 1
    assert fill(place) == 0
    assert len(np.fromfile(folder_of(place) / "state.u8", np.uint8)) == 14  # a row for each path there ever was
    assert opened(place).open()[np.arange(13)].shape == (13, 5, 2, 2)


def test_sources_of_one_folder_share_their_photographs(place):
    (place / "list.txt").write_text("red/00.png 0 1\nred/01.png 1 0\nred/00.png 0 1\nnew.png 1 1\n")
    shutil.copy(place / "photos" / "red" / "02.png", place / "photos" / "new.png")
    assert fill(place, f"list:{place}/list.txt,root={place}/photos") == 4  # one is named twice
    assert fill(place) == 10
    folder_of(place)
    os.symlink(place / "photos", place / "door")
    assert fill(place, place / "door") == 0
    assert opened(place, weights="others").state().tolist() == [MISSING] * 13


def test_a_folder_that_was_moved_keeps_its_features(place):
    fill(place)
    os.rename(place / "photos", place / "elsewhere")
    assert fill(place, place / "elsewhere") == 0
    assert json.loads((folder_of(place) / "info.json").read_text())["root"] == str(place / "elsewhere")
    shutil.copytree(place / "elsewhere", place / "photos")  # a copy does not take it away
    assert fill(place) == 12
    assert fill(place, place / "elsewhere") == 0


def test_each_way_to_make_a_square_has_a_cache_of_its_own(place):
    squeezed = opened(place)
    assert opened(place, resize="squeeze").folder == squeezed.folder
    assert "resize" not in squeezed.info  # as in caches of before
    fill(place)
    (place / "photos").rename(place / "elsewhere")
    cropped = opened(place, place / "elsewhere", resize="crop")
    assert cropped.folder != squeezed.folder
    assert not cropped.state().any()
    assert opened(place, place / "elsewhere").state().all()  # it has gone with its photographs


def test_what_was_unreadable_is_read_again(place):
    broken = place / "photos" / "red" / "00.png"
    whole, time = broken.read_bytes(), broken.stat().st_mtime_ns
    broken.write_bytes(b"x" * len(whole))
    os.utime(broken, ns=(time, time))
    assert fill(place) == 11
    assert opened(place).state().tolist().count(UNREADABLE) == 1
    broken.write_bytes(whole)
    os.utime(broken, ns=(time, time))  # as where a plugin was missing
    assert fill(place) == 1
    os.remove(broken)
    shutil.copy(place / "photos" / "red" / "01.png", broken)
    assert fill(place) == 1


@pytest.mark.parametrize("after", range(7))
def test_a_kill_between_any_two_writes_loses_no_more_than_features(place, monkeypatch, after):
    fill(place)
    os.utime(place / "photos" / "red" / "01.png", (1, 1))
    make_photos(place / "photos" / "more", 2, 1)
    writes = []

    def stopped(function):
        def wrapped(*arguments):
            if len(writes) == after:
                raise KeyboardInterrupt
            writes.append(function)
            return function(*arguments)

        return wrapped

    with monkeypatch.context() as patch:
        for name in ("pwrite", "ftruncate"):
            patch.setattr(feature_cache.os, name, stopped(getattr(os, name)))
        with pytest.raises(KeyboardInterrupt):
            opened(place).fill(Mean(), workers=0)
    state, cache = opened(place).state(), opened(place)
    assert (state != MISSING).sum() == 11
    assert fill(place) == 18 - 11
    assert len(cache.state()) == 18


def make_old_cache(place, source, present):
    """A cache as hashret wrote it when it was one for all photographs of a source: each feature is its row."""
    info = {"format": 1, "data": source.fingerprint, "weights": "w", "image_size": 32, "precision": "float32"}
    folder = place / "cache" / "features" / hashlib.sha256(json.dumps(info, sort_keys=True).encode()).hexdigest()[:20]
    folder.mkdir(parents=True)
    (folder / "info.json").write_text(json.dumps(info | {"images": len(source), "spec": source.spec}))
    np.repeat(np.arange(len(source), dtype=np.float16), 512).tofile(folder / "features.f16")
    np.where(present, PRESENT, MISSING).astype(np.uint8).tofile(folder / "state.u8")
    return folder


def test_a_cache_of_before_is_taken_over_but_for_what_is_read_otherwise_now(place):
    Image.fromarray(np.full((9, 9), 40_000, np.uint16)).save(place / "photos" / "red" / "deep.png")
    Image.new("RGBA", (9, 9)).save(place / "photos" / "red" / "clear.png")
    header = b"IHDR" + struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)  # 16 bits a channel, which Pillow calls RGB
    chunks = (header, b"IDAT" + zlib.compress(bytes(7)), b"IEND")
    png = b"".join(struct.pack(">I", len(one) - 4) + one + struct.pack(">I", zlib.crc32(one)) for one in chunks)
    (place / "photos" / "red" / "deep-rgb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + png)
    source = open_data(place / "photos")
    present = np.arange(15) != 3
    old = make_old_cache(place, source, present)
    cache = opened(place)
    state = cache.state()
    wanted = [row != 3 and "/deep" not in path and "/clear" not in path for row, path in enumerate(source.paths)]
    assert (state == PRESENT).tolist() == wanted
    assert not old.exists()
    rows = np.flatnonzero(wanted)
    assert cache.open()[rows].shape == (11, 512, 1, 1)
    assert cache.open()[rows][:, 0, 0, 0].tolist() == rows.tolist()
    convolve = Mean((512, 1, 1))
    opened(place).fill(convolve, workers=0)
    assert convolve.computed == 4


@pytest.mark.parametrize(
    "damage", ["features", "states", "photographs", "no states", "no JSON", "shape", "another shape"]
)
def test_a_damaged_cache_is_named(place, damage):
    fill(place)
    folder = folder_of(place)
    info = json.loads((folder / "info.json").read_text())
    if damage == "features":
        os.truncate(folder / "features.f16", 100)
    elif damage == "states":
        os.truncate(folder / "state.u8", 3)
    elif damage == "photographs":
        os.truncate(folder / "photographs.bin", 3 * 32 + 5)
    elif damage == "no states":
        (folder / "state.u8").unlink()
    elif damage == "no JSON":
        (folder / "info.json").write_text("{")
    else:
        shapes = {"shape": "x", "two sides": info["shape"][:2], "another shape": [5, 2, 3]}
        os.utime(place / "photos" / "red" / "01.png", (1, 1))
        (folder / "info.json").write_text(json.dumps(info | {"shape": shapes[damage]}))
    with pytest.raises(HashretError, match="is damaged; remove that folder and run again"):
        fill(place)


@pytest.mark.parametrize("name", ["photographs.bin", "state.u8", "features.f16", "info.json"])
def test_a_pipe_in_the_place_of_a_file_is_damage_and_not_waited_for(place, name):
    fill(place)
    path = folder_of(place) / name
    path.unlink()
    os.mkfifo(path)
    for use in (fill, lambda place: opened(place).state(), lambda place: opened(place).open()):
        with pytest.raises(HashretError, match="is damaged; remove that folder and run again"):
            use(place)
    caches(place / "cache")


def test_caches_are_listed_and_cleared(place):
    fill(place)
    os.utime(place / "photos" / "red" / "01.png", (1, 1))
    make_old_cache(place, open_data(f"list:{make_list(place)}"), [True, False])
    theirs = place / "cache" / "features" / ("0123456789" * 2)
    theirs.mkdir()
    (theirs / "letter.txt").write_text("dear")
    (place / "cache" / "features" / "notes").mkdir()
    found = {cache.source: cache for cache in caches(place / "cache")}
    assert found[str(place / "photos")].photographs == 12
    assert (found[f"list:{place}/list.txt"].photographs, found[None].photographs) == (1, 0)
    done = hashret("cache", "list", "--cache", place / "cache")
    assert done.exit_code == 0
    head, *lines = done.stdout.splitlines()
    assert head.split() == ["name", "photographs", "bytes", "days", "pixels", "precision", "source"]
    assert len(lines) == 3
    listed = [
        json.loads(line)
        for line in hashret("cache", "list", "--json", "--cache", place / "cache").stdout.split("\n")[:-1]
    ]
    assert {one["name"] for one in listed} == {cache.name for cache in found.values()}
    done = hashret("cache", "clear", "--cache", place / "cache")
    assert (done.exit_code, len(caches(place / "cache"))) == (2, 3)
    assert "or clear all with --yes" in done.stderr.splitlines()[-1]
    with pytest.raises(HashretError, match="no feature cache none in"):
        clear_caches([theirs.name, "none"], place / "cache")
    name = found[f"list:{place}/list.txt"].name
    done = hashret("cache", "clear", name, name, "--cache", place / "cache")
    assert done.stdout.startswith("caches cleared: 1, ")
    assert len(caches(place / "cache")) == 2
    assert hashret("cache", "clear", "--yes", "--cache", place / "cache").exit_code == 0
    assert sorted(path.name for path in (place / "cache" / "features").iterdir()) == [theirs.name, "notes"]
    assert (theirs / "letter.txt").read_text() == "dear"
    assert len(list((place / "photos").rglob("*.png"))) == 12
    for verb in ("list", "clear"):
        done = hashret("cache", verb, "--cache", place / "none")
        assert (done.exit_code, done.output) == (0, "no caches\n")


def test_networks_that_openvino_runs_are_listed_and_cleared_beside_the_caches(place):
    fill(place)
    kept = place / "cache" / "openvino"
    for digit in "12":
        (kept / (digit * 20)).mkdir(parents=True)
        for name in ("network.xml", "network.bin", "network.json"):
            (kept / (digit * 20) / name).write_bytes(b"x" * 5000)
    (kept / ("2" * 20) / "letter.txt").write_text("dear")

    def listed():
        output = hashret("cache", "list", "--json", "--cache", place / "cache").stdout
        return {line["name"]: line for line in map(json.loads, output.splitlines())}

    before = listed()
    assert before["openvino"]["source"] == "2 networks as OpenVINO runs them"
    assert before["openvino"]["bytes"] >= 6 * 5000
    table = hashret("cache", "list", "--cache", place / "cache").stdout
    assert table.splitlines()[-1].split()[0] == "openvino"
    with pytest.raises(HashretError, match="no feature cache openvino in"):
        clear_caches(["openvino"], place / "cache")
    done = hashret("cache", "clear", "openvino", "--cache", place / "cache")
    assert done.stdout == f"caches cleared: 1, {before['openvino']['bytes']:,} bytes\n"
    assert [path.name for path in kept.rglob("*.*")] == ["letter.txt"]
    (kept / ("2" * 20) / "letter.txt").unlink()
    assert hashret("cache", "clear", "--yes", "--cache", place / "cache").exit_code == 0
    assert (listed(), kept.exists()) == ({}, False)
    assert hashret("cache", "clear", "openvino", "--cache", place / "cache").exit_code == 2


def make_list(place):
    (place / "list.txt").write_text(f"{place}/photos/red/00.png 0 1\n{place}/photos/red/01.png 1 0\n")
    return place / "list.txt"


def test_a_cache_that_cannot_be_used_is_one_line_and_encode_does_without(place, model):
    (place / "cache").write_text("a file")
    with pytest.raises(HashretError, match=r"cannot use the feature cache .*; name another with --cache"):
        fill(place)
    with pytest.warns(UserWarning, match="cannot use the feature cache .* the photographs are read"):
        report = encode(place / "photos", model, place / "codes", cache=place / "cache", workers=0)
    assert report.encoded == 12
    done = hashret("cache", "list", "--cache", place / "cache")
    assert (done.exit_code, len(done.stderr.splitlines())) == (2, 1)


def test_a_cache_of_photographs_named_from_the_working_folder_says_where_they_are(place, monkeypatch):
    monkeypatch.chdir(place / "photos")
    fill(place, ".")
    done = hashret("cache", "list", "--cache", place / "cache")
    assert done.stdout.splitlines()[1].endswith(f"  . in {place / 'photos'}")


def test_where_caches_lie(monkeypatch, tmp_path):
    monkeypatch.delenv("HASHRET_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert default_cache() == Path("/xdg/hashret")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert default_cache() == Path("/home/me/.cache/hashret")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as Python does for a user without a home
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    assert default_cache() == tmp_path / f"hashret-{os.getuid()}"


def test_caches_of_before_macos_had_a_folder_of_its_own_are_used_where_they_lie(monkeypatch, place, model):
    monkeypatch.delenv("HASHRET_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(place))
    library = place / "Library" / "Caches" / "hashret"
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda *_, **__: library)
    assert default_cache() == library
    before = place / ".cache" / "hashret"
    encode(place / "photos", model, place / "codes", cache=before, fill_cache=True, workers=0)
    assert default_cache() == before
    [listed] = caches()
    assert listed.photographs == 12
    encode(place / "photos", model, place / "again", fill_cache=True, workers=0)
    assert [cache.name for cache in caches()] == [listed.name]
    assert not library.exists()
    clear_caches([listed.name])
    assert caches() == []


def test_a_disk_that_takes_a_part_of_a_map_is_written_to_again(place, monkeypatch):
    """As a disk does that is just getting full: the next write fails then, or space has been made meanwhile."""
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, offset: pwrite(file, bytes(data)[:7], offset))
    fill(place)  # which compares what is kept

    def full(file, data, offset):
        if len(data) < 40:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return pwrite(file, bytes(data)[:7], offset)

    clear_caches([caches(place / "cache")[0].name], place / "cache")
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises((OSError, HashretError), match="No space left"):
        opened(place).fill(Mean(), workers=0)
    assert not (opened(place).state() == PRESENT).any()


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_photographs_that_another_run_enters_meanwhile_are_no_damage(place, monkeypatch, nth):
    """Between any two of the files that are read."""
    fill(place)
    cache, read, calls = opened(place), feature_cache._read, []

    def read_and_let_another_in(path, dtype):
        found = read(path, dtype)
        calls.append(path)
        if len(calls) == nth:
            make_photos(place / "photos" / "more", 2, 7)
            assert opened(place).fill(Mean(), workers=0).tolist() == [PRESENT] * 18
        return found

    monkeypatch.setattr(feature_cache, "_read", read_and_let_another_in)
    assert cache.state().tolist() == [PRESENT] * 12
    assert len(calls) > nth
