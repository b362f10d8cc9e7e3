"""Files that are not as they were written, each kind by itself: one line that names the file, and nothing worse."""

import json
import os
import re
import shutil
import struct
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from hashret.bits import binarize, pack
from hashret.data import open_data
from hashret.errors import DamagedIndex, HashretError
from hashret.files import atomic, check_output, check_writable, read_json
from hashret.index import build_index, open_index, opening, remove
from hashret.index.distinct import CodeTable
from hashret.index.planes import bit_planes
from hashret.index.rerank import squared_distances
from hashret.index.scan import Scan
from hashret.models.checkpoint import read_meta
from hashret.models.weights import load_backbone
from hashret.opening import open_database
from hashret.shards import Shard, encode_paths, read_shard, write_shard
from hashret.training.loop import TrainingRun
from hashret.training.start import train

N, BITS = 5000, 24


@pytest.fixture(scope="module")
def crowd(tmp_path_factory):
    """An index of 5,000 photographs with few distinct codes, so that it has starts, items and numbers."""
    folder = tmp_path_factory.mktemp("crowd")
    rng = np.random.default_rng(0)
    values = rng.random((600, BITS), np.float32)[rng.integers(600, size=N)]
    paths = encode_paths([f"/photos/{row}.png" for row in range(N)])
    shard = Shard(pack(binarize(values)), values, np.arange(N), paths, rng.integers(0, 3, N))
    keys = {"bits": BITS, "encoder": "e", "image_size": 32}
    (folder / "codes").mkdir()
    write_shard(folder / "codes" / "codes-00000.h5", shard, first_id=0, **keys)
    manifest = {**keys, "precision": "float32", "shards": 1, "images": N, "classes": ["a", "b", "c"]}
    (folder / "codes" / "codes.json").write_text(json.dumps(manifest))
    build_index(folder / "codes", folder / "index")
    return folder


@pytest.fixture
def index(crowd, tmp_path):
    return shutil.copytree(crowd / "index", tmp_path / "index")


def change(path, start, values, dtype):
    """Write values over those of an .npy file from a place on."""
    array = np.load(path, mmap_mode="r+")
    assert array.dtype == dtype
    array[start : start + len(values)] = values
    array.flush()


def ask(opened):
    """Everything that reads an index."""
    codes, values = np.asarray(opened.codes()[:50]), np.array(opened.hash_outputs[:50])
    for by in ("values", "asymmetric", "directions"):
        hits = opened.search(codes, values, 20, 200, by)
        opened.items(hits.positions[0].tolist(), codes=True)
    list(opened.within(codes[:3], 5))
    opened.search(codes, values, 20, among=opened.select("a", "*1.png"))
    opened.everything()
    opened.known(["/photos/7.png"])


DAMAGED = {
    "items beyond the end": ("items.npy", 0, np.full(N, 2**31 - 1), np.int32),
    "an item beyond the end": ("items.npy", 100, [N], np.int32),
    "items below zero": ("items.npy", 0, np.full(N, -5), np.int32),
    "starts beyond the end": ("starts.npy", 1, np.full(400, 2**60), np.int64),
    "starts below zero": ("starts.npy", 5, [-(2**62)] * 300, np.int64),
    "starts in another order": ("starts.npy", 1, np.arange(500)[::-1], np.int64),
    "numbers beyond the end": ("numbers.npy", 0, np.full(N, 2**31 - 1), np.int32),
    "numbers below zero": ("numbers.npy", 0, np.full(N, -1), np.int32),
    "paths that end beyond the end": ("path_ends.npy", 0, np.full(N - 1, 2**62), np.int64),
    "paths that end before they begin": ("path_ends.npy", 7, [0], np.int64),
    "labels of no class": ("labels.npy", 0, np.full(N, 3), np.int64),
    "labels far from any class": ("labels.npy", 0, np.full(N, -(2**63)), np.int64),
    "ids below zero": ("ids.npy", 0, [-1], np.int64),
    "ids beyond those given": ("ids.npy", N - 1, [2**40], np.int64),
}


@pytest.mark.parametrize("engine", ["compiled", "faiss"])
@pytest.mark.parametrize("damage", DAMAGED)
def test_numbers_that_cannot_be_are_told_in_one_line_without_checksums(index, damage, engine):
    name, start, values, dtype = DAMAGED[damage]
    change(index / "000001" / name, start, values, dtype)
    with pytest.raises(HashretError, match=rf"is damaged: .*{name}.*; build it again"):
        ask(open_index(index, "cpu", verify=False, backend=engine))
    with pytest.raises(HashretError, match="has changed"):
        open_index(index, "cpu")


def test_a_path_with_a_zero_byte_cannot_be(index):
    with open(index / "000001" / "paths.bin", "r+b") as file:
        file.write(b"/photos\0")
    opened = open_index(index, "cpu", verify=False)
    with pytest.raises(HashretError, match=r"is damaged: paths.bin is not as it was written; build it again"):
        opened.items([0])


def test_paths_without_a_byte_cannot_be(index):
    segment, meta = index / "000001", json.loads((index / "index.json").read_text())
    (segment / "paths.bin").write_bytes(b"")
    change(segment / "path_ends.npy", 0, np.zeros(N), np.int64)
    meta["segments"][0]["files"]["paths.bin"]["bytes"] = 0
    (index / "index.json").write_text(json.dumps(meta))
    with pytest.raises(HashretError, match=r"is damaged: paths.bin is empty; build it again"):
        open_index(index, "cpu", verify=False)


def test_a_large_index_is_compared_with_its_checksums_while_it_is_searched(index, monkeypatch):
    monkeypatch.setattr(opening, "_VERIFY_BYTES", 0)  # as if it were large
    change(index / "000001" / "values.npy", 7, np.full((1, BITS), 0.25), np.float32)
    opened = open_database(index, "cpu")
    opened._background.thread.join()
    line = r"the index .* is damaged: values\.npy has changed; build it again"
    for search in (opened.search, lambda codes: opened.nearest(codes, 1), lambda codes: list(opened.within(codes, 1))):
        with pytest.raises(DamagedIndex, match=line):
            search(opened.codes()[:1])
    hits = open_index(index, "cpu").search(opened.codes()[:1])  # which was not asked to compare
    assert hits.positions.shape == (1, 10)


def test_what_was_compared_is_said(index, monkeypatch):
    assert open_index(index, "cpu").checked == "types, shapes and sizes, sha256 of 10 files"
    monkeypatch.setattr(opening, "_VERIFY_BYTES", 0)
    opened = open_index(index, "cpu")
    assert (opened.checked, opened.damage) == ("types, shapes and sizes", None)
    opened.verify_in_background()._background.thread.join()
    assert (opened.checked, opened.damage) == ("types, shapes and sizes, sha256 of 10 files", None)
    ask(opened)


@pytest.mark.parametrize("name", ["paths.bin", "hamming.faiss", "ids.npy", "values.npy"])
@pytest.mark.parametrize("verify", [True, False])
def test_pipes_and_devices_among_the_files_of_an_index_are_not_waited_for(index, name, verify):
    meta = json.loads((index / "index.json").read_text())
    meta["segments"][0]["files"][name]["bytes"] = 0  # the size of either
    (index / "index.json").write_text(json.dumps(meta))
    for make in (os.mkfifo, lambda path: path.symlink_to("/dev/zero")):
        (index / "000001" / name).unlink()
        make(index / "000001" / name)
        with pytest.raises(HashretError, match=f"is damaged: {re.escape(name)} has changed"):
            open_index(index, "cpu", verify=verify)


def test_an_undamaged_index_answers_without_checksums(index):
    ask(open_index(index, "cpu", verify=False))


@pytest.mark.parametrize(
    "header",
    [
        {"descr": "|O", "fortran_order": False, "shape": (N, BITS)},
        {"descr": "<f4", "fortran_order": True, "shape": (N, BITS)},
        {"descr": ">f4", "fortran_order": False, "shape": (N, BITS)},
        {"descr": "<f8", "fortran_order": False, "shape": (N, BITS // 2)},
        {"descr": "<f4", "fortran_order": False, "shape": (N, BITS - 1)},
        {"descr": "<f4", "fortran_order": False, "shape": (10**15, BITS)},
        {"descr": "<f4", "fortran_order": False, "shape": ()},
        {"shape": (N, BITS)},
        "__import__('os').abort()",
        "(" * 100,
    ],
)
def test_headers_are_compared_and_never_evaluated(index, header):
    path = index / "000001" / "values.npy"
    raw = bytearray(path.read_bytes())
    text = header if isinstance(header, str) else repr(header)
    raw[10:128] = text.encode().ljust(117) + b"\n"
    path.write_bytes(raw)
    with pytest.raises(HashretError, match=r"values.npy is no array <f4 \(5000, 24\); build it again"):
        open_index(index, "cpu", verify=False)


@pytest.mark.parametrize(
    ("at", "value"),
    [(0, b"IBxM"), (4, struct.pack("<i", 2**30)), (8, struct.pack("<i", -1)), (12, struct.pack("<q", 2**40))],
)
def test_faiss_is_given_no_header_but_the_expected(index, at, value):
    with open(index / "000001" / "hamming.faiss", "r+b") as file:
        file.seek(at)
        file.write(value)
    with pytest.raises(HashretError, match=r"hamming.faiss does not hold"):
        open_index(index, "cpu", verify=False)


def test_the_scan_says_where_lists_cannot_be():
    rng = np.random.default_rng(1)
    codes = rng.integers(0, 256, (3000, 3), dtype=np.uint8)
    starts, items = np.arange(0, 2 * 3000 + 1, 2), np.arange(6000, dtype=np.int32)
    planes = bit_planes(codes)
    for k in (5, 5999):  # the second counts distances first
        assert Scan(planes, 3000, starts, items).search(codes[:2], k)[1].max() < 6000
        for wrong in (2**62, -(2**62), 0):
            bad = starts.copy()
            bad[1:-1] = wrong
            with pytest.raises(HashretError, match=r"starts.npy or items.npy"):
                Scan(planes, 3000, bad, items).search(codes[:2], k)
        with pytest.raises(HashretError, match="damaged"):
            Scan(planes, 3000, starts, items[::-1] + np.int32(5000)).search(codes[:2], k)


def test_all_codes_together_with_too_few_items_end_the_search():
    table = CodeTable(np.zeros((4, 4), np.uint8), np.array([0, 1, 1, 2, 9]), np.arange(9, dtype=np.int32))
    from hashret.index.hamming import HammingStage

    with pytest.raises(HashretError, match=r"starts.npy"):
        HammingStage(table, 24, backend="faiss").search(np.zeros((1, 3), np.uint8), 9)


def test_candidates_beyond_the_values_are_not_read():
    with pytest.raises(HashretError, match="no photograph 7"):
        squared_distances(np.zeros((1, 8), np.float32), np.zeros((5, 8), np.float32), np.array([[1, 7]]))
    with pytest.raises(HashretError, match="16 values of a query cannot be compared with 8"):
        squared_distances(np.zeros((1, 16), np.float32), np.zeros((5, 8), np.float32), np.array([[1, 2]]))


INDEX_JSON = {
    "bits": ["24", 7, 10**400, None, 24.0], "count": [-1, N + 1, True], "classes": ["abc", [1], {}],
    "segments": [[], {}, [{}], None], "next_id": [3, "x"], "precision": ["int8"], "generation": [1.5],
    "format": ["2", [2], -1],
}  # fmt: skip


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in INDEX_JSON.items() for value in values])
def test_index_json_says_what_it_must(index, name, value):
    meta = json.loads((index / "index.json").read_text()) | {name: value}
    (index / "index.json").write_text(json.dumps(meta))
    with pytest.raises(HashretError, match=r"is damaged: .+") as caught:
        open_index(index, "cpu", verify=False)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "../outside"}, {"name": "000001/.."}, {"count": N - 1}, {"codes": N}, {"grouped": False},
        {"grouped": 1},
        {"removed": "removed-000002.npy", "removed_count": 1}, {"removed": "../../x.npy"}, {"files": {}},
        {"files": {"../ids.npy": {"bytes": 1, "sha256": "0" * 64}}},
    ],
)  # fmt: skip
def test_segments_say_what_they_must(index, changes):
    meta = json.loads((index / "index.json").read_text())
    meta["segments"][0] |= changes
    (index / "index.json").write_text(json.dumps(meta))
    with pytest.raises(HashretError, match="is damaged"):
        open_index(index, "cpu", verify=False)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a": ' * 60 + b"1" + b"}" * 60, "nested too deeply"),
        (b'{"a": 1, "a": 2}', "stands twice"),
        (b'{"a": ' + b"9" * 5000 + b"}", "is damaged"),
        (b"\xef\xbb\xbf{}", "BOM"),
        (b'{"a": "\xff"}', "is damaged"),
        (b"[]", "a list, not a JSON object"),
    ],
)
def test_json_that_is_none(tmp_path, content, words):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(HashretError, match=words):
        read_json(tmp_path / "a.json", "file")


def test_json_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.json")
    with pytest.raises(HashretError, match="not a file"):
        read_json(tmp_path / "a.json", "file")


def _link(file, tmp_path):
    del file["ids"]
    file["ids"] = h5py.SoftLink("/values")


def _elsewhere(file, tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["ids"] = np.arange(10)
    del file["ids"]
    file["ids"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/ids")


def _external(file, tmp_path):
    (tmp_path / "raw").write_bytes(bytes(80))
    del file["ids"]
    file.create_dataset("ids", (10,), "i8", external=[(str(tmp_path / "raw"), 0, 80)])


def _replaced(**options):
    def replace(file, tmp_path):
        rows = {"data": file["ids"][()]} if "shape" not in options and "data" not in options else {}
        del file["ids"]
        file.create_dataset("ids", **rows, **options)

    return replace


def _virtual(file, tmp_path):
    layout = h5py.VirtualLayout((10,), "i8")
    layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "ids", (10,))
    del file["ids"]
    file.create_virtual_dataset("ids", layout)


def _group(file, tmp_path):
    del file["ids"]
    file.create_group("ids")


def _attribute(name, value):
    def set_attribute(file, tmp_path):
        file.attrs[name] = value

    return set_attribute


HDF5 = {
    "a soft link": _link,
    "an external link": _elsewhere,
    "external storage": _external,
    "compressed": _replaced(compression="gzip"),
    "chunks": _replaced(chunks=(2,)),
    "a virtual dataset": _virtual,
    "a group": _group,
    "texts": _replaced(shape=(10,), dtype=h5py.string_dtype()),
    "references": _replaced(shape=(10,), dtype=h5py.ref_dtype),
    "floats": _replaced(data=np.arange(10.0)),
    "big endian": _replaced(data=np.arange(10, dtype=">i8")),
    "a single number": _replaced(data=5),
    "rows without storage": _replaced(shape=(2**40,), dtype="i8"),
    "bits as text": _attribute("bits", "24"),
    "bits as a list": _attribute("bits", np.arange(3)),
    "bits beyond all": _attribute("bits", 2**40),
    "a reference to itself": lambda file, _: file.attrs.create("encoder", file.ref, dtype=h5py.ref_dtype),
}


@pytest.mark.parametrize("damage", HDF5)
def test_a_shard_is_what_hashret_writes_and_nothing_else_that_hdf5_can_hold(codes, tmp_path, damage):
    shutil.copy(codes / "codes-00000.h5", tmp_path / "shard.h5")
    with h5py.File(tmp_path / "shard.h5", "r+") as file:
        HDF5[damage](file, tmp_path)
    with pytest.raises(HashretError, match="is damaged") as caught:
        read_shard(tmp_path / "shard.h5", verify=False)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("bits", 0), ("bits", "24"), ("image_size", 10**9), ("classes", "red"), ("width", -1), ("arch", "vgg99"),
        ("head", []), ("gate", 5), ("fingerprint", None), ("attention", 1), ("format", "1"), ("dropout", 2),
    ],
)  # fmt: skip
def test_checkpoint_metadata_says_what_it_must(model, tmp_path, name, value):
    with open(model, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        head = json.loads(file.read(size))
        rest = file.read()
    meta = json.loads(head["__metadata__"]["hashret"]) | {name: value}
    without = json.dumps({key: meta[key] for key in meta if key != name})
    for text in (json.dumps(meta), without, "[" * 99_999, "5"):
        head["__metadata__"]["hashret"] = text
        raw = json.dumps(head).encode()
        (tmp_path / "model.safetensors").write_bytes(len(raw).to_bytes(8, "little") + raw + rest)
        if name not in ("head", "gate", "format", "dropout") or text != without:  # what may be missing
            with pytest.raises(HashretError, match="is damaged"):
                read_meta(tmp_path / "model.safetensors")


@pytest.mark.parametrize("line", [",,,", "; 1 0"])
def test_a_list_has_lines_that_begin_with_a_path(tmp_path, line):
    (tmp_path / "list.txt").write_text(f"photo.png 1 0\n{line}\n")
    with pytest.raises(HashretError, match=r"list.txt:2: a line must be"):
        open_data(f"list:{tmp_path / 'list.txt'}")


def test_a_feature_cache_is_not_written_to_through_a_link(photos, weights, tmp_path):
    options = {"bits": 12, "image_size": 32, "backbone": "vgg11", "weights": weights, "width": 16, "epochs": 1}
    options |= {"batch_size": 8, "workers": 0, "cache": tmp_path / "cache"}
    train(f"folder:{photos}", tmp_path / "a.safetensors", **options)
    [folder] = (tmp_path / "cache" / "features").iterdir()
    for name, content in (("state.u8", b"dear to somebody"), ("info.json", b"{}")):
        before = (folder / name).read_bytes()
        (tmp_path / "victim").write_bytes(content)
        (folder / name).unlink()
        (folder / name).symlink_to(tmp_path / "victim")
        with pytest.raises(HashretError, match="is damaged; remove that folder"):
            train(f"folder:{photos}", tmp_path / "b.safetensors", **options)
        assert (tmp_path / "victim").read_bytes() == content
        (folder / name).unlink()
        (folder / name).write_bytes(before)
    info = json.loads((folder / "info.json").read_text())
    for shape in ([512, True, 1], [1, 1, 1]):  # the latter divides the bytes of all feature maps
        (folder / "info.json").write_text(json.dumps(info | {"shape": shape}))
        with pytest.raises(HashretError, match="is damaged; remove that folder"):
            train(f"folder:{photos}", tmp_path / "b.safetensors", **options)


@pytest.mark.parametrize("name", ["paths.bin", "ids.npy"])
def test_what_is_removed_is_told_by_files_as_they_were_written(index, monkeypatch, name):
    monkeypatch.setattr(opening, "_VERIFY_BYTES", -1)  # as if it were large: no checksums when it is opened
    [file] = index.glob(f"0*/{name}")
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.write_bytes(raw)
    before = (index / "index.json").read_bytes()
    for chosen in ({"gone": True, "yes": True}, {"ids": [3]}, {"paths": ["/photos/7.png"]}):
        with pytest.raises(HashretError, match=f"is damaged: {name} "):
            remove(index, **chosen)
    assert (index / "index.json").read_bytes() == before


@pytest.mark.parametrize("damage", ["a bit", "no epochs", "no module", "a list", "a pipe"])
def test_the_state_of_a_training_is_what_was_saved(photos, weights, tmp_path, monkeypatch, damage):
    class Killed(Exception):
        pass

    def end_epoch(run, *arguments):
        whole(run, *arguments)
        raise Killed

    whole, out = TrainingRun._end_epoch, tmp_path / "model.safetensors"
    options = {"bits": 12, "image_size": 32, "backbone": "vgg11", "weights": weights, "width": 16, "epochs": 2}
    options |= {"batch_size": 8, "workers": 0, "device": "cpu"}
    monkeypatch.setattr(TrainingRun, "_end_epoch", end_epoch)
    with pytest.raises(Killed):
        train(f"folder:{photos}", out, **options)
    monkeypatch.undo()
    path = tmp_path / ".model.safetensors.training" / "state.pt"
    if damage == "a bit":  # of a number in the middle, which torch does not notice
        raw = bytearray(path.read_bytes())
        raw[len(raw) // 2] ^= 4
        path.write_bytes(raw)
    elif damage == "a pipe":
        path.unlink()
        os.mkfifo(path)
    else:
        state = torch.load(path, weights_only=True)
        changed = {"no epochs": state | {"epochs": []}, "no module": {"settings": {}}, "a list": [1]}[damage]
        if isinstance(changed, dict):
            changed.pop("sha256", None)  # as an earlier hashret left it
        torch.save(changed, path)
    with pytest.raises(HashretError, match=r"the unfinished training .* is damaged"):
        train(f"folder:{photos}", out, resume=True, **options)


@pytest.mark.parametrize(
    "content",
    [
        {"state_dict": [1, 2]}, {0: torch.zeros(1)}, {"a": 1}, [1], {}, {"a": torch.zeros(1), "b": [2]},
        {"a": torch.empty(1, device="meta")}, {"a": torch.zeros(1, dtype=torch.complex64)},
        {"a": torch.zeros(2, 2).to_sparse()},
    ],
)  # fmt: skip
def test_weights_are_named_tensors(tmp_path, content):
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(HashretError, match="is not a state dict of tensors"):
        load_backbone(tmp_path / "weights.pth", "vgg11")


def test_nobody_is_advised_to_run_what_is_in_a_pickle(tmp_path):
    torch.save({"a": os.getcwd}, tmp_path / "weights.pth")
    with pytest.raises(HashretError, match="anything but tensors") as caught:
        load_backbone(tmp_path / "weights.pth", "vgg11")
    assert "weights_only" not in str(caught.value)


@pytest.mark.parametrize("name", [".", "", "/", "..", "inside/.."])
def test_a_folder_itself_is_no_name_to_write_to(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "inside").mkdir()
    with pytest.raises(HashretError, match="names the folder itself"):
        check_output(name, True, "index", "index.json")
    with pytest.raises(HashretError, match="names the folder itself"), atomic(name):
        pass
    with pytest.raises(HashretError, match="names the folder itself"):
        check_writable(name)


def test_only_files_are_written_over(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(HashretError, match="something else than a file"), atomic(tmp_path / name) as partial:
            Path(partial).write_text("new")
        assert not (tmp_path / name).is_file()
        with pytest.raises(HashretError, match="something else than a file"):  # before the work, not after it
            check_writable(tmp_path / name)
    assert sorted(os.listdir(tmp_path)) == ["folder", "pipe"]
