"""Groups of near-duplicates against a plain reference, and the verb as a user runs it."""

import json
import os
import shutil
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image, ImageOps

from hashret.bits import hamming
from hashret.cli import main
from hashret.encoding import encode
from hashret.errors import HashretError
from hashret.index import append, build_index, open_index, remove
from hashret.near_duplicates.distances import BY, DISTANCES, vectors
from hashret.near_duplicates.groups import Photograph, criterion, duplicates, is_source
from hashret.rendering.pages import duplicates_page
from hashret.rendering.text import duplicates_table

ALL = 24  # bits of the model: every code is within that radius


def hashret(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def make_place(root, model):
    """Six photographs in a folder, five copies of four of them, shards and an index with features of all."""
    rng = np.random.default_rng(0)
    (root / "photos" / "copies").mkdir(parents=True)
    for number in range(6):
        pattern = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
        pattern.resize((96, 80), Image.Resampling.BICUBIC).save(root / "photos" / f"{number}.png")
    copies = {
        "0-small.png": lambda image: image.resize((48, 40)),
        "1-large.png": lambda image: image.resize((192, 160)),
        "2-again.jpg": lambda image: image,
        "3-mirrored.png": ImageOps.mirror,
    }
    for name, change in copies.items():
        with Image.open(root / "photos" / f"{name[0]}.png") as image:
            change(image).save(root / "photos" / "copies" / name)
    shutil.copy(root / "photos" / "0.png", root / "photos" / "copies" / "0-exact.png")
    encode(root / "photos", model, root / "codes", features=True, workers=0)
    build_index(root / "codes", root / "index")
    return root


@pytest.fixture(scope="module")
def copied(tmp_path_factory, model):
    """Photographs, copies and an index of them, to look at."""
    return make_place(tmp_path_factory.mktemp("copied"), model)


@pytest.fixture
def place(tmp_path, model, monkeypatch):
    """The same, to change."""
    monkeypatch.chdir(tmp_path)
    return make_place(tmp_path, model)


def names(groups):
    return [[Path(photograph.path).stem for photograph in group] for group in groups]


def test_copies_are_found_and_the_largest_is_kept(copied):
    groups = duplicates(copied / "index", radius=ALL)
    assert names(groups) == [["0", "0-exact", "0-small"], ["2", "2-again"], ["1-large", "1"]]
    for kept, *copies in groups:
        assert (kept.keep, kept.hamming, kept.euclidean) == (True, 0, 0.0)
        assert all(not copy.keep and 0 <= copy.euclidean <= DISTANCES["pixels"] for copy in copies)
    exact, small = groups[0][1:]
    assert (exact.hamming, exact.euclidean) == (0, 0.0)
    assert (small.width, small.height, small.bytes) == (48, 40, os.path.getsize(small.path))


def test_a_smaller_distance_finds_less(copied):
    assert names(duplicates(copied / "index", radius=ALL, distance=0)) == [["0", "0-exact"]]


def test_groups_say_how_they_were_found(copied):
    groups = duplicates(copied / "index", radius=ALL)
    assert groups.criterion == criterion(copied / "index", ALL) == "codes within 24 bits, pixels within 6 grey levels"
    found = groups.as_dict()
    assert (found["radius"], found["by"], found["distance"], len(found["groups"])) == (ALL, "pixels", 6.0, 3)
    assert found["groups"][1] == {"group": 2, "photographs": [photograph.as_dict() for photograph in groups[1]]}
    assert duplicates(copied / "index", radius=0, by="codes").criterion == "codes within 0 bits"


def reference(index, by, radius, distance):
    """Groups by the definition: pairs, what they link, and of it what is within reach of the best photograph left."""
    rows = np.flatnonzero(index.alive)
    codes, x = index.codes()[rows], vectors(index, rows, by)
    bits = hamming(codes, codes)
    apart = bits if x is None else np.linalg.norm(x[:, None] - x[None], axis=2)
    reach = radius if x is None else distance
    pair = (bits <= radius) & (apart <= reach)
    linked = [set(np.flatnonzero(line)) for line in pair]
    for _ in linked:
        linked = [set().union(*(linked[other] for other in part)) for part in linked]

    def rank(item):
        path = index.path(rows[item])
        with Image.open(path) as image:
            return -image.width * image.height, -os.path.getsize(path), index.ids[rows[item]]

    left, groups = sorted(range(len(rows)), key=rank), []
    while left:
        kept = left[0]
        group = {other for other in left if other in linked[kept] and apart[kept, other] <= reach}
        left = [other for other in left if other not in group]
        if len(group) > 1:
            groups.append((int(index.ids[rows[kept]]), {int(index.ids[rows[other]]) for other in group}))
    return sorted(groups)


@pytest.mark.filterwarnings("ignore:.* pass for copies")
@pytest.mark.parametrize("by", BY)
@pytest.mark.parametrize("radius", [0, 3, ALL])
def test_groups_are_those_of_the_definition(copied, by, radius, tmp_path):
    shutil.copytree(copied / "index", tmp_path / "index")
    append(tmp_path / "index", copied / "codes")  # the same files once more, under other ids
    remove(tmp_path / "index", [*range(11), 12])
    append(tmp_path / "index", copied / "codes")
    remove(tmp_path / "index", [22, *range(24, 33)])
    index = open_index(tmp_path / "index")
    assert len(index.segments) == 3
    for distance in (None,) if by == "codes" else (0.05, 0.4, 30):
        groups = duplicates(tmp_path / "index", radius=radius, by=by, distance=distance)
        got = sorted((group[0].id, {photograph.id for photograph in group}) for group in groups)
        assert got == reference(index, by, radius, distance)


def test_nothing_without_an_other(copied, tmp_path):
    shutil.copytree(copied / "index", tmp_path / "index")
    remove(tmp_path / "index", range(1, 11))
    for by in BY:
        assert duplicates(tmp_path / "index", radius=ALL, by=by) == []


def test_a_file_is_no_copy_of_itself(place):
    append("index", "codes")
    with pytest.warns(UserWarning, match="11 photographs are in the index more than once"):
        groups = duplicates("index", radius=ALL)
    assert names(groups) == [["0", "0-exact", "0-small"], ["2", "2-again"], ["1-large", "1"]]
    assert {photograph.id for group in groups for photograph in group} < set(range(11))


def test_a_link_is_no_copy_of_its_file(place):
    (place / "photos" / "0.png").unlink()
    (place / "photos" / "0.png").symlink_to(place / "photos" / "copies" / "0-exact.png")
    with pytest.warns(UserWarning, match=r"1 photographs are in the index .* by a link .*0\.png"):
        groups = duplicates("index", radius=ALL)
    assert names(groups) == [["2", "2-again"], ["0-exact", "0-small"], ["1-large", "1"]]


def test_a_file_of_several_names_is_no_copy_of_itself(tmp_path, model):
    """Names that `realpath` does not bring together: hard links, as in a folder that is mounted twice."""
    (tmp_path / "photos").mkdir()
    Image.effect_noise((40, 30), 90).save(tmp_path / "photos" / "a.png")
    os.link(tmp_path / "photos" / "a.png", tmp_path / "photos" / "b.png")
    encode(tmp_path / "photos", model, tmp_path / "codes", workers=0)
    build_index(tmp_path / "codes", tmp_path / "index")
    for by in ("pixels", "codes"):
        with pytest.warns(UserWarning, match="1 photographs are in the index .* one file of several names"):
            assert duplicates(tmp_path / "index", by=by) == []


def test_frames_pages_and_enlarged_copies(tmp_path, model):
    folder, rng = tmp_path / "photos", np.random.default_rng(0)
    folder.mkdir()
    frames = [Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)).resize((48, 40)) for _ in range(20)]
    other = [*frames[:-1], frames[3]]
    for name, pictures in {"a": frames, "again": frames, "ends-else": other, "shorter": frames[:-1]}.items():
        pictures[0].save(folder / f"{name}.tif", save_all=True, append_images=pictures[1:])
    frames[0].save(folder / "still.png")
    sharp = Image.effect_noise((64, 64), 60).convert("RGB")
    sharp.save(folder / "sharp.png")
    sharp.resize((128, 128), Image.Resampling.BICUBIC).save(folder / "twice.png")
    sharp.resize((32, 32), Image.Resampling.BICUBIC).save(folder / "half.png")
    sharp.resize((128, 128), Image.Resampling.LANCZOS).save(folder / "twice-95.jpg", quality=95)
    encode(folder, model, tmp_path / "codes", workers=0)
    build_index(tmp_path / "codes", tmp_path / "index")
    [enlarged, pages] = duplicates(tmp_path / "index", radius=ALL)
    assert enlarged[0].path.endswith("sharp.png")
    assert {Path(photograph.path).stem for photograph in enlarged} == {"sharp", "twice", "half", "twice-95"}
    assert names([pages]) == [["a", "again"]]
    for by, distance in (("values", 30), ("codes", None)):
        with pytest.warns(UserWarning, match="pass for copies"):
            groups = duplicates(tmp_path / "index", radius=ALL, by=by, distance=distance)
        together = {frozenset(part) for part in names(groups)}
        assert frozenset({"a", "again"}) in together
        assert not any({"ends-else", "shorter"} & part for part in together)


def test_an_encoder_that_does_not_tell_photographs_apart_is_named(copied):
    with pytest.warns(UserWarning, match="10 of 11 photographs pass for copies of others: by its codes"):
        [group] = duplicates(copied / "index", radius=ALL, by="codes")
    assert len(group) == 11


@pytest.mark.filterwarnings("ignore:.* pass for copies")
def test_photographs_that_cannot_be_read_are_left_out(place):
    (place / "photos" / "0.png").unlink()
    (place / "photos" / "copies" / "2-again.jpg").write_bytes(b"\xff\xd8\xff damaged")
    with pytest.warns(UserWarning, match="2 photographs cannot be read and are left out"):
        groups = duplicates("index", radius=ALL)
    assert names(groups) == [["0-exact", "0-small"], ["1-large", "1"]]
    by_values = duplicates("index", radius=ALL, by="values", distance=30)
    assert names(by_values)[0][0] == "1-large"
    gone = {Path(photograph.path).stem for photograph in by_values[0] if photograph.bytes is None}
    assert gone == {"0", "2-again"}
    assert "-" in duplicates_table(by_values).splitlines()[-1]
    shutil.rmtree("photos")
    with pytest.raises(HashretError, match="none of the photographs can be read"):
        duplicates("index")


def test_the_verb_prints_writes_and_moves(place):
    done = hashret("duplicates", "index", "--radius", ALL, "--html", "page.html")
    assert done.exit_code == 0, done.output
    assert done.stderr == "page.html: 3 groups of 7 photographs\n"
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[0] == ["group", "keep", "hamming", "euclidean", "pixels", "bytes", "id", "path"]
    assert [line[0] for line in lines[1:]] == ["1", "1", "1", "2", "2", "3", "3"]
    assert lines[1][1:5] == ["keep", "0", "0", "96x80"]
    assert lines[3][-1] == "photos/copies/0-small.png"
    page = (place / "page.html").read_text()
    assert page.count("data:image/webp") == 7
    assert page.count('class="kept"') == 3
    assert (place / "photos" / "copies" / "0-small.png").as_uri() in page

    quiet = hashret("duplicates", "index", "--radius", ALL, "--html", "page.html", "-q")
    assert (quiet.stderr, quiet.stdout) == ("", done.stdout)

    done = hashret("duplicates", "index", "--radius", ALL, "--json", "--move-to", "aside", "--html", "page.html")
    assert "page.html: 3 groups of 7 photographs" in done.stderr
    groups = [json.loads(line) for line in done.stdout.splitlines()]
    assert [len(group["photographs"]) for group in groups] == [3, 2, 2]
    assert set(groups[0]["photographs"][0]) == {field.name for field in fields(Photograph)}
    assert "4 photographs would be moved to aside; add --yes" in done.stderr
    assert not (place / "aside").exists()

    done = hashret("duplicates", "index", "--radius", ALL, "--move-to", "aside", "--yes")
    assert "4 photographs moved; hashret restore aside moves them back" in done.stderr
    assert "now run: hashret remove index --gone" in done.stderr
    assert sorted(path.name for path in (place / "aside").iterdir()) == [
        "0-exact.png", "0-small.png", "1.png", "2-again.jpg", "moved.jsonl"
    ]  # fmt: skip
    assert len(open_index("index")) == 11
    assert "4 photographs removed" in hashret("remove", "index", "--gone").output
    assert hashret("duplicates", "index", "--radius", ALL).output == "no duplicates\n"
    done = hashret("restore", "aside")
    assert "aside: 4 photographs moved back" in done.output
    assert len(list((place / "photos").rglob("*.*"))) == 11


def test_the_page_says_how_many_groups_it_leaves_out(copied, tmp_path):
    groups = duplicates(copied / "index", radius=ALL)
    duplicates_page(groups, tmp_path / "page.html", {"alike": "<so>"}, most=2)
    page = (tmp_path / "page.html").read_text()
    assert "3, of which 2 are shown" in page
    assert "&lt;so&gt;" in page
    assert page.count("data:image/webp") == 5


def test_gone_photographs_are_not_removed_where_all_are(place):
    shutil.rmtree("photos")
    done = hashret("remove", "index", "--gone")
    assert done.exit_code == 2
    assert "is a disk missing?" in done.stderr
    assert len(open_index("index")) == 11


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--by", "colours"], "'colours' is not one of 'pixels', 'features', 'directions'"),
        (["--by", "codes", "--distance", 1], "--distance goes with another --by than codes"),
        (["--yes"], "--yes goes with --move-to"),
        (["--html", "photo.png"], "should end in .html"),
        (["--radius", -1], "-1 is not in the range"),
        (["--distance", "nan"], "numbers from 0 up"),
        (["--distance", "inf"], "numbers from 0 up"),
        (["--radius", ALL, "--move-to", "index/index.json", "--yes"], "is a file; name a folder"),
    ],
)
def test_mistakes_get_one_line(copied, monkeypatch, options, says):
    monkeypatch.chdir(copied)
    done = hashret("duplicates", "index", *options)
    assert done.exit_code == 2
    assert says in done.stderr.splitlines()[-1]


def test_an_index_json_of_another_program_makes_no_index(copied, tmp_path):
    shutil.copytree(copied / "photos", tmp_path / "photos")
    (tmp_path / "photos" / "index.json").write_text('{"images": ["a.jpg"], "title": "Gallery"}')
    (tmp_path / "photos" / "202401").mkdir()
    assert is_source(tmp_path / "photos")
    assert len(duplicates(tmp_path / "photos", by="codes", workers=0)) > 0
    with pytest.raises(HashretError, match=r"holds an index\.json of another program; name another folder"):
        build_index(copied / "codes", tmp_path / "photos", overwrite=True)
    for text in ("{", (copied / "index" / "index.json").read_text()):
        (tmp_path / "photos" / "index.json").write_text(text)
        assert not is_source(tmp_path / "photos")


def test_an_index_that_does_not_keep_what_is_compared(copied, tmp_path, model):
    build_index(copied / "codes", tmp_path / "small", values=False)
    with pytest.raises(HashretError, match="keeps no values; build it without --no-values"):
        duplicates(tmp_path / "small", by="directions")
    encode(copied / "photos", model, tmp_path / "codes", workers=0)
    build_index(tmp_path / "codes", tmp_path / "plain")
    with pytest.raises(HashretError, match="keeps no features; encode its photographs with --features"):
        duplicates(tmp_path / "plain", by="features")
    assert names(duplicates(tmp_path / "small", radius=ALL))[2] == ["1-large", "1"]
