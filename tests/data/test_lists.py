"""Lists of photographs and labels as people write them: read as they are meant, or refused with an example."""

import codecs
import os

import numpy as np
import pytest

from hashret.data import open_data
from hashret.errors import HashretError


@pytest.fixture
def read(tmp_path):
    """Write a list of photographs, which are made where their names say, and read it."""

    def read(content, *names, labels=None, encoding="utf-8", root=None):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        raw = content if isinstance(content, bytes) else content.encode(encoding)
        (tmp_path / "list.txt").write_bytes(raw)
        if labels is not None:
            (tmp_path / "labels.txt").write_text(labels)
        return open_data(f"list:{tmp_path}/list.txt" + (f",root={root}" if root else ""))

    return read


FLAGS = [[0, 1], [1, 0]]


@pytest.mark.parametrize(
    ("content", "names", "labels"),
    [
        ("a.jpg 0 1\nb.jpg 1 0\n", ("a.jpg", "b.jpg"), FLAGS),
        ("a.jpg\t0\t1\nb.jpg\t1\t0", ("a.jpg", "b.jpg"), FLAGS),
        ("a.jpg,0,1\r\nb.jpg,1,0\r\n", ("a.jpg", "b.jpg"), FLAGS),
        ("a.jpg; 0; 1\n\nb.jpg; 1; 0\n", ("a.jpg", "b.jpg"), FLAGS),
        ("a.jpg -1 1\nb.jpg 1 -1\n", ("a.jpg", "b.jpg"), FLAGS),
        ("a.jpg 0.0 1.0\nb.jpg 1. 0e0\n", ("a.jpg", "b.jpg"), FLAGS),
        ("  a.jpg   0 1  \nb.jpg 1 +0\n", ("a.jpg", "b.jpg"), FLAGS),
        ("my sea 1 0.jpg 0 1\nb 1.JPG 1 0\n", ("my sea 1 0.jpg", "b 1.JPG"), FLAGS),
        ("tab\tand, comma.jpg\t0\t1\nx.jpg y.png 1 0\n", ("tab\tand, comma.jpg", "x.jpg y.png"), FLAGS),
        ('"a, ""b"".jpg",0,1\n"plain name",1,0\n', ('a, "b".jpg', "plain name"), FLAGS),
        ('"a".jpg 0 1\n" c.jpg" 1 0\n', ('"a".jpg', " c.jpg"), FLAGS),
        ("noending 0 1\nother,1,0\n", ("noending", "other"), FLAGS),
        ("sep\u2028arator\x85.jpg 0 1\nb.jpg 1 0\n", ("sep\u2028arator\x85.jpg", "b.jpg"), FLAGS),
        ("a.jpg 0 1\rb.jpg 1 0\r", ("a.jpg", "b.jpg"), FLAGS),
        ("a.jpg 2\nb.jpg 0\nc.jpg 2.0\n", ("a.jpg", "b.jpg", "c.jpg"), [1, 0, 1]),
        ("a.jpg 0\nb.jpg 1\n", ("a.jpg", "b.jpg"), [0, 1]),
        ("a.jpg sea\nb.jpg cat\n", ("a.jpg", "b.jpg"), [1, 0]),
        ("a.jpg\tpolar bear\nb.jpg\tcat\n", ("a.jpg", "b.jpg"), [1, 0]),
        ('my a.jpg,"polar bear"\nb.jpg,3 cats\n', ("my a.jpg", "b.jpg"), [1, 0]),
        ("a.HEIC 1\nb c.heic 0\n", ("a.HEIC", "b c.heic"), [1, 0]),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_what_people_write_is_read(read, content, names, labels, encoding):
    source = read(content, *names, encoding=encoding)
    assert source.paths == names
    assert source.labels.tolist() == labels
    assert all(source.file(row).exists() for row in range(len(source)))


def test_classes_are_called_by_their_numbers_and_names(read):
    assert read("a.jpg 10\nb.jpg 2\n", "a.jpg").classes == ("2", "10")
    assert read("a.jpg,polar bear\nb.jpg,n01440764\n", "a.jpg").classes == ("n01440764", "polar bear")
    assert read("a.jpg\nmy b.jpg\n", "a.jpg").labels is None
    source = read("a.jpg 2\nb.jpg 0\n", "a.jpg", labels="polar bear\ncat\ndog\n")
    assert (source.classes, source.labels.tolist()) == (("polar bear", "cat", "dog"), [2, 0])
    with pytest.warns(
        UserWarning, match=r"labels.txt has 3 names, but .*list.txt has a class 3: classes are called by"
    ):
        assert read("a.jpg 1\nb.jpg 3\n", "a.jpg").classes == ("1", "3")


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        ("polar bear\nsea\n", ("polar bear", "sea")),
        ("sea bear\n", ("sea", "bear")),
        ("polar bear, sea\n", ("polar bear", "sea")),
        ("sea\r\n\r\npolar bear \r\n", ("sea", "polar bear")),
    ],
)
def test_labels_have_names_of_one_word_or_several(read, names, classes):
    assert read("a.jpg 0 1\n", "a.jpg", labels=names).classes == classes


def test_names_that_do_not_fit_are_said(read):
    with pytest.warns(UserWarning, match=r"labels.txt has 3 names for the 2 columns of .*, which are called 0 to 1"):
        assert read("a.jpg 0 1\n", "a.jpg", labels="polar bear\nsea\nsun\n").classes == ("0", "1")
    with pytest.raises(HashretError, match=r"labels.txt has the name sea more than once"):
        read("a.jpg 0 1\n", "a.jpg", labels="sea\nsea\n")


def test_one_column_is_one_label_where_labels_has_one_name(read):
    source = read("a.jpg 0\nb.jpg 1\n", "a.jpg", labels="sea\n")
    assert (source.labels.tolist(), source.classes) == ([[0], [1]], ("sea",))
    with pytest.raises(HashretError, match=r"list.txt:2: .*; 2 is no label"):
        read("a.jpg 0\nb.jpg 2\n", "a.jpg")


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("a.jpg 0 1\nb.jpg 0 0.3\n", '2: a line must be "photo.jpg 0 1 0", "photo.jpg 3" or "photo.jpg cat"; 0.3 is'),
        ("a.jpg -1 1\nb.jpg 0 1\n", "2: a line must be .*; 0 is no label beside -1"),
        ("a.jpg 3 7\n", "1: a line must be .*; 3 is no label"),
        ("a.jpg 1.5\n", "1: a line must be .*; 1.5 is no label"),
        ("a.jpg -1\n", "1: a line must be .*; -1 is no label"),
        ("a.jpg 1e300\n", "1: a line must be .* is no label"),
        ("a.jpg polar bear\n", "1: a line must be .*; a class name of several words has a tab before it"),
        ("a.jpg\tpolar\tbear\n", "1: a line must be"),
        ("a.jpg nan 0\n", "1: a line must be"),
        ("image,label\na.jpg,cat\nb.jpg,dog\n", "1: image is no photograph; if this line names the columns, remove it"),
        ("a.jpg cat\n# comment\nb.jpg dog\n", "2: # is no photograph; if this line is a comment, remove it"),
        ("# the first line\na.jpg cat\n", "1: # is no photograph; if this line is a comment"),
        ("a.jpg 0 1\n\n #\n", "3: # is no photograph; if this line is a comment"),
        ("a.jpg 0 1\n# b.jpg 1 0\n", "2: # b.jpg is no photograph; if this line is a comment"),
        ("a.jpg 0 1\nb.jpg cat\n", "2: cat follows the path, but 2 numbers in the first line"),
        ("a.jpg cat\nb.jpg 3\n", "2: 3 follows the path, but a class name in the first line"),
        ("a.jpg cat\nb.jpg\n", "2: nothing follows the path, but a class name"),
        ("a.jpg 0 1\nb.jpg\n", "2: 0 label columns, but 2 in the first line"),
        ("path,label\na.jpg,3\n", "2: 3 follows the path, but a class name in the first line"),
        (b"a.jpg 0\x00 1\n", "holds NUL bytes; save it as UTF-8"),
        ("a.jpg 0 1\n".encode("utf-16-le"), "holds NUL bytes; save it as UTF-8"),
        (codecs.BOM_UTF16_LE + b"a\x00.", "cannot read the list"),
        ("\n \n", "is empty"),
        ("dir\\a.jpg 0 1\n", r"root=DIR, with / for each \\"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_line(read, content, line):
    with pytest.raises(HashretError, match=line):
        read(content, "a.jpg")


def test_names_that_begin_as_a_comment_does(read):
    assert read("a.jpg cat\n# b.jpg dog\n", "a.jpg", "# b.jpg").paths == ("a.jpg", "# b.jpg")
    assert read('a.jpg cat\n"# c.jpg" dog\n#d.jpg dog\n', "a.jpg").paths == ("a.jpg", "# c.jpg", "#d.jpg")


def test_photographs_that_are_named_twice_are_said(read):
    again = (
        r"list.txt names 2 photographs again, 1 of them with other labels, as b.jpg in lines 2 and 4; each line counts"
    )
    with pytest.warns(UserWarning, match=again):
        source = read("a.jpg 0 1\nb.jpg 1 0\na.jpg 0 1\nb.jpg 1 1\n", "a.jpg")
    assert source.labels.tolist() == [[0, 1], [1, 0], [0, 1], [1, 1]]


def test_whole_paths_and_a_root(read, tmp_path):
    inside = f"{tmp_path}/sub/a.jpg 0 1\n../{tmp_path.name}/b.jpg 1 0\n"
    for root in (None, tmp_path):
        source = read(inside, "sub/a.jpg", "b.jpg", root=root)
        assert [os.path.realpath(source.file(row)) for row in range(2)] == [
            f"{tmp_path}/sub/a.jpg",
            f"{tmp_path}/b.jpg",
        ]
    with pytest.raises(HashretError, match=r"list.txt names whole paths, as .*a.jpg, which root=.*sub2 cannot change"):
        read(inside, root=tmp_path / "sub2")


def test_names_that_are_not_utf8(read, tmp_path):
    with open(os.fsencode(tmp_path) + b"/caf\xe9.jpg", "wb"):
        pass
    source = read(b"caf\xe9.jpg 0 1\n")
    assert source.file(0).exists()
    assert source.paths == ("caf\udce9.jpg",)


def test_the_first_photographs_may_be_missing(read):
    source = read("gone.jpg 0 1\na.jpg 1 0\n", "a.jpg")
    assert [source.file(row).exists() for row in range(2)] == [False, True]


def test_a_list_that_is_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(HashretError, match="not a file"):
        open_data(f"list:{tmp_path}/pipe.txt")


def test_flags_of_many_lines_are_read_as_they_are(read):
    wanted = np.random.default_rng(0).integers(0, 2, (500, 21))
    lines = [f"images/{row:04d}_1.jpg {' '.join(map(str, flags))}\n" for row, flags in enumerate(wanted.tolist())]
    assert np.array_equal(read("".join(lines), "images/0000_1.jpg").labels, wanted)
