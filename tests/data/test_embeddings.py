"""Vectors as people have them: every type, order and container, and what is refused, each in one line."""

import io
import zipfile

import h5py
import numpy as np
import pytest

from hashret.data import embeddings, open_data, vectors
from hashret.data.references import is_there, kind_of
from hashret.description import info
from hashret.errors import HashretError

X = np.random.default_rng(0).normal(size=(11, 6))


def opened(path, suffix=""):
    return open_data(f"vectors:{path}{suffix}")


@pytest.mark.parametrize(
    "array",
    [
        X, X.astype("<f2"), X.astype(">f4"), X.astype(">f8"), np.asfortranarray(X), (100 * X).astype(np.int8),
        (100 * X).astype(">i4"), np.abs(100 * X).astype(np.uint8),
    ],
    ids=["float64", "float16", "big-endian", "big-endian float64", "fortran", "int8", "big-endian int32", "uint8"],
)  # fmt: skip
def test_any_type_and_order_of_numbers(tmp_path, array):
    np.save(tmp_path / "v.npy", array)
    for source in (opened(tmp_path / "v.npy"), vectors(array)):
        assert (len(source), source.width, source.labels, source.skipped) == (11, 6, None, {})
        assert source.read([7, 0, 7]).dtype == np.float32
        np.testing.assert_array_equal(source.read([7, 0, 7]), array[[7, 0, 7]].astype(np.float32))


def test_a_strided_slice_is_not_copied():
    wide = np.arange(240, dtype=np.float32).reshape(20, 12)
    source = vectors(wide[::2, ::-3])
    assert np.shares_memory(source.numbers, wide)
    np.testing.assert_array_equal(source.read(slice(3, 5)), wide[6:10:2, ::-3])


def test_a_file_is_mapped_not_loaded(tmp_path):
    np.save(tmp_path / "v.npy", X)
    np.savez(tmp_path / "v.npz", X)
    assert isinstance(opened(tmp_path / "v.npy").numbers, np.memmap)
    assert isinstance(opened(tmp_path / "v.npz").numbers, np.memmap)


def save_hdf5(path, compression=None, **arrays):
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            text = array.dtype.kind == "U"
            file.create_dataset(name, data=array.astype(object) if text else array, compression=compression)


@pytest.mark.parametrize(
    ("name", "save"),
    [
        ("v.npz", np.savez),
        ("v.npz", np.savez_compressed),
        ("v.h5", save_hdf5),
        ("v.hdf5", lambda path, **arrays: save_hdf5(path, "gzip", **arrays)),
    ],
)
def test_ids_labels_and_paths_beside_the_vectors(tmp_path, name, save):
    ids, labels = np.arange(30, 19, -1), np.array(["sea", "bear"] * 5 + ["sea"])
    save(tmp_path / name, emb=X, ids=ids, labels=labels, paths=np.array([f"text {i}" for i in range(11)]))
    source = opened(tmp_path / name)
    assert source.ids.tolist() == list(range(20, 31))  # rows are ordered by their ids
    np.testing.assert_array_equal(source.read([0, 10]), X[[10, 0]].astype(np.float32))
    assert source.classes == ("bear", "sea")
    assert source.labels.tolist() == [1, 0] * 5 + [1]
    assert source.reference(0) == "text 10"


@pytest.mark.parametrize(("name", "save"), [("v.npz", np.savez), ("v.h5", save_hdf5)])
def test_several_arrays_need_a_name(tmp_path, name, save):
    save(tmp_path / name, train=X, test=X[:3], neighbours=np.arange(3.0))
    with pytest.raises(HashretError, match=r"several arrays of vectors, .*; name one: vectors:.*::t") as error:
        opened(tmp_path / name)
    assert "\n" not in str(error.value)
    assert len(opened(tmp_path / name, "::test")) == len(opened(tmp_path / name, "#test")) == 3
    with pytest.raises(HashretError, match=r"no array 'tset'; there are"):
        opened(tmp_path / name, "::tset")


class Bomb:
    def __reduce__(self):
        return exec, ("raise SystemExit('unpickled')",)


@pytest.mark.parametrize("save", [np.save, np.savez, np.savez_compressed])
def test_objects_are_refused_without_unpickling(tmp_path, save):
    path = tmp_path / ("v.npy" if save is np.save else "v.npz")
    save(path, np.array([[Bomb(), 1.0]], object), allow_pickle=True)
    with pytest.raises(HashretError, match="holds Python objects, which could run any code"):
        opened(path)
    with pytest.raises(HashretError, match="vectors are numbers"):
        vectors(np.array([[None, 1.0]], object))


def test_text_files_name_rows(tmp_path):
    np.save(tmp_path / "v.npy", X)
    np.save(tmp_path / "l.npy", np.arange(11) % 3)
    (tmp_path / "n.txt").write_text("".join(f"doc {i}\n" for i in range(11)))
    source = opened(tmp_path / "v.npy", f",ids={tmp_path / 'n.txt'},labels={tmp_path / 'l.npy'}")
    assert source.reference(3) == "doc 3"
    assert source.ids is None
    assert source.classes == ("0", "1", "2")
    (tmp_path / "i.txt").write_text("".join(f"{i}\n" for i in range(5, 16)))
    assert opened(tmp_path / "v.npy", f",ids={tmp_path / 'i.txt'}").id(3) == 8


def test_paths_start_where_the_file_lies(tmp_path):
    (tmp_path / "a.jpg").touch()
    np.savez(tmp_path / "v.npz", v=X[:2], paths=np.array(["a.jpg", "b.jpg"]))
    assert opened(tmp_path / "v.npz").reference(1) == str(tmp_path / "b.jpg")


def test_ids_that_are_texts_are_no_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").mkdir()
    names = ["docs", "b", "c"]
    assert list(vectors(X[:3], ids=names)) == names
    np.savez("v.npz", v=X[:3], ids=np.array(names))
    assert list(opened(tmp_path / "v.npz")) == names


@pytest.mark.parametrize("names", [[None, "a", "b"], ["a", 0.5, "b"], ["a", "b\0c", "d"]])
def test_what_is_no_name_is_one_line(names):
    with pytest.raises(HashretError, match=r"paths are names without NUL, not (None|0\.5|'b.x00c')"):
        vectors(X[:3], paths=np.array(names, object))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_lines_of_a_text_file_end_in_line_feeds_alone(tmp_path, encoding):
    np.save(tmp_path / "v.npy", X[:3])
    names = ["a\x0c\x85\u2028b", "", "c"]
    (tmp_path / "n.txt").write_bytes("\r\n".join([*names, ""]).encode(encoding))
    (tmp_path / "i.txt").write_bytes("10\n20\n30".encode(encoding))
    source = opened(
        tmp_path / "v.npy", f",ids={tmp_path / 'i.txt'},paths={tmp_path / 'n.txt'},labels={tmp_path / 'i.txt'}"
    )
    assert list(source) == names
    assert (source.ids.tolist(), source.classes) == ([10, 20, 30], ("10", "20", "30"))
    (tmp_path / "empty.txt").touch()
    with pytest.raises(HashretError, match="0 ids for 3 vectors"):
        opened(tmp_path / "v.npy", f",ids={tmp_path / 'empty.txt'}")


def test_a_folder_may_have_colons_and_a_number_sign(tmp_path):
    for folder in ("a::b", "a#b", "a::b#c"):
        (tmp_path / folder).mkdir()
        np.savez(tmp_path / folder / "v.npz", one=X, two=X[:3])
        np.save(tmp_path / folder / "v.npy", X)
        assert len(opened(tmp_path / folder / "v.npy")) == 11
        assert len(opened(tmp_path / folder / "v.npz", "::two")) == 3


def test_flags_and_missing_labels():
    with pytest.raises(HashretError, match="labels are whole numbers, not as inf"):
        vectors(X[:3], labels=[np.inf, 1, 2])
    assert vectors(X[:2], labels=[[1, 0, 1], [0, 0, 1]]).labels.dtype == np.uint8
    source = vectors(X[:3], labels=[7, -1, 5])
    assert (source.labels.tolist(), source.classes) == ([1, -1, 0], ("5", "7"))


@pytest.mark.parametrize(
    ("beside", "message"),
    [
        ({"ids": [1, 2]}, "2 ids for 11 vectors"),
        ({"paths": ["a"]}, "1 paths for 11 vectors"),
        ({"labels": [1] * 12}, "12 labels for 11 vectors"),
        ({"ids": [3] * 11}, "the id 3 stands there more than once"),
        ({"ids": range(-1, 10)}, "ids are whole numbers from 0"),
        ({"labels": [0.5] * 11}, r"labels are whole numbers, not as 0\.5"),
        ({"ids": ["a"] * 11, "paths": ["b"] * 11}, "ids beside paths are whole numbers"),
    ],
)
def test_what_does_not_fit_is_one_line(beside, message):
    with pytest.raises(HashretError, match=message):
        vectors(X, **beside)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("v.npy", b"no array", "cannot read the vectors"),
        ("v.npz", b"no archive", "cannot read the vectors"),
        ("v.h5", b"no file", "cannot read the vectors"),
        ("v.csv", b"1,2", "no file of vectors; its name must end in"),
        ("v.npy", None, "no such file of vectors"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(HashretError, match=message) as error:
        opened(tmp_path / name)
    assert "\n" not in str(error.value)


def test_a_file_cut_off_is_one_line(tmp_path):
    stream = io.BytesIO()
    np.save(stream, X)
    (tmp_path / "v.npy").write_bytes(stream.getvalue()[:-8])
    with zipfile.ZipFile(tmp_path / "v.npz", "w") as archive:
        archive.writestr("v.npy", stream.getvalue()[:-8])
    for name in ("v.npy", "v.npz"):
        with pytest.raises(HashretError, match="cut off"):
            opened(tmp_path / name)


def test_rows_without_numbers_are_named():
    array = X.astype(np.float64)
    array[2, 3], array[5, 0], array[6, 0] = np.nan, np.inf, 1e300
    skipped = vectors(array).skipped
    assert [*skipped] == [2, 5, 6]
    assert skipped[2] == "holds NaN"
    assert skipped[6].startswith("holds infinity, or more than float32")


def test_one_vector_is_a_plain_row():
    assert vectors(X[0]).read([0]).shape == (1, 6)


def test_a_row_has_a_name_that_is_no_picture(tmp_path):
    np.save(tmp_path / "v.npy", X)
    source = opened(tmp_path / "v.npy").subset([4, 2])
    assert source.reference(1) == f"{tmp_path / 'v.npy'}#2"
    assert kind_of(source.reference(1)) is not None
    assert is_there(source.reference(1))
    (tmp_path / "v.npy").unlink()
    assert not is_there(source.reference(1))
    assert vectors(X).reference(2) == vectors(X.copy()).reference(2) != vectors(X + 1).reference(2)


def test_a_subset_and_its_fingerprint():
    source = vectors(X, ids=range(20, 31), labels=[0] * 11)
    part = source.subset([5, 1])
    np.testing.assert_array_equal(part.read([1]), X[[1]].astype(np.float32))
    assert (part.ids.tolist(), len(part)) == ([25, 21], 2)
    assert part.subset([1]).id(0) == 21
    assert len({source.fingerprint, part.fingerprint, source.subset([5, 2]).fingerprint}) == 3


def test_parquet(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    fixed = pa.FixedSizeListArray.from_arrays(pa.array(X.astype(np.float32).ravel()), 6)
    lists = pa.array([None if i == 4 else row for i, row in enumerate(X.tolist())])
    table = pa.table({"fixed": fixed, "lists": lists, "ids": np.arange(11), "labels": ["a", "b"] * 5 + ["a"]})
    pq.write_table(table, tmp_path / "v.parquet", row_group_size=3)
    with pytest.raises(HashretError, match="several arrays of vectors, fixed, lists"):
        opened(tmp_path / "v.parquet")
    for name in ("fixed", "lists"):
        source = opened(tmp_path / "v.parquet", f"::{name}")
        assert (len(source), source.width, source.classes) == (11, 6, ("a", "b"))
        np.testing.assert_array_equal(source.read([10, 0, 3, 3]), X[[10, 0, 3, 3]].astype(np.float32))
        np.testing.assert_array_equal(source.read(slice(2, 4)), X[2:4].astype(np.float32))
    assert source.skipped == {4: "holds NaN"}


def test_parquet_decodes_rows_in_order_once_whatever_the_row_groups(tmp_path, monkeypatch):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    monkeypatch.setattr(embeddings, "ROWS_AT_ONCE", 7)
    x = np.arange(300, dtype=np.float32).reshape(100, 3)
    pq.write_table(pa.table({"x": list(x)}), tmp_path / "v.parquet", row_group_size=40)
    decoded, iterate = [], pq.ParquetFile.iter_batches

    def counted(self, *args, **options):
        for batch in iterate(self, *args, **options):
            decoded.append(len(batch))
            yield batch

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", counted)
    source = opened(tmp_path / "v.parquet")
    decoded.clear()
    assert np.array_equal(np.concatenate([block for _, block in source.blocks()]), x)
    assert sum(decoded) == 100
    assert max(decoded) <= 7
    for rows in ([99, 0, 50, 50, 3], [81, 80], [2, 90], [], np.random.default_rng(0).permutation(100)):
        decoded.clear()
        assert np.array_equal(source.read(rows), x[np.array(rows, int)])
        assert sum(decoded) <= 100
    source.read([0])
    decoded.clear()
    source.read([99])
    assert 0 < sum(decoded) <= 20  # of the last row group


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    (tmp_path / "v.parquet").write_bytes(b"PAR1")
    with pytest.raises(HashretError, match=r"needs pyarrow; pip install 'hashret\[parquet\]'"):
        opened(tmp_path / "v.parquet")


@pytest.mark.parametrize("name", ["x.npz", "x.h5", "x.parquet"])
def test_flags_beside_the_vectors_of_any_file(tmp_path, name):
    flags = np.eye(3, dtype=np.uint8)[[0, 1, 2, 1]]
    x = np.arange(12.0).reshape(4, 3)
    if name == "x.npz":
        np.savez(tmp_path / name, x=x, labels=flags)
    elif name == "x.h5":
        save_hdf5(tmp_path / name, x=x, labels=flags)
    else:
        pa = pytest.importorskip("pyarrow")
        table = {"x": x.tolist(), "labels": flags.tolist()}
        pytest.importorskip("pyarrow.parquet").write_table(pa.table(table), tmp_path / name)
    source = opened(tmp_path / name)
    assert source.labels.tolist() == flags.tolist()
    assert info(f"vectors:{tmp_path / name}").kind == "photographs"


def test_names_that_are_numbers_are_texts(tmp_path):
    np.save(tmp_path / "x.npy", np.ones((2, 3)))
    (tmp_path / "names.txt").write_text("007\n100\n")
    assert list(opened(tmp_path / "x.npy", f",paths={tmp_path / 'names.txt'}")) == ["007", "100"]
    assert list(vectors(np.ones((2, 3)), paths=[7, 100])) == ["7", "100"]
    with pytest.raises(HashretError, match="paths are names"):
        vectors(np.ones((2, 3)), paths=[0.5, 1.5])
    np.savez(tmp_path / "one.npz", x=np.ones((2, 3)), labels=7)
    with pytest.raises(HashretError, match="labels are one for each vector"):
        opened(tmp_path / "one.npz")


def test_ids_of_nineteen_digits_are_numbers(tmp_path):
    np.save(tmp_path / "x.npy", np.ones((2, 3)))
    ids = [1152921504606846979, 2**63 - 2]
    (tmp_path / "ids.txt").write_text("\n".join(map(str, ids)))
    assert opened(tmp_path / "x.npy", f",ids={tmp_path / 'ids.txt'}").ids.tolist() == ids
    (tmp_path / "ids.txt").write_text("1\n9999999999999999999")
    assert opened(tmp_path / "x.npy", f",ids={tmp_path / 'ids.txt'}").ids is None
