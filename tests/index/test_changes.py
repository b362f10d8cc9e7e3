"""A living index: added to, removed from and compacted, it answers as one built of what is left."""

import contextlib
import os
import resource
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hashret.bits import binarize, hamming, pack
from hashret.errors import HashretError
from hashret.files import read_json, write_json
from hashret.index import append, build_index, compact, open_index, relocate, remove
from hashret.index.calibration import calibrate
from hashret.index.paths import below_root, common_root
from hashret.shards import MANIFEST, Shard, encode_paths, shard_name, write_shard

BITS = 24


def make_shards(folder, n, seed, labels=True, encoder="e", paths=None, features=None):
    """A folder of shards as `encode` writes it, of clumped codes."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).random((3, BITS)) < 0.5
    label = rng.integers(0, 3, n)
    values = np.abs((centres[label] ^ (rng.random((n, BITS)) < 0.03)) - rng.random((n, BITS)) * 0.4).astype(np.float32)
    paths = encode_paths(paths or [f"batch{seed}/{i:03d}.png" for i in range(n)])
    shard = Shard(pack(binarize(values)), values, np.arange(n), paths, label if labels else None, fc_features=features)
    folder.mkdir(parents=True)
    write_shard(folder / shard_name(0), shard, bits=BITS, encoder=encoder, image_size=32, first_id=0)
    classes = ["a", "b", "c"] if labels else []
    manifest = {"bits": BITS, "encoder": encoder, "precision": "float32", "image_size": 32, "shards": 1}
    if features is not None:
        manifest["features"] = features.shape[1]
    write_json(folder / MANIFEST, manifest | {"classes": classes, "protocol": None})
    return shard


class Expected:
    """What an index should hold, in plain lists."""

    def __init__(self):
        self.codes, self.values = np.zeros((0, BITS // 8), np.uint8), np.zeros((0, BITS), np.float32)
        self.ids, self.paths, self.next_id = np.zeros(0, int), [], 0

    def add(self, shard):
        self.codes = np.concatenate([self.codes, shard.codes])
        self.values = np.concatenate([self.values, shard.hash_outputs])
        self.ids = np.concatenate([self.ids, self.next_id + shard.ids])
        self.paths += [path.decode() for path in shard.paths]
        self.next_id += len(shard)

    def remove(self, ids):
        keep = ~np.isin(self.ids, ids)
        self.codes, self.values, self.ids = self.codes[keep], self.values[keep], self.ids[keep]
        self.paths = [path for path, kept in zip(self.paths, keep, strict=True) if kept]

    def check(self, index, k=15, candidates=30):
        assert len(index) == len(self.ids)
        assert index.ids[index.alive].tolist() == self.ids.tolist()
        assert [index.path(row) for row in np.flatnonzero(index.alive)] == self.paths
        xq = np.random.default_rng(5).random((4, BITS), np.float32)
        codes = pack(binarize(xq))
        D = hamming(codes, self.codes)
        order = np.argsort(D, axis=1, kind="stable")
        hits = index.search(codes, None, k)
        assert index.ids[hits.positions].tolist() == self.ids[order[:, :k]].tolist()
        assert hits.hamming.tolist() == np.take_along_axis(D, order[:, :k], 1).tolist()
        hits = index.search(codes, xq, k, candidates, "values")
        for q in range(len(xq)):
            some = order[q, : max(k, candidates)]
            euclidean = np.linalg.norm(self.values[some] - xq[q], axis=1)
            assert hits.euclidean[q] == pytest.approx(np.sort(euclidean)[:k], abs=1e-5)
            assert set(index.ids[hits.positions[q]]) <= set(self.ids[some])
        for (_, found, rows), wanted in zip(index.within(codes, 9), D, strict=True):
            inside = np.flatnonzero(wanted <= 9)
            inside = inside[np.argsort(wanted[inside], kind="stable")]
            assert index.ids[rows].tolist() == self.ids[inside].tolist()
            assert found.tolist() == wanted[inside].tolist()


@pytest.fixture
def living(tmp_path):
    """An index of 60 photographs, what it should hold, and a folder for more shards."""
    expected = Expected()
    expected.add(make_shards(tmp_path / "shards", 60, 0))
    build_index(tmp_path / "shards", tmp_path / "index")
    return tmp_path / "index", expected, tmp_path


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.sampled_from(["add", "remove", "remove many", "compact"]), st.integers(0, 99)), max_size=6)
)
def test_changes_in_any_order(tmp_path_factory, changes):
    where = tmp_path_factory.mktemp("living")
    expected = Expected()
    expected.add(make_shards(where / "0", 40, 0))
    build_index(where / "0", where / "index")
    for number, (change, seed) in enumerate(changes, 1):
        if change == "add":
            shard = make_shards(where / str(number), 1 + seed % 30, number)
            assert append(where / "index", where / str(number)) == len(shard)
            expected.add(shard)
        elif change == "compact":
            if len(expected.ids):
                assert compact(where / "index").count == len(expected.ids)
        else:
            share = 0.05 if change == "remove" else 0.6
            gone = expected.ids[np.random.default_rng(seed).random(len(expected.ids)) < share]
            assert remove(where / "index", gone).count == len(gone)
            expected.remove(gone)
        expected.check(open_index(where / "index", "cpu"))


@pytest.mark.parametrize(("most", "k"), [(3, 15), (25, 15), (20, 39), (20, 100)])
def test_many_removed_photographs_are_passed_over_or_left_out(living, monkeypatch, most, k):
    from hashret.index import segment

    index, expected, _ = living
    monkeypatch.setattr(segment, "_OVERFETCH", most)
    remove(index, range(10, 31))
    expected.remove(range(10, 31))
    expected.check(open_index(index, "cpu"), k)


def test_a_segment_without_the_numbers_of_its_codes_reads_as_before(tmp_path):
    make_shards(tmp_path / "shards", 5000, 0)
    meta = build_index(tmp_path / "shards", tmp_path / "index").meta
    codes = open_index(tmp_path / "index", "cpu").codes()
    assert meta["segments"][0]["grouped"]
    (tmp_path / "index" / "000001" / "numbers.npy").unlink()
    del meta["segments"][0]["files"]["numbers.npy"]
    write_json(tmp_path / "index" / "index.json", meta)
    opened = open_index(tmp_path / "index", "cpu")
    assert np.array_equal(opened.codes(), codes)
    assert np.array_equal(opened.code(77), codes[77])


def test_ids_stay_and_are_never_given_again(living):
    index, _, where = living
    make_shards(where / "more", 5, 1)
    remove(index, [59])
    append(index, where / "more")
    assert open_index(index, "cpu").ids[-6:].tolist() == [59, 60, 61, 62, 63, 64]
    remove(index, range(60, 65))
    compact(index)
    append(index, where / "more")
    assert open_index(index, "cpu").ids[-5:].tolist() == [65, 66, 67, 68, 69]


def test_an_open_index_keeps_its_view(living):
    index, expected, where = living
    before = open_index(index, "cpu")
    make_shards(where / "more", 30, 1)
    append(index, where / "more")
    remove(index, range(20))
    compact(index)
    expected.check(before)
    assert len(open_index(index, "cpu")) == 70
    assert [path.name for path in sorted(index.iterdir())] == ["000004", "index.json"]


def test_remove_by_path(living):
    index, expected, where = living
    make_shards(where / "more", 8, 1)
    append(index, where / "more")
    assert remove(index, paths=["batch1/*", "batch0/003.png"]).count == 9
    expected.remove([3])
    expected.check(open_index(index, "cpu"))
    assert "batch0/003.png" not in expected.paths


@pytest.mark.parametrize(
    ("what", "message"),
    [({"ids": [1, 99]}, "no photograph with id 99"), ({"paths": ["batch0/000.png", "no/*"]}, "no/")],
)
def test_what_is_not_there_removes_nothing(living, what, message):
    index, expected, _ = living
    with pytest.raises(HashretError, match=message):
        remove(index, **what)
    expected.check(open_index(index, "cpu"))
    assert read_json(index / "index.json", "index")["generation"] == 1


def test_all_removed(living):
    index, _, where = living
    remove(index, range(60))
    opened = open_index(index, "cpu")
    assert len(opened) == 0
    assert opened.search(np.zeros((2, 3), np.uint8), np.zeros((2, BITS), np.float32)).positions.shape == (2, 0)
    with pytest.raises(HashretError, match="every photograph"):
        compact(index)
    make_shards(where / "more", 8, 1)
    append(index, where / "more")
    assert compact(index).count == 8


def test_shards_of_another_encoder_are_not_added(living):
    index, expected, where = living
    make_shards(where / "more", 5, 1, encoder="other")
    with pytest.raises(HashretError, match="another encoder"):
        append(index, where / "more")
    expected.check(open_index(index, "cpu"))


def test_photographs_without_labels_join_those_with(living):
    index, _, where = living
    make_shards(where / "more", 5, 1, labels=False)
    append(index, where / "more")
    for _ in range(2):
        opened = open_index(index, "cpu")
        assert opened.labels[60:].tolist() == [-1] * 5
        assert opened.label(60) == ""
        assert opened.label(0) in "abc"
        compact(index)


CHANGES = {
    "append": lambda where: append(where / "index", where / "more"),
    "remove": lambda where: remove(where / "index", range(0, 60, 7)),
    "compact": lambda where: compact(where / "index"),
    "overwrite": lambda where: build_index(where / "more", where / "index", overwrite=True),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_kill_at_any_step_leaves_the_old_state_or_the_new(living, change):
    """A child process ends itself at its n-th touch of a file, for every n until it gets through."""
    index, expected, where = living
    new = Expected()
    if change != "overwrite":
        new.add(make_shards(where / "same", 60, 0))
    more = make_shards(where / "more", 20, 1)
    if change in ("append", "overwrite"):
        new.add(more)
    elif change == "remove":
        new.remove(range(0, 60, 7))
    else:
        remove(index, range(0, 60, 7))
        expected.remove(range(0, 60, 7))
        new.remove(range(0, 60, 7))
    generation = read_json(index / "index.json", "index")["generation"]
    steps = 0
    while True:
        steps += 1
        child = os.fork()
        if not child:
            _end_at_touch(steps)
            CHANGES[change](where)
            os._exit(0)
        ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        opened = open_index(index, "cpu", verify=True)
        if opened.meta["generation"] != generation:
            new.check(opened)
            break
        assert ended == 9
        expected.check(opened)
    assert steps > 6
    CHANGES["append"](where)  # and the next change finds its way
    CHANGES["compact"](where)
    assert not [path for path in index.iterdir() if path.name.startswith(".")]
    assert len([path for path in index.iterdir() if path.is_dir()]) == 1


def _end_at_touch(steps):
    left = [steps]

    def hook(event, arguments):
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if writes or event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "shutil.rmtree"):
            left[0] -= 1
            if not left[0]:
                os._exit(9)

    sys.addaudithook(hook)


def test_what_is_not_hashrets_stays(living):
    index, expected, where = living
    mine = [index / name for name in ("notes/a.txt", "2024/mine.jpg", "202401/labels.npy", "000001/mine.jpg", "b.txt")]
    mine += [index / ".other.1.tmp"]
    for file in mine:
        file.parent.mkdir(exist_ok=True)
        file.write_text("mine")
    remove(index, [9])
    make_shards(where / "more", 20, 1)
    append(index, where / "more")
    compact(index)
    expected.remove([9])
    assert len(open_index(index, "cpu")) == 79
    build_index(where / "shards", index, overwrite=True)
    assert len(open_index(index, "cpu", verify=True)) == 60
    assert [file.read_text() for file in mine] == ["mine"] * len(mine)
    hidden = {file.name for file in index.iterdir()} - {file.relative_to(index).parts[0] for file in mine}
    assert len(hidden) == 2, "index.json and its segment"


def test_nothing_is_changed_through_a_link_to_a_segment(living):
    index, _, where = living
    elsewhere = where / "elsewhere"
    (index / "000001").rename(elsewhere)
    (index / "000001").symlink_to(elsewhere)
    (elsewhere / "removed-000009.npy").write_bytes(b"mine")
    before = sorted(elsewhere.iterdir())
    open_index(index)  # to read it is all right
    for change in (lambda: remove(index, [3]), lambda: compact(index)):
        with pytest.raises(HashretError, match="is a link, and nothing outside the index is changed"):
            change()
    assert sorted(elsewhere.iterdir()) == before


@pytest.mark.parametrize("name", ["../outside", "/tmp/outside", "..", "00001", "000001/../../outside", "000001\n"])
@pytest.mark.parametrize("what", ["segment", "file", "removed"])
def test_names_of_an_index_are_names(living, name, what):
    index, _, where = living
    remove(index, [9])
    (index / "000001").rename(where / "outside")
    (index / "000001").symlink_to(where / "outside")
    meta = read_json(index / "index.json", "index")
    [segment] = meta["segments"]
    if what == "segment":
        segment["name"] = name
    elif what == "file":
        segment["files"][name] = segment["files"].pop("labels.npy")
    else:
        segment["removed"] = name
    write_json(index / "index.json", meta)
    before = sorted((where / "outside").iterdir())
    for verb in (open_index, compact, lambda folder: remove(folder, [3])):
        with pytest.raises(HashretError, match=r"is damaged: .* is no file of an index; build it again"):
            verb(index)
    assert sorted((where / "outside").iterdir()) == before


def test_an_index_whose_json_is_damaged_is_built_again(living):
    index, expected, where = living
    (index / "index.json").write_text("{")
    build_index(where / "shards", index, overwrite=True)
    expected.check(open_index(index, "cpu", verify=True))
    assert [path.name for path in sorted(index.iterdir())] == ["000002", "index.json"]


def test_an_index_behind_a_link_stays_behind_it(living):
    index, expected, where = living
    index.rename(where / "elsewhere")
    index.symlink_to(where / "elsewhere")
    build_index(where / "shards", index, overwrite=True)
    assert index.is_symlink()
    expected.check(open_index(where / "elsewhere", "cpu", verify=True))


def test_everything_is_on_the_disk_before_it_counts(living, monkeypatch):
    index, _, where = living
    flushed, fsync, replace = set(), os.fsync, os.replace

    def note(descriptor):
        flushed.add(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    def look(source, target):
        if target.name == "index.json":
            [segment] = [path for path in index.iterdir() if path.name == "000002"]
            names = {Path(path).name for path in flushed}
            assert names >= {path.name for path in segment.iterdir()}
            assert names >= {Path(source).name}
            assert str(index) in flushed
            flushed.clear()
        replace(source, target)

    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(os, "replace", look)
    build_index(where / "shards", index, overwrite=True)
    assert flushed == {str(index)}


@contextlib.contextmanager
def disk_is_full_at(size):
    """A limit on file sizes stands in for the full disk: both make a write fail midway."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_no_file_of_an_index_is_short_after_a_full_disk(tmp_path, capfd):
    make_shards(tmp_path / "codes", 1100, 1)
    index = tmp_path / "index"
    build_index(tmp_path / "codes", index)
    for size in sorted({file.stat().st_size for file in (index / "000001").iterdir()}):  # short by a byte, each of them
        with disk_is_full_at(size - 1), pytest.raises(HashretError, match="cannot write"):
            build_index(tmp_path / "codes", index, overwrite=True)
    with disk_is_full_at(8192), pytest.raises(HashretError, match="it is as it was"):
        remove(index, range(1020))  # whose numbers take 128 + 8 * 1020 bytes
    assert len(open_index(index, "cpu", verify=True)) == 1100
    assert sorted(os.listdir(index)) == ["000001", "index.json"]
    assert capfd.readouterr().err == ""


def test_what_is_in_the_index_meanwhile_is_not_added_again(living):
    index, expected, where = living
    shard = make_shards(where / "more", 20, 1)
    assert append(index, [where / "more", where / "shards"], new_only=True) == 20
    assert append(index, where / "more", new_only=True) == 0
    expected.add(shard)
    expected.check(open_index(index, "cpu"))
    remove(index, [65])
    assert append(index, where / "more", new_only=True) == 1


def test_two_processes_add_one_after_the_other(living):
    index, _, where = living
    shards = [make_shards(where / f"more{number}", 10, number) for number in (1, 2, 3)]
    children = []
    for number in (1, 2, 3):
        child = os.fork()
        if not child:
            append(index, where / f"more{number}")
            os._exit(0)
        children.append(child)
    while children:  # readers meanwhile always see a whole state
        assert len(open_index(index, "cpu")) in (60, 70, 80, 90)
        children = [child for child in children if os.waitpid(child, os.WNOHANG)[0] == 0]
    opened = open_index(index, "cpu", verify=True)
    assert len(opened) == 60 + sum(map(len, shards))
    assert opened.ids[:].tolist() == list(range(90))


@pytest.mark.parametrize("removed", [False, True])
def test_search_among_some(living, removed):
    index, expected, where = living
    shard = make_shards(where / "more", 30, 1)
    append(index, where / "more")
    expected.add(shard)
    if removed:
        remove(index, [3, 70])
        expected.remove([3, 70])
    opened = open_index(index, "cpu")
    labels = np.asarray(opened.labels)
    for wanted, selection in [
        (labels == 1, opened.select(label="b")),
        (labels != 1, opened.select(label=["a", "c"])),
        (np.arange(90) >= 60, opened.select(path="batch1/*")),
        (np.isin(np.arange(90), [5, 66]), opened.select(ids=[5, 66, 1000])),
        ((labels == 1) & (np.arange(90) < 60), opened.select(label="b", path="batch0/*")),
    ]:
        rows = np.flatnonzero(wanted & opened.alive)
        assert np.flatnonzero(selection.mask).tolist() == rows.tolist()
        xq = np.random.default_rng(1).random((3, BITS), np.float32)
        D = hamming(pack(binarize(xq)), opened.codes()[rows])
        order = np.argsort(D, axis=1, kind="stable")[:, :8]
        assert opened.search(pack(binarize(xq)), None, 8, among=selection).positions.tolist() == rows[order].tolist()
        hits = opened.search(pack(binarize(xq)), xq, 8, 1000, "values", selection)
        euclidean = np.linalg.norm(opened.hash_outputs[rows][None] - xq[:, None], axis=2)
        assert hits.euclidean == pytest.approx(np.sort(euclidean, axis=1)[:, :8], abs=1e-5)
        for (_, found, inside), distances in zip(opened.within(pack(binarize(xq)), 9, selection), D, strict=True):
            assert sorted(inside) == rows[distances <= 9].tolist()
            assert (np.diff(found) >= 0).all()
    with pytest.raises(HashretError, match="no class 'd'"):
        opened.select(label="d")


def test_a_path_that_is_there_is_that_path_and_no_pattern(tmp_path):
    names = ["/a/p/IMG[1].png", "/a/p/IMG1.png", "/b/p/IMG[1].png", "/a/xp/IMG1.png", "/a/what?.png", "/a/whats.png"]
    shard = make_shards(tmp_path / "codes", len(names), 0)
    shard.paths = encode_paths(names)
    write_shard(tmp_path / "codes" / shard_name(0), shard, bits=BITS, encoder="e", image_size=32, first_id=0)
    build_index(tmp_path / "codes", tmp_path / "index")

    def of(index, *patterns, **wanted):
        mask = index.select(path=list(patterns), **wanted).mask
        return [index.path(row) for row in np.flatnonzero(mask)]

    index = open_index(tmp_path / "index", "cpu")
    assert of(index, "p/IMG[1].png") == ["/a/p/IMG[1].png", "/b/p/IMG[1].png"]
    assert of(index, "/a/p/IMG[1].png") == ["/a/p/IMG[1].png"]
    assert of(index, "p/IMG1.png", "what?.png") == ["/a/p/IMG1.png", "/a/what?.png"]
    assert of(index, "p/IMG[12].png") == ["/a/p/IMG1.png"]
    assert of(index, "p/IMG[1].png", ids=[1]) == []
    assert of(index, "") == []
    assert remove(tmp_path / "index", paths=["p/IMG[1].png"]).count == 2
    index = open_index(tmp_path / "index", "cpu")
    assert of(index, "p/IMG[1].png") == ["/a/p/IMG1.png"]  # gone, and so a pattern again
    with pytest.raises(HashretError, match=r"no photograph g\.png in the index"):
        remove(tmp_path / "index", paths=["p/IMG1.png", "g.png"])
    assert len(open_index(tmp_path / "index")) == 4


def test_a_pattern_matches_no_name_of_a_folder_above_the_photographs(tmp_path):
    names = ["/tmp/newcomer/zoo3/a.png", "/tmp/newcomer/zoo3/new/b.png", "/tmp/newcomer/zoo3/red/newt.png"]
    shard = make_shards(tmp_path / "codes", len(names), 0)
    shard.paths = encode_paths(names)
    write_shard(tmp_path / "codes" / shard_name(0), shard, bits=BITS, encoder="e", image_size=32, first_id=0)
    build_index(tmp_path / "codes", tmp_path / "index")
    index = open_index(tmp_path / "index", "cpu")
    for pattern, rows in (
        ("new*", [1, 2]), ("zoo*", []), ("newcomer/*", []), ("*/newcomer/*", []), ("new*/zoo3/*", []), ("t?p/*", []),
        ("*", [0, 1, 2]), ("*/*", [0, 1, 2]), ("?.png", [0, 1]), ("*/new/*", [1]), ("r*/*.png", [2]),
        ("zoo3/red/*", [2]), ("newcomer/zoo3/*", [0, 1, 2]), ("/tmp/new*/zoo3/?.png", [0]), ("/tmp/*", [0, 1, 2]),
    ):  # fmt: skip
        assert np.flatnonzero(index.select(path=pattern).mask).tolist() == rows, pattern
    with pytest.raises(HashretError, match=r"no photograph zoo\* in the index"):
        remove(tmp_path / "index", paths=["zoo*"])


def test_the_folder_that_patterns_begin_below():
    assert common_root(["/a/b", "/a/b/c"], "/a") == "/a"  # of which the index knows
    assert common_root(["/a/b", "/a/b/c"]) == "/a/b"
    assert common_root(["/a/b", "/ab"], "/a") == "/"
    assert common_root(["/a/b", ""]) is None  # a name that is no whole path
    assert common_root([]) is None
    assert below_root("b[1].png", "/a[2]/") == ["/a[[]2]/b[1].png", "/a[[]2]/*/b[1].png"]
    assert below_root("new*", None) == ["new*"]


def test_a_file_that_is_here_is_that_file_and_no_other(tmp_path, monkeypatch):
    """However it is written, and also once it was removed from the index."""
    names = [f"{tmp_path}/p/IMG[1].png", f"{tmp_path}/p/IMG1.png", "/elsewhere/p/IMG[1].png", f"{tmp_path}/IMG1.png"]
    shard = make_shards(tmp_path / "codes", len(names), 0)
    shard.paths = encode_paths(names)
    write_shard(tmp_path / "codes" / shard_name(0), shard, bits=BITS, encoder="e", image_size=32, first_id=0)
    build_index(tmp_path / "codes", tmp_path / "index")
    (tmp_path / "p").mkdir()
    for name in (names[0], names[1], names[3]):
        Path(name).touch()
    monkeypatch.chdir(tmp_path)
    index = open_index("index", "cpu")
    for text, rows in (
        ("p/IMG[1].png", [0]), ("./p/IMG[1].png", [0]), ("p/../p/IMG1.png", [1]), ("IMG1.png", [3]), ("./p/*", [0, 1]),
    ):  # fmt: skip
        assert np.flatnonzero(index.select(path=text).mask).tolist() == rows
    assert remove("index", paths=["p/IMG[1].png"]).count == 1
    with pytest.raises(HashretError, match=r"no photograph p/IMG\[1\]\.png in the index"):
        remove("index", paths=["p/IMG[1].png"])


def test_an_index_without_values_reranks_by_codes(living):
    _, expected, where = living
    build_index(where / "shards", where / "small", values=False)
    opened, full = open_index(where / "small", "cpu"), open_index(where / "index", "cpu")
    assert opened.hash_outputs is None
    xq = np.random.default_rng(1).random((3, BITS), np.float32)
    codes = pack(binarize(xq))
    with pytest.raises(HashretError, match="asymmetric"):
        opened.search(codes, xq)
    hits = opened.search(codes, xq, 8, rerank_by="asymmetric")
    assert hits.positions.tolist() == full.search(codes, xq, 8, rerank_by="asymmetric").positions.tolist()
    bits = np.unpackbits(expected.codes, axis=1)[:, :BITS]
    wanted = np.sort(np.linalg.norm(bits[None] - xq[:, None], axis=2), axis=1)[:, :8]
    assert hits.euclidean == pytest.approx(wanted, abs=1e-5)
    make_shards(where / "more", 8, 1)
    append(where / "small", where / "more")
    assert open_index(where / "small", "cpu").hash_outputs is None


def test_calibrated_candidates(living):
    index, _, _ = living
    opened = open_index(index, "cpu")
    found = opened.calibrate(k=5, recall=0.9)
    assert found.recall >= 0.9
    for choice, by in (("auto", "directions"), ("values", "values")):
        wanted = calibrate(opened.segments[0].stage, opened.hash_outputs, 5, 0.9, rerank_by=by)
        assert opened.calibrate(5, 0.9, rerank_by=choice) == wanted
    assert 5 <= found.candidates <= 60
    remove(index, [1])
    with pytest.raises(HashretError, match="hashret compact"):
        open_index(index, "cpu").calibrate()


def test_an_index_of_an_earlier_format(living):
    index, _, _ = living
    meta = read_json(index / "index.json", "index")
    write_json(index / "index.json", meta | {"format": 1})
    with pytest.raises(HashretError, match="build-index again"):
        open_index(index)
    write_json(index / "index.json", meta | {"format": 99})
    with pytest.raises(HashretError, match="upgrade"):
        open_index(index)


@pytest.mark.parametrize(
    "types", [("uint8", "float32"), ("float32", "float16"), ("uint8", "int8"), ("int8", "float16")]
)
@pytest.mark.parametrize("change", ["build", "append", "compact", "relocate"])
def test_vectors_of_several_types_become_one_that_has_all_of_their_numbers(tmp_path, types, change):
    numbers = [np.arange(40).reshape(10, 4) + 88 - 200 * (kind == "int8") for kind in types]
    folders = [tmp_path / "a", tmp_path / "b"]
    for seed, (folder, kind, values) in enumerate(zip(folders, types, numbers, strict=True)):
        (tmp_path / f"photos{seed}").mkdir()
        names = [str(tmp_path / f"photos{seed}" / f"{row}.png") for row in range(10)]
        Path(names[0]).touch()
        make_shards(folder, 10, seed, paths=names, features=values.astype(kind))
    where = tmp_path / "index"
    if change == "build":
        build_index(folders, where)
    else:
        build_index(folders[0], where)
        append(where, folders[1])
    if change == "compact":
        compact(where)
    if change == "relocate":
        relocate(where, tmp_path)
    opened = open_index(where, "cpu")
    assert np.array_equal(opened.fc_features[np.arange(20)], np.concatenate(numbers).astype(np.float32))
    assert open_index(where, "cpu", verify=True).fc_features[:].dtype.itemsize <= 4


@pytest.fixture
def pictures(tmp_path):
    """A folder of three photographs with an index of its own, which has paths from that folder on."""
    place = tmp_path / "home" / "Pictures"
    names = [str(place / f"{number}.png") for number in range(3)]
    make_shards(tmp_path / "codes", 3, 0, paths=names)
    build_index(tmp_path / "codes", place / ".hashret" / "index")
    for name in names:
        Path(name).touch()
    relocate(place / ".hashret" / "index", place)
    return place


def test_an_index_that_is_named_by_a_link_has_its_photographs_where_they_are(pictures, tmp_path):
    link = tmp_path / "index"
    link.symlink_to(pictures / ".hashret" / "index")
    assert open_index(link, "cpu").path(0) == str(pictures / "0.png")
    assert remove(link, gone=True).count == 0
    (pictures / "2.png").unlink()
    assert remove(link, gone=True).count == 1
    relocate(link, pictures)
    assert open_index(pictures / ".hashret" / "index", "cpu").path(0) == str(pictures / "0.png")


def test_an_index_that_is_linked_to_from_its_photographs_has_them_there(pictures, tmp_path):
    """As where the folder .hashret is on another disk."""
    (pictures / ".hashret").rename(tmp_path / "elsewhere")
    (pictures / ".hashret").symlink_to(tmp_path / "elsewhere")
    index = pictures / ".hashret" / "index"
    assert open_index(index, "cpu").path(0) == str(pictures / "0.png")
    assert remove(index, gone=True).count == 0
    (tmp_path / "by-link").symlink_to(tmp_path / "home")
    assert (
        open_index(tmp_path / "by-link" / "Pictures" / ".hashret" / "index", "cpu").path(1).endswith("/Pictures/1.png")
    )


def test_only_photographs_that_are_there_say_where_an_index_is_relocated_from(tmp_path):
    place = tmp_path / "photos"
    place.mkdir()
    make_shards(tmp_path / "a", 5, 0, paths=[str(place / f"{number}.png") for number in range(5)])
    make_shards(tmp_path / "b", 5, 1, paths=[f"/nowhere/{number}.png" for number in range(5)])
    build_index([tmp_path / "a", tmp_path / "b"], tmp_path / "index")
    (place / "1.png").touch()
    remove(tmp_path / "index", range(5, 10))
    assert relocate(tmp_path / "index", place).count == 5
    remove(tmp_path / "index", range(5))
    before = (tmp_path / "index" / "index.json").read_bytes()
    with pytest.raises(HashretError, match="has no photographs, whose place could be told"):
        relocate(tmp_path / "index", place)
    assert (tmp_path / "index" / "index.json").read_bytes() == before


def test_a_pattern_from_the_working_folder_takes_its_name_literally(tmp_path, monkeypatch):
    here, other = tmp_path / "[2020] trip", tmp_path / "2 trip"
    here.mkdir()
    make_shards(tmp_path / "codes", 2, 0, paths=[str(here / "a.png"), str(other / "a.png")])
    build_index(tmp_path / "codes", tmp_path / "index")
    monkeypatch.chdir(here)
    for pattern in ("./*.png", ".//?.png", "../[[]2020] trip/*"):
        assert remove(tmp_path / "index", paths=pattern, dry_run=True).would_remove == (str(here / "a.png"),)


def test_what_no_id_or_path_can_be_is_refused_and_removes_nothing(tmp_path):
    make_shards(tmp_path / "codes", 10, 0, paths=[f"/p/{number}.png" for number in range(10)])
    build_index(tmp_path / "codes", tmp_path / "index")
    opened = open_index(tmp_path / "index", "cpu")
    for ids in ([1.7], ["1"], [2**70], [2**63], [True], np.array([1.0])):
        for use in (lambda ids: remove(tmp_path / "index", ids), opened.positions):
            with pytest.raises(HashretError, match="an id is a whole number from 0"):
                use(ids)
    assert remove(tmp_path / "index", paths="/p/0.png").count == 1
    assert remove(tmp_path / "index", paths=[Path("/p/1.png")]).count == 1
    assert len(opened.select(path=Path("/p/2.png"))) == 1
    assert [len(D) for _, D, _ in opened.within(opened.codes_at(np.arange(2)), 2**40)] == [10, 10]


def test_rows_of_several_segments_are_those_of_one_array(tmp_path):
    for number in range(2):
        make_shards(tmp_path / str(number), 5, number)
    build_index(tmp_path / "0", tmp_path / "index")
    append(tmp_path / "index", tmp_path / "1")
    ids = open_index(tmp_path / "index", "cpu").ids
    assert ids[np.array([-1, 0, -10])].tolist() == [9, 0, 0]
    for rows in ([10], [-11], [3, 99]):
        with pytest.raises(IndexError):
            ids[np.array(rows)]
