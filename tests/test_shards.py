import fcntl
import shutil

import h5py
import numpy as np
import pytest
from helpers import start

from hashret import shards
from hashret.bits import binarize, pack
from hashret.errors import HashretError
from hashret.files import read_json, write_json


def make_shard(n=5, bits=12, seed=0):
    values = np.random.default_rng(seed).random((n, bits)).astype(np.float32)
    return shards.Shard(
        codes=pack(binarize(values)),
        hash_outputs=values,
        ids=np.arange(n),
        paths=shards.encode_paths([f"/photos/ä{i}.png" for i in range(n)]),
        labels=np.arange(n),
        skipped=({"id": 9, "path": "/photos/broken.png", "reason": "truncated"},),
    )


def write(path, shard, bits=12):
    shards.write_shard(path, shard, bits=bits, encoder="abc", image_size=32, first_id=0)


def test_read_gives_what_was_written(tmp_path):
    shard, path = make_shard(), tmp_path / "codes-00000.h5"
    write(path, shard)
    got, attributes = shards.read_shard(path)
    for name in ("codes", "hash_outputs", "ids", "paths", "labels"):
        assert np.array_equal(getattr(got, name), getattr(shard, name)), name
        assert isinstance(getattr(got, name), np.memmap)
    assert got.skipped == shard.skipped
    assert shards.decode_path(got.paths[1]) == "/photos/ä1.png"
    assert attributes["bits"] == 12
    assert attributes["encoder"] == "abc"
    assert [file.name for file in tmp_path.iterdir()] == ["codes-00000.h5"]


def test_datasets_are_contiguous_and_of_the_documented_types(tmp_path):
    write(tmp_path / "s.h5", make_shard())
    with h5py.File(tmp_path / "s.h5") as file:
        assert file["codes"].dtype == np.uint8
        assert file["values"].dtype == np.float32
        assert file["ids"].dtype == np.int64
        assert file["codes"].shape == (5, 2)
        for name in ("codes", "values", "ids", "paths", "labels"):
            assert file[name].chunks is None
            assert file[name].compression is None


def test_the_same_rows_are_the_same_bytes(tmp_path):
    for name in ("a.h5", "b.h5"):
        write(tmp_path / name, make_shard())
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_a_shard_without_rows(tmp_path):
    write(tmp_path / "s.h5", make_shard(0))
    got, _ = shards.read_shard(tmp_path / "s.h5")
    assert len(got) == 0
    assert got.codes.shape == (0, 2)


def test_names_that_are_not_utf8_keep_their_bytes():
    name = b"caf\xe9.png".decode("utf-8", "surrogateescape")
    assert shards.decode_path(shards.encode_paths([name])[0]) == name


@pytest.mark.parametrize("damage", ["truncated", "flipped", "not hdf5", "a dataset gone", "empty"])
def test_a_damaged_shard_is_one_clear_error(tmp_path, damage):
    path = tmp_path / "codes-00000.h5"
    write(path, make_shard(400))
    raw = bytearray(path.read_bytes())
    if damage == "truncated":
        path.write_bytes(raw[: len(raw) // 2])
    elif damage == "flipped":
        with h5py.File(path) as file:
            offset = file["values"].id.get_offset()
        raw[offset + 7] ^= 0xFF
        path.write_bytes(raw)
    elif damage == "not hdf5":
        path.write_bytes(b"not hdf5" * 100)
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        with h5py.File(path, "a") as file:
            del file["values"]
    with pytest.raises(HashretError, match="is damaged"):
        shards.read_shard(path)


@pytest.mark.parametrize(("number", "by"), [(1, 0), (0, 1)])
def test_a_shard_in_the_place_of_another_is_told(codes, tmp_path, number, by):
    folder = shutil.copytree(codes, tmp_path / "codes")
    shutil.copy(codes / shards.shard_name(by), folder / shards.shard_name(number))
    with pytest.raises(HashretError, match="its photographs are those of another shard"):
        list(shards.ShardFolder(folder))


def test_a_shard_of_a_larger_folder_is_told(codes, tmp_path):
    folder = shutil.copytree(codes, tmp_path / "codes")
    manifest = read_json(folder / shards.MANIFEST, "manifest")
    write_json(folder / shards.MANIFEST, manifest | {"images": 7, "shards": 1})
    with pytest.raises(HashretError, match="its photographs are those of another shard"):
        list(shards.ShardFolder(folder))


@pytest.mark.parametrize("locked_by", ["writer", "writer, locks wanted", "lock"])
def test_a_shard_that_another_program_has_locked_is_not_called_damaged(tmp_path, locked_by):
    path = tmp_path / "codes-00000.h5"
    write(path, make_shard())
    code = (
        "from hashret.errors import HashretError; from hashret.shards import read_shard\n"
        f"try: print(len(read_shard({str(path)!r})[0]))\n"
        "except HashretError as error: print(error)"
    )
    environment = {"HDF5_USE_FILE_LOCKING": "TRUE"} if "wanted" in locked_by else {}
    with h5py.File(path, "r+") if "writer" in locked_by else open(path, "rb") as file:
        if locked_by == "lock":  # as of a program that makes backups
            fcntl.flock(file, fcntl.LOCK_EX)
        said = start(code, **environment).communicate(timeout=60)[0]
    assert said == "5\n" if locked_by == "lock" else "is locked: another program has it open" in said


@pytest.mark.parametrize("mode", ["r", "r+"])
def test_a_shard_that_the_process_has_open_is_not_called_damaged(tmp_path, mode):
    path = tmp_path / "codes-00000.h5"
    write(path, make_shard())
    with (
        h5py.File(path, mode, locking=True),
        pytest.raises(HashretError, match="open elsewhere in this process") as told,
    ):
        shards.read_shard(path)
    assert not {"damaged", "remove"} & set(str(told.value).split())
    assert len(shards.read_shard(path)[0]) == 5


def test_a_later_format_asks_for_an_upgrade(tmp_path):
    write(tmp_path / "s.h5", make_shard())
    with h5py.File(tmp_path / "s.h5", "a") as file:
        file.attrs["format"] = 99
    with pytest.raises(HashretError, match="upgrade"):
        shards.read_shard(tmp_path / "s.h5")


def test_a_failed_write_leaves_nothing(tmp_path):
    class Breaks(shards.Shard):
        pass

    shard = make_shard()
    shard.labels = np.array([object()])
    with pytest.raises(TypeError):
        write(tmp_path / "s.h5", shard)
    assert list(tmp_path.iterdir()) == []
