"""An index folder, a collection in Milvus and one in PostgreSQL answer alike, and as brute force does."""

import os
import re
import signal

import extend.memory_engine
import numpy as np
import pytest
from helpers import start
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hashret.addresses import KINDS, masked_line, parse
from hashret.bits import binarize, hamming, pack
from hashret.engines import EngineError, export, exporting
from hashret.engines.engine import Filter, connect
from hashret.engines.postgres import Postgres
from hashret.engines.text import from_text, to_text
from hashret.errors import HashretError
from hashret.files import write_json
from hashret.index import append, build_index, compact, open_index, relocate, remove
from hashret.index.paths import below_root, path_matches
from hashret.opening import open_database
from hashret.shards import MANIFEST, Shard, encode_paths, shard_name, write_shard

ENGINES = tuple(KINDS)  # those of hashret, and one that is registered from outside
OTHERS_RUN = tuple(name for name in ENGINES if name != extend.memory_engine.KIND.name)  # in a process of their own
CLASSES = ["a cat", "dog", "it's"]
ODD = [
    "100%.png",
    "a_b.png",
    "axb.png",
    "AXB.png",  # another name: patterns tell capital letters from small ones
    "back\\slash.png",
    "é.png",
    "[1].png",
    "1.png",
    "q'\".png",
    "new\nline.png",
    "\udcff.png",
    "\uef80.png",
    "?*.png",
]


def make_shards(folder, n, bits, seed, several=False, odd=()):
    """Shards of clumped codes, so that many are equal, with labels, of which some are unknown."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).random((4, bits)) < 0.5
    group = rng.integers(0, 4, n)
    values = np.abs((centres[group] ^ (rng.random((n, bits)) < 0.02)) - rng.random((n, bits)) * 0.4)
    values = values.astype(np.float32)
    labels = np.eye(4, 3, dtype=np.uint8)[group] | (rng.random((n, 3)) < 0.2) if several else group - 1
    paths = encode_paths([*odd, *(f"/p/batch{seed}/{i:03d}.png" for i in range(n - len(odd)))])
    folder.mkdir(parents=True)
    shard = Shard(pack(binarize(values)), values, np.arange(n), paths, labels)
    write_shard(folder / shard_name(0), shard, bits=bits, encoder="e", image_size=32, first_id=0)
    manifest = {"bits": bits, "encoder": "e", "precision": "float32", "image_size": 32, "shards": 1}
    write_json(folder / MANIFEST, manifest | {"classes": CLASSES, "protocol": None})
    return folder


def make_index(folder, bits, several=False, odd=ODD):
    """An index of two segments with photographs removed from both."""
    build_index(make_shards(folder / "0", 150, bits, 0, several, odd), folder / "index")
    append(folder / "index", make_shards(folder / "1", 60, bits, 1, several))
    remove(folder / "index", [20, 21, 22, 90, 149, 150, 180, 209])
    return folder / "index"


@pytest.fixture(scope="module", params=[12, 24, 48])
def index(request, tmp_path_factory):
    """Folder of an index; in that of 24 bits photographs have several labels, in that of 12 codes are grouped."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == 12:
            patch.setattr("hashret.index.distinct._FEW", 0)
        folder = make_index(tmp_path_factory.mktemp("index"), request.param, several=request.param == 24)
    assert open_index(folder, "cpu").segments[0].meta["grouped"] == (request.param == 12)
    return folder


@pytest.fixture(scope="module", params=("folder", *ENGINES))
def database(request, index):
    """The index opened, or the copy of it in an engine."""
    if request.param == "folder":
        return open_database(index, "cpu")
    name = f"{request.getfixturevalue(request.param)}#conformance"
    report = export(index, name, overwrite=True)
    assert (report.count, report.written, report.recall) == (202, 202, None)
    return open_database(name)


class Plain:
    """The photographs of an index in plain arrays, and brute force over them."""

    def __init__(self, folder):
        found = open_index(folder, "cpu")
        rows = np.flatnonzero(found.alive)
        self.ids, self.codes, self.values = found.ids[rows], found.codes()[rows], found.hash_outputs[rows]
        self.root = found.common_root
        self.paths, self.labels = [found.path(row) for row in rows], [found.label(row) for row in rows]

    def order(self, code, keep=slice(None)):
        """Distances and ids by (distance, id), of those kept."""
        D, ids = hamming(code[None], self.codes)[0][keep], self.ids[keep]
        order = np.lexsort((ids, D))
        return D[order], ids[order]

    def queries(self, n=5):
        """Values between those of the photographs, and one of them."""
        rng = np.random.default_rng(4)
        values = np.clip(
            self.values[rng.choice(len(self.ids), n)] + rng.normal(0, 0.2, (n, self.values.shape[1])), 0, 1
        )
        return np.concatenate([values, self.values[7:8], self.values[7:8]]).astype(np.float32)


@pytest.fixture(scope="module")
def plain(index):
    return Plain(index)


def ids_of(database, rows):
    return np.array([item.id for item in database.items(rows.ravel().tolist())], int).reshape(rows.shape)


def check_nearest(database, plain, k, keep=slice(None), among=None):
    codes = pack(binarize(plain.queries()))
    D, rows = database.nearest(codes, k, among)
    count = len(plain.ids[keep])
    assert D.shape == rows.shape == (len(codes), min(k, count))
    assert (D.dtype, rows.dtype) == (np.int32, np.int64)
    for query, code in enumerate(codes):
        wanted, ids = plain.order(code, keep)
        assert D[query].tolist() == wanted[:k].tolist()
        assert ids_of(database, rows[query]).tolist() == ids[:k].tolist()


@pytest.mark.parametrize("k", [1, 2, 30, 199, 202, 1000])
def test_the_nearest_are_those_of_brute_force_with_the_least_ids_where_codes_tie(database, plain, k):
    check_nearest(database, plain, k)


def test_meta_and_length(database, plain, index):
    meta = open_index(index, "cpu").meta
    assert len(database) == database.meta["count"] == 202
    for name in ("bits", "encoder", "precision", "image_size", "classes", "protocol", "generation"):
        assert database.meta[name] == meta[name]
    assert database.has_hash_outputs


def test_all_within_a_radius(database, plain):
    codes = pack(binarize(plain.queries()))
    for radius in (0, 3, plain.values.shape[1]):
        for (query, D, rows), code in zip(database.within(codes, radius), codes, strict=True):
            wanted, ids = plain.order(code)
            inside = wanted <= radius
            assert D.tolist() == wanted[inside].tolist()
            assert ids_of(database, rows).tolist() == ids[inside].tolist(), query
    with pytest.raises(HashretError, match="number of bits"):
        list(database.within(codes, -1))


FILTERS = {
    "label": ({"label": "dog"}, lambda id, path, label: "dog" in label),
    "labels": ({"label": ["a cat", "it's"]}, lambda id, path, label: "a cat" in label or "it's" in label),
    "ids": ({"ids": range(10, 100, 3)}, lambda id, path, label: id in range(10, 100, 3)),
    "removed": ({"ids": [20, 21, 5000]}, lambda id, path, label: False),
    "no ids": ({"ids": []}, lambda id, path, label: False),
    "path": ({"path": "batch1/*"}, lambda id, path, label: "/batch1/" in path),
    "paths": ({"path": ["0?7.png", "*1.png"]}, lambda id, path, label: bool(re.search(r"(/0.7|1)\.png$", path))),
    "everything": ({"path": "*"}, lambda id, path, label: True),
    "all": (
        {"label": "dog", "path": "batch0/*", "ids": range(80)},
        lambda id, path, label: "dog" in label and "/batch0/" in path and id < 80,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FILTERS)
def test_searching_among_some(database, plain, name):
    wanted, rule = FILTERS[name]
    among = database.select(**wanted)
    keep = np.array([rule(*row) for row in zip(plain.ids, plain.paths, plain.labels, strict=True)])
    assert len(among) == keep.sum()
    for k in (3, 500):
        check_nearest(database, plain, k, keep, among)
    codes = pack(binarize(plain.queries()))
    for (_, D, rows), code in zip(database.within(codes, 3, among), codes, strict=True):
        distances, ids = plain.order(code, keep)
        assert ids_of(database, rows).tolist() == ids[distances <= 3].tolist()
        assert D.tolist() == distances[distances <= 3].tolist()


def test_no_such_class(database):
    with pytest.raises(HashretError, match="no class 'cow' in this index; its classes: a cat, dog, it's"):
        database.select(label="cow")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pattern=st.one_of(st.sampled_from(ODD), st.text("*?[]!-1ab_x%\\é.png'\"/", min_size=1, max_size=8)))
def test_path_patterns(database, plain, pattern):
    def wanted(pattern):
        named = [path == pattern or path.endswith("/" + pattern) for path in plain.paths]
        patterns = below_root(pattern, plain.root)
        matched = [any(path_matches(path, one) for one in patterns) for path in plain.paths]
        return np.array(named if any(named) else matched)

    assert len(database.select(path=pattern)) == wanted(pattern).sum()
    assert len(database.select(path=[pattern, "[1].png"])) == (wanted(pattern) | wanted("[1].png")).sum()


@pytest.mark.parametrize("kind", ENGINES)
def test_patterns_begin_below_the_folder_of_all_photographs(kind, request, tmp_path):
    index = make_index(tmp_path, 24, odd=())
    name = f"{request.getfixturevalue(kind)}#below"
    export(index, name, overwrite=True)
    folder, database = open_database(index, "cpu"), open_database(name)
    assert folder.common_root == "/p"
    for pattern in ("p*", "?/*", "[p]*", "/q*"):
        assert len(folder.select(path=pattern)) == len(database.select(path=pattern)) == 0, pattern
    for pattern in ("batch1/*", "*/batch1/*", "p/batch1/*", "/p/batch1/*", "b*1/*", "/?/batch1/*"):
        assert len(folder.select(path=pattern)) == len(database.select(path=pattern)) == 57, pattern
    assert len(folder.select(path="*")) == len(database.select(path="*")) == 202


@pytest.mark.parametrize("by", ["values", "directions", "asymmetric"])
def test_the_two_stages_together_are_those_of_the_folder(database, plain, index, by):
    values = plain.queries()
    codes = pack(binarize(values))
    folder = open_index(index, "cpu")
    for k, candidates in ((5, 40), (500, 500)):
        wanted, found = (one.search(codes, values, k, candidates, by) for one in (folder, database))
        assert ids_of(database, found.positions).tolist() == ids_of(folder, wanted.positions).tolist()
        assert np.array_equal(found.hamming, wanted.hamming)
        assert np.array_equal(found.euclidean, wanted.euclidean)
    nearest = plain.order(codes[0])[1][:40]
    if by == "values":
        far = np.linalg.norm(plain.values[np.searchsorted(plain.ids, nearest)] - values[0], axis=1)
        found = database.search(codes, values, 5, 40, by)
        assert found.euclidean[0] == pytest.approx(np.sort(far)[:5], abs=1e-5)
    assert np.isnan(database.search(codes, None, 3).euclidean).all()


def test_wrong_questions(database):
    codes = np.zeros((1, len(database.everything()[1][0])), np.uint8)
    with pytest.raises(HashretError, match="at least 1"):
        database.search(codes, None, 0)
    with pytest.raises(HashretError, match="do not fit"):
        database.nearest(np.zeros((1, 31), np.uint8), 5)
    with pytest.raises(HashretError, match="no features"):
        database.reranked(np.zeros((1, 7), np.float32), np.zeros((1, 1), np.int64), "features")
    with pytest.raises(HashretError, match="compares values"):
        database.reranked(np.zeros((1, 7), np.float32), np.zeros((1, 1), np.int64), "beauty")
    assert database.nearest(codes[:0], 5)[0].shape == (0, 5)


def test_photographs_by_their_rows(database, plain):
    rows, codes, labels = database.everything()
    items = database.items(rows.tolist(), codes=True)
    assert [item.id for item in items] == plain.ids.tolist()
    assert [item.path for item in items] == plain.paths
    assert [item.label for item in items] == plain.labels
    assert {"\udcff.png", "new\nline.png", "\uef80.png"} <= {item.path for item in items}
    assert np.array_equal(codes, plain.codes)
    assert np.array_equal([item.code for item in items], plain.codes)
    names = [[CLASSES[number]] if number >= 0 else [] for number in labels] if labels.ndim == 1 else [
        [CLASSES[number] for number in np.flatnonzero(row)] for row in labels
    ]  # fmt: skip
    assert [" ".join(name) for name in names] == plain.labels
    repeated = rows[[5, 3, 5]].tolist()
    assert [item.id for item in database.items(repeated)] == plain.ids[[5, 3, 5]].tolist()
    assert database.items(repeated)[0].code is None
    assert database.items([]) == []
    for place in (0, 50, 201):
        row, item = database.find(int(plain.ids[place]))
        assert (item.path, row) == (plain.paths[place], rows[place])
        assert np.array_equal(database.hash_outputs_at(row), plain.values[place])
    for missing in (21, -1, 10**12):
        with pytest.raises(HashretError, match=f"no photograph with id {missing} in the index"):
            database.find(missing)


def test_a_sample(database, plain):
    ids = ids_of(database, database.sample(20, 3)).tolist()
    assert len(set(ids)) == 20
    assert ids == ids_of(database, database.sample(20, 3)).tolist()
    assert ids != ids_of(database, database.sample(20, 4)).tolist()
    assert sorted(ids_of(database, database.sample(1000))) == plain.ids.tolist()


@pytest.mark.parametrize("kind", ENGINES)
def test_values_from_the_index_beside(kind, request, tmp_path):
    index = make_index(tmp_path, 24)
    name = f"{request.getfixturevalue(kind)}#beside"
    export(index, name, overwrite=True)
    alone, beside, plain = open_database(name), open_database(name, values=index), Plain(index)
    values = plain.queries()
    rows = alone.nearest(pack(binarize(values)), 40)[1]
    for by in ("values", "directions", "asymmetric"):
        for one, other in zip(alone.reranked(values, rows, by), beside.reranked(values, rows, by), strict=True):
            assert np.array_equal(one, other)
    assert np.array_equal(alone.hash_outputs_at(8), beside.hash_outputs_at(8))
    with pytest.raises(HashretError, match="name it with --values"):
        alone.calibrate()
    with pytest.raises(HashretError, match="run hashret compact first"):
        beside.calibrate()
    compact(index)
    with pytest.raises(HashretError, match="is not, or no longer, the index that"):
        open_database(name, values=index)
    with pytest.raises(HashretError, match="--values goes with an engine"):
        open_database(index, values=index)


@pytest.mark.parametrize("kind", ENGINES)
def test_an_index_without_values(kind, request, tmp_path):
    build_index(make_shards(tmp_path / "shards", 40, 24, 0), tmp_path / "index", values=False)
    name = f"{request.getfixturevalue(kind)}#codes_only"
    export(tmp_path / "index", name, overwrite=True)
    folder, database = open_database(tmp_path / "index", "cpu"), open_database(name)
    values = np.random.default_rng(0).random((3, 24), np.float32)
    wanted, found = (one.search(pack(binarize(values)), values, 5, 20, "asymmetric") for one in (folder, database))
    assert np.array_equal(found.positions, wanted.positions)
    assert np.array_equal(found.euclidean, wanted.euclidean)
    assert (database.has_hash_outputs, database.hash_outputs_at(3)) == (False, None)
    with pytest.raises(HashretError, match="keeps no values; take --rerank-by asymmetric"):
        database.search(pack(binarize(values)), values)


@given(st.binary(max_size=30))
def test_any_path_comes_back_from_text(raw):
    path = os.fsdecode(raw.replace(b"\0", b""))
    text = to_text(path)
    assert from_text(text) == path
    text.encode()
    assert not any(ord(letter) < 32 for letter in text)


@pytest.mark.parametrize("kind", ENGINES)
@pytest.mark.parametrize("size", [1, 3])
def test_codes_of_many_photographs_are_several_rows(kind, size, request, tmp_path, monkeypatch):
    """Of three photographs or one in each, and rows are asked for a few at a time."""
    monkeypatch.setattr("hashret.engines.codes._BYTES", size * (8 + 4 * 24))
    monkeypatch.setattr("hashret.engines.codes._LEAST_ROWS", 1)
    index = make_index(tmp_path, 24)
    name, plain = f"{request.getfixturevalue(kind)}#chunks{size}", Plain(index)
    export(index, name, overwrite=True)
    folder, database = open_database(index, "cpu"), open_database(name)
    assert max(np.unique(plain.codes, axis=0, return_counts=True)[1]) > 2 * size
    assert 202 / size <= database.meta["code_rows"] < (203 if size == 1 else 160)
    values = plain.queries()
    for k in (1, 4, 30, 60, 201, 202):
        check_nearest(database, plain, k)
        for one in range(3):  # asked alone, with what the queries before it needed
            own = slice(one, one + 1)
            wanted, found = (at.search(pack(binarize(values[own])), values[own], 1, k) for at in (folder, database))
            assert np.array_equal(found.positions, ids_of(folder, wanted.positions))
            assert np.array_equal(found.euclidean, wanted.euclidean)


@pytest.mark.parametrize("kind", ENGINES)
def test_a_collection_without_codes_is_read_and_replaced(kind, request, tmp_path):
    """An earlier hashret wrote format 1, which had none."""
    index, name = make_index(tmp_path, 24), f"{request.getfixturevalue(kind)}#earlier"
    export(index, name, overwrite=True)
    engine, codes = connect(parse(name)), connect(parse(f"{name}__codes"))
    codes.drop()
    with pytest.raises(HashretError, match="earlier__codes was dropped or replaced; run hashret export again"):
        open_database(name)
    record = {key: value for key, value in engine.read_record().items() if key != "code_rows"}
    engine.save_record(record | {"format": 1})
    database, plain = open_database(name), Plain(index)
    check_nearest(database, plain, 30)
    wanted = open_index(index, "cpu").search(plain.codes[:3], plain.values[:3], 5)
    found = database.search(plain.codes[:3], plain.values[:3], 5)
    assert np.array_equal(found.euclidean, wanted.euclidean)
    with pytest.raises(HashretError, match="earlier holds an export by an earlier hashret; add --overwrite"):
        export(index, name)
    assert export(index, name, overwrite=True).written == 202
    assert open_database(name).codes is not None
    codes.drop()
    assert export(index, name).written == 0  # the photographs are there, and the codes written again
    check_nearest(open_database(name), plain, 30)
    for one in (engine, codes):
        one.close()


def test_codes_that_stand_as_text_are_read_and_gone_on_with(postgres, tmp_path, monkeypatch):
    """An earlier hashret gave PostgreSQL the rows of codes as text, as Milvus has them."""
    index, name = make_index(tmp_path, 24), f"{postgres}#texts"
    with monkeypatch.context() as earlier:
        earlier.setattr(Postgres, "takes_bytes", False)
        export(index, name)
        database = open_database(name)
        assert isinstance(database.codes.engine.read(Filter(), ("paths",)).paths[0], str)
    plain, wanted = Plain(index), open_index(index, "cpu")
    queries = plain.codes[:3], plain.values[:3]
    for complete in (True, False):
        database.engine.save_record(database.meta | {"complete": complete})
        assert export(index, name).written == 0
        found = open_database(name).search(*queries, 5)
        assert np.array_equal(found.euclidean, wanted.search(*queries, 5).euclidean)
    export(index, name, overwrite=True)
    remove(index, plain.ids[:1])
    export(index, name, overwrite=True)
    database = open_database(name)
    assert isinstance(database.codes.engine.read(Filter(), ("paths",)).paths[0], bytes)
    assert np.array_equal(
        database.search(*queries, 5).euclidean, open_index(index, "cpu").search(*queries, 5).euclidean
    )


def test_names_of_the_codes(postgres, tmp_path):
    index = make_index(tmp_path, 24)
    with pytest.raises(HashretError, match="longer than the 56 letters that an export's name may have"):
        export(index, f"{postgres}#" + "a" * 57)
    engine = connect(parse(f"{postgres}#b"))
    engine.run(lambda connection: connection.execute("CREATE TABLE b__codes (a int)"))
    with pytest.raises(HashretError, match="b__codes exists already and is no collection of hashret's"):
        export(index, f"{postgres}#b", overwrite=True)
    engine.close()


@pytest.mark.parametrize("kind", ENGINES)
def test_the_codes_replace_no_collection_of_that_name(kind, request, tmp_path):
    index, other = make_index(tmp_path / "a", 24), make_index(tmp_path / "b", 24, several=True)
    address = request.getfixturevalue(kind)
    export(index, f"{address}#mine__codes", overwrite=True)
    for overwrite in (False, True):
        with pytest.raises(HashretError, match="mine__codes is an export itself, and its name is that of the codes"):
            export(other, f"{address}#mine", overwrite=overwrite)
    check_nearest(open_database(f"{address}#mine__codes"), Plain(index), 30)
    export(other, f"{address}#others", overwrite=True)
    for overwrite in (False, True):
        with pytest.raises(HashretError, match="others__codes exists already and is no collection of hashret's"):
            export(index, f"{address}#others__codes", overwrite=overwrite)
    check_nearest(open_database(f"{address}#others"), Plain(other), 30)


# What others may keep under a collection's name, made by the engine's own client.
THEIRS = {
    "milvus": lambda engine: engine.client.create_collection("theirs", dimension=4),
    "postgres": lambda engine: engine.run(lambda connection: connection.execute("CREATE TABLE theirs (a int)")),
}


@pytest.fixture(params=OTHERS_RUN)
def place(request, tmp_path):
    """Name of a collection that only one test has; Milvus Lite on a file of its own, which other processes open."""
    if request.param == "milvus":
        pytest.importorskip("milvus_lite", reason="needs hashret[milvus]")
        return f"milvus:{tmp_path / 'own.db'}#own"
    return f"{request.getfixturevalue(request.param)}#own"


KILLED = """
import os, signal, sys
from hashret.engines import export, exporting
from hashret.engines.engine import Filter, connect
from hashret.addresses import parse
from hashret.engines.postgres import Postgres
index, name, method, calls = sys.argv[1:]
exporting._BATCH = 50
engine = connect(parse(name), create=True)
kind, left = type(engine), int(calls)
original = getattr(kind, method)

def die(self, *arguments):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(self, *arguments)

setattr(kind, method, die)
export(index, name, overwrite=True)
"""


def killed(index, name, method, calls):
    """Export in a process that kills itself when a method of the engine is called for the n-th time."""
    code = f"import sys; sys.argv = ['', {str(index)!r}, {name!r}, {method!r}, '{calls}']\n" + KILLED
    process = start(code)
    output, _ = process.communicate(timeout=100)
    assert process.returncode == -signal.SIGKILL, output


def test_a_killed_export_is_refused_and_goes_on(place, tmp_path, monkeypatch):
    """Killed at several points, one after the other: what was written stays, and the same export writes the rest."""
    monkeypatch.setattr(exporting, "_BATCH", 50)
    index = make_index(tmp_path, 24)
    stages = [
        ([("create", 1), ("create", 2), ("write", 1), ("write", 3)], 102),
        ([("write", 7), ("finish", 1), ("finish", 2), ("save_record", 2)], 0),  # 5 writes are of photographs
    ]
    if place.startswith("milvus"):  # which takes seconds to start
        stages = [([("write", 3)], 102)]
    for points, left in stages:
        for method, calls in points:
            killed(index, place, method, calls)
            with pytest.raises(HashretError, match="is not complete; run the same hashret export again"):
                open_database(place)
        report = export(index, place)
        assert (report.count, report.written) == (len(open_index(index, "cpu")), left)
        assert export(index, place).written == 0
        check_nearest(open_database(place), Plain(index), 30)
        remove(index, Plain(index).ids[:1])  # the next export is another


def test_another_state_of_the_index_needs_overwrite(postgres, tmp_path):
    index, name = make_index(tmp_path, 24), f"{postgres}#changed"
    export(index, name)
    remove(index, [5])
    with pytest.raises(HashretError, match="changed holds another export; add --overwrite to replace it, or name"):
        export(index, name)
    with pytest.raises(HashretError, match="holds another export"):
        export(index, name, approximate=True)
    assert len(open_database(name)) == 202
    for method, calls in [("drop", 1), ("save_record", 2), ("create", 1), ("write", 3)]:
        killed(index, name, method, calls)
        with pytest.raises(HashretError, match="is not complete"):
            open_database(name)
    assert export(index, name).count == 201
    check_nearest(open_database(name), Plain(index), 30)


class Stopped(Exception):
    """Ends an export in its midst."""


def of_codes(engine):
    return engine.address.collection.endswith("__codes")


@pytest.mark.parametrize("kind", ENGINES)
def test_what_is_open_gives_no_answer_from_what_another_export_writes(kind, request, tmp_path, monkeypatch):
    name = f"{request.getfixturevalue(kind)}#replaced"
    first, second = make_index(tmp_path / "a", 24), make_index(tmp_path / "b", 24, several=True)
    export(first, name, overwrite=True)
    database, plain = open_database(name), Plain(first)
    among = database.select(label="dog")
    write = type(database.engine).write

    def write_half_of_the_codes(engine, rows):
        write(engine, rows.take(np.arange(len(rows) // 2)) if of_codes(engine) else rows)
        if of_codes(engine):
            raise Stopped

    questions = {
        "search": lambda: database.search(plain.codes[:2], plain.values[:2], 3),
        "among": lambda: database.nearest(plain.codes[:2], 3, among),
        "too many": lambda: database.nearest(plain.codes[:2], 202),
        "within": lambda: list(database.within(plain.codes[:2], 3)),
        "select": lambda: database.select(label="dog"),
        "pattern": lambda: database.select(path="[0-9].png"),
        "find": lambda: database.find(5),
        "items": lambda: database.items([5]),
        "hash outputs": lambda: database.hash_outputs_at(5),
        "sample": lambda: database.sample(3),
        "everything": lambda: database.everything(),
    }
    for ask in questions.values():
        ask()
    with monkeypatch.context() as patch:
        patch.setattr(type(database.engine), "write", write_half_of_the_codes)
        with pytest.raises(Stopped):
            export(second, name, overwrite=True)
    for state in ("half", "whole", "the same again"):
        for question, ask in questions.items():
            with pytest.raises(EngineError, match="replaced is being replaced, or was, by another export") as error:
                ask()
            assert "; open it again once that export has ended" in str(error.value), (state, question)
        if state == "half":
            assert export(second, name).written == 0  # all photographs are there
            check_nearest(open_database(name), Plain(second), 30)
        if state == "whole":
            export(first, name, overwrite=True)
    check_nearest(open_database(name), plain, 30)


@pytest.mark.parametrize("kind", ENGINES)
@pytest.mark.parametrize("at", ["photographs", "codes", "the end"])
def test_of_two_exports_at_once_the_first_stops(kind, at, request, tmp_path, monkeypatch):
    """As many photographs as the other, so that counting them tells nothing."""
    monkeypatch.setattr(exporting, "_BATCH", 50)
    name = f"{request.getfixturevalue(kind)}#at_once"
    first, second = make_index(tmp_path / "a", 24), make_index(tmp_path / "b", 24, several=True)
    engine = connect(parse(name))
    method = "finish" if at == "the end" else "write"
    original, left = getattr(type(engine), method), [2]

    def export_the_other(engine, *rows):
        original(engine, *rows)
        counted = at == "the end" or of_codes(engine) == (at == "codes")
        left[0] -= counted
        if counted and left[0] == 0:
            assert export(second, name, overwrite=True).written == 202

    monkeypatch.setattr(type(engine), method, export_the_other)
    with pytest.raises(EngineError, match=r"at_once(__codes)? was replaced by another export meanwhile; let one end"):
        export(first, name, overwrite=True)
    assert left[0] < 0
    database, plain = open_database(name), Plain(second)
    check_nearest(database, plain, 30)
    assert [item.label for item in database.items(plain.ids.tolist())] == plain.labels
    engine.close()


@pytest.mark.parametrize("late", [False, True])
def test_postgres_takes_no_batch_of_an_export_that_another_has_replaced(postgres, late, tmp_path, monkeypatch):
    """One that had asked before, and whose rows arrive only now; or both create the tables, one behind the other."""
    name = f"{postgres}#fenced"
    first, second = make_index(tmp_path / "a", 24), make_index(tmp_path / "b", 24, several=True)
    method = "write" if late else "create"
    original, left = getattr(Postgres, method), [1]

    def export_the_other(engine, *given):
        left[0] -= 1
        if left[0] == 0:
            export(second, name, overwrite=True)
        original(engine, *given)

    monkeypatch.setattr(Postgres, method, export_the_other)
    with pytest.raises(EngineError, match="fenced was replaced by another export meanwhile"):
        export(first, name, overwrite=True)
    database, plain = open_database(name), Plain(second)
    check_nearest(database, plain, 30)
    assert [item.path for item in database.items(plain.ids.tolist())] == plain.paths


def test_an_export_whose_tables_another_made_is_replaced_and_not_gone_on_with(postgres, tmp_path):
    """As where two began at once, and the one whose tables are there was killed."""
    index, name = make_index(tmp_path, 24), f"{postgres}#crossed"
    export(index, name)
    engine = connect(parse(name))
    for complete in (True, False):
        engine.save_record(engine.read_record() | {"made": "another", "complete": complete})
        with pytest.raises(HashretError, match="was dropped or replaced" if complete else "is not complete"):
            open_database(name)
        with pytest.raises(HashretError, match="crossed holds part of another export; add --overwrite"):
            export(index, name)
    assert export(index, name, overwrite=True).written == 202
    check_nearest(open_database(name), Plain(index), 30)
    engine.close()


def test_an_export_by_a_hashret_without_tokens_is_taken_as_it_is_and_gone_on_with(postgres, tmp_path, monkeypatch):
    index, name = make_index(tmp_path, 24), f"{postgres}#tokenless"
    with monkeypatch.context() as earlier:
        earlier.setattr(exporting, "FORMAT", 2)
        earlier.setattr(exporting.secrets, "token_hex", lambda _: None)
        export(index, name)
    engine, codes = connect(parse(name)), connect(parse(f"{name}__codes"))
    record = {key: value for key, value in engine.read_record().items() if not key.endswith("made")}
    engine.save_record(record)
    assert engine.description() == codes.description() == f"hashret {record['source']}"
    check_nearest(open_database(name), Plain(index), 30)
    assert export(index, name).written == 0
    assert engine.read_record() == record
    codes.drop()
    engine.save_record(record | {"complete": False})
    assert export(index, name).written == 0
    assert engine.description() == f"hashret {record['source']}" != codes.description()
    database = open_database(name)
    check_nearest(database, Plain(index), 30)
    export(index, name, approximate=True, overwrite=True)
    with pytest.raises(EngineError, match="by another export"):
        database.find(5)
    for one in (engine, codes):
        one.close()


def test_photographs_that_have_moved_are_exported_again(postgres, tmp_path):
    index, name = make_index(tmp_path, 24, odd=()), f"{postgres}#moved"
    for place in ("a", "b"):
        for batch in (0, 1):
            (tmp_path / place / f"batch{batch}").mkdir(parents=True)
            (tmp_path / place / f"batch{batch}" / "001.png").touch()
    relocate(index, tmp_path / "a")
    export(index, name)
    assert export(index, name).written == 0
    relocate(index, tmp_path / "b")
    with pytest.raises(HashretError, match="holds another export; add --overwrite"):
        export(index, name)
    assert export(index, name, overwrite=True).written == 202
    assert open_database(name).find(1)[1].path == str(tmp_path / "b" / "batch0" / "001.png")


@pytest.mark.parametrize("kind", THEIRS)
def test_what_others_keep_under_that_name_is_left_alone(kind, request, tmp_path):
    name = f"{request.getfixturevalue(kind)}#theirs"
    with pytest.raises(HashretError, match=r"no collection of hashret's at .*theirs; make one with hashret export"):
        open_database(name)
    engine = connect(parse(name))
    THEIRS[kind](engine)
    index = make_index(tmp_path, 24)
    for overwrite in (False, True):
        with pytest.raises(HashretError, match="exists already and is no collection of hashret's; name another"):
            export(index, name, overwrite=overwrite)
    assert engine.description() == ""
    engine.drop()
    export(index, name)
    engine.drop()
    with pytest.raises(HashretError, match="was dropped or replaced; run hashret export again"):
        open_database(name)
    assert export(index, name).written == 202
    engine.save_record(engine.read_record() | {"format": 99})
    with pytest.raises(HashretError, match="by a later hashret"):
        open_database(name)
    engine.close()


def test_an_approximate_index_says_what_it_finds(postgres, tmp_path):
    index, name = make_index(tmp_path, 48), f"{postgres}#quick"
    report = export(index, name, approximate=True)
    assert 0.5 < report.recall <= 1
    assert export(index, name, approximate=True).recall == report.recall
    database, plain = open_database(name), Plain(index)
    codes = pack(binarize(plain.queries()))
    D, rows = database.nearest(codes, 10)
    for query, code in enumerate(codes):
        true = dict(zip(*plain.order(code)[::-1], strict=True))
        assert [true[row] for row in rows[query].tolist()] == D[query].tolist() == sorted(D[query])
    check_nearest(database, plain, 202)  # as many as there are: all of them are found
    check_nearest(database, plain, 202, np.array(["dog" in label for label in plain.labels]), database.select("dog"))
    plans = database.engine.run(lambda connection: connection.execute("SELECT indexdef FROM pg_indexes").fetchall())
    assert any("hnsw" in plan for (plan,) in plans)


@pytest.mark.parametrize("kind", [name for name in ENGINES if name != "milvus"])  # Milvus Lite has no approximate index
def test_an_approximate_index_of_no_photographs_has_no_recall(kind, request, tmp_path):
    index, name = make_index(tmp_path, 24), f"{request.getfixturevalue(kind)}#nothing"
    remove(index, Plain(index).ids)
    report = export(index, name, approximate=True, overwrite=True)
    assert (report.count, report.recall) == (0, None)
    assert open_database(name).nearest(np.zeros((2, 3), np.uint8), 5)[1].shape == (2, 0)


def test_milvus_lite_is_exact(milvus, tmp_path):
    if "://" in milvus:
        pytest.skip("a server has approximate indexes")
    index = make_index(tmp_path, 24)
    with pytest.raises(HashretError, match="leave --approximate out"):
        export(index, f"{milvus}#exact", approximate=True)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("folder", "names no engine; one is milvus:http://host:19530"),
        ("milvus:a.db#x y", "a collection's name is letters"),
        ("milvus:a.db#x; drop table y", "a collection's name is letters"),
        ('postgresql://h/d#"a"', "a collection's name is letters"),
        ("postgresql://h/d#" + "a" * 64, "at most 63"),
    ],
)
def test_names_that_engines_would_not_take(name, line):
    with pytest.raises(HashretError, match=line):
        parse(name)


def test_names():
    place = parse("postgresql://me:secret@host/db?password=secret&a=b#photos")
    assert str(place) == "postgresql://me@host/db?password=…&a=b#photos"
    assert (place.kind.name, place.collection) == ("postgres", "photos")
    assert parse("milvus:http://host:19530", "photos").uri == "http://host:19530"
    assert str(parse("milvus:a.db")) == "milvus:a.db#hashret"
    with pytest.raises(HashretError, match="name the collection once"):
        parse("milvus:a.db#one", "other")


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("postgresql://h/db?sslpassword=secret&a=b", "postgresql://h/db?sslpassword=…&a=b"),
        ("postgresql://u:sec/ret@h/db", "postgresql://u@h/db"),
        ("postgresql://u:sec@ret@h/db?a=b", "postgresql://u@h/db?a=b"),
        ("postgresql://u:sec?a=ret@h/db?a=b", "postgresql://u@h/db?a=b"),
        ("postgresql://u:sec?/ret@h/db", "postgresql://u@h/db"),
        ("postgresql://h:5432,i:5433/db?user=me@h", "postgresql://h:5432,i:5433/db?user=me@h"),
        ("postgresql://u:secret@[::1]:5432/db", "postgresql://u@[::1]:5432/db"),
        ("milvus:http://u:secret@h:19530", "milvus:http://u@h:19530"),
    ],
)
def test_passwords_are_not_shown(address, shown):
    assert str(parse(address)) == f"{shown}#hashret"
    assert masked_line(f"no index at {address}; name {address.replace('://', ':/')}") == (
        f"no index at {shown}; name {shown.replace('://', ':/')}"
    )


def test_a_password_with_what_begins_the_collection_is_not_shown():
    with pytest.raises(HashretError, match="write # in a password as %23") as error:
        parse("postgresql://u:sec#ret@h/db")
    assert "ret@h" not in str(error.value)
    with pytest.raises(HashretError, match=r"^postgre://u@h/db names no engine"):
        parse("postgre://u:secret@h/db")
