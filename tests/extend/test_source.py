"""A data source from outside the package: photographs in a tar file, named ``photos.tar::red/00.png``."""

import io
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from conftest import make_photos
from PIL import Image

import hashret
from hashret.adding import add
from hashret.data import ImageSource, ReferenceKind, SourceRequest, register, register_references
from hashret.data.references import KINDS
from hashret.data.source import SOURCES
from hashret.errors import HashretError
from hashret.search import query


@dataclass(frozen=True)
class TarSource(ImageSource):
    """The photographs of a tar file, whose first folder is their class."""

    def reference(self, row: int) -> str:
        return f"{self.root}::{self.paths[row]}"


def open_tar(asked: SourceRequest) -> TarSource:
    root = Path(asked.where).absolute()
    try:
        with tarfile.open(root) as archive:
            paths = sorted(name for name in archive.getnames() if name.endswith(".png"))
    except (OSError, tarfile.TarError) as error:
        raise HashretError(f"cannot read the tar file {root}: {error}") from None
    names = [path.split("/", 1)[0] for path in paths]
    classes = tuple(sorted(set(names)))
    return TarSource(root, tuple(paths), np.array([classes.index(name) for name in names]), classes, asked.spec)


def member(reference: str) -> tuple[tarfile.TarFile, tarfile.TarInfo]:
    file, _, name = reference.partition("::")
    archive = tarfile.open(file)
    try:
        return archive, archive.getmember(name)
    except KeyError:
        archive.close()
        raise FileNotFoundError(2, "no such member", reference) from None


def read(reference: str) -> bytes:
    archive, found = member(reference)
    with archive:
        return archive.extractfile(found).read()


def status(reference: str) -> tuple[int, int]:
    archive, found = member(reference)
    with archive:
        return found.size, int(found.mtime * 1e9)


@pytest.fixture(scope="module", autouse=True)
def tar_files():
    register("tar", open_tar, "tar:FILE")
    register_references("tar", ReferenceKind(lambda text: ".tar::" in text, read, status))
    yield
    del SOURCES["tar"], KINDS["tar"]


def pack(folder, file):
    with tarfile.open(file, "w") as archive:
        for path in sorted(folder.rglob("*.png")):
            archive.add(path, path.relative_to(folder).as_posix())
    return file


@pytest.fixture(scope="module")
def place(tmp_path_factory, weights):
    """A model that was trained on a tar file, and an index of it."""
    place = tmp_path_factory.mktemp("tar")
    pack(make_photos(place / "photos", 12, seed=1), place / "photos.tar")
    pack(make_photos(place / "queries", 3, seed=2), place / "queries.tar")
    options = {"bits": 16, "image_size": 32, "backbone": "vgg11", "width": 32, "weights": weights, "batch_size": 8}
    hashret.train(f"tar:{place / 'photos.tar'}", place / "model.safetensors", epochs=40, lr=3e-3, workers=0, **options)
    hashret.encode(f"tar:{place / 'photos.tar'}", place / "model.safetensors", place / "codes", workers=1)
    hashret.build_index(place / "codes", place / "index")
    return place


def test_queries_find_members_and_are_members(place):
    asked = f"{place}/queries.tar::red/01.png"
    [(name, hits)] = query([asked], place / "index", place / "model.safetensors", k=5, device="cpu")
    assert name == asked
    assert {hit.label for hit in hits} == {"red"}
    assert all(hit.path.startswith(f"{place}/photos.tar::red/") for hit in hits)
    own = f"{place}/photos.tar::blue/03.png"
    [(_, hits)] = query([own], place / "index", place / "model.safetensors", k=3, exclude_self=True, device="cpu")
    assert own not in [hit.path for hit in hits]
    with pytest.raises(HashretError, match=r"cannot read .*photos\.tar::gone\.png: no such file"):
        query([f"{place}/photos.tar::gone.png"], place / "index", place / "model.safetensors", device="cpu")


def test_evaluate_encodes_a_tar_file_as_queries(place):
    figures = hashret.evaluate(
        f"tar:{place / 'queries.tar'}", place / "index", model=place / "model.safetensors", device="cpu"
    ).as_dict()
    assert figures["queries"] == 9
    assert figures["hamming"]["map"] > 0.9


def test_info_counts_members_by_the_name_of_the_source(place):
    described = hashret.info(f"tar:{place / 'queries.tar'}").as_dict()
    assert described == {
        "kind": "photographs", "photographs": 9, "classes": ["blue", "green", "red"], "passed_over": []
    }  # fmt: skip


def test_explain_draws_members(place, tmp_path):
    photo = f"{place}/queries.tar::green/00.png"
    [one] = hashret.explain(
        [photo], place / "model.safetensors", tmp_path / "explain.png", index=place / "index", k=2, device="cpu"
    )
    assert one.path == photo
    assert all(attribution is not None for _, attribution in one.hits)
    assert Image.open(tmp_path / "explain.png").width > 500


def test_the_service_shows_members(place):
    pytest.importorskip("fastapi", reason="needs hashret[serve]")
    from fastapi.testclient import TestClient

    from hashret.service.app import create_app

    with TestClient(create_app(place / "index", place / "model.safetensors", show_paths=True)) as client:
        item = client.get("/api/items/0").json()
        assert (item["path"], item["there"]) == (f"{place}/photos.tar::blue/00.png", True)
        picture = client.get("/api/items/0/thumbnail")
        assert Image.open(io.BytesIO(picture.content)).format == "WEBP"
        assert client.get("/api/items/0/maps").status_code == 200


def test_members_are_added_once_and_are_no_files_to_move_and_are_removed_when_they_are_gone(place, tmp_path):
    photos, model = make_photos(tmp_path / "photos", 4, seed=3), place / "model.safetensors"
    shutil.copy(photos / "red" / "00.png", photos / "red" / "copy.png")
    file = pack(photos, tmp_path / "photos.tar")
    hashret.encode(f"tar:{file}", model, tmp_path / "codes", workers=0)
    hashret.build_index(tmp_path / "codes", tmp_path / "index")
    assert add(tmp_path / "index", [f"tar:{file}"], model, device="cpu", workers=0).encoded == 0
    [group] = hashret.duplicates(tmp_path / "index")
    assert sorted(one.path for one in group) == [f"{file}::red/00.png", f"{file}::red/copy.png"]
    [move] = hashret.set_aside([group], tmp_path / "aside", yes=True)
    assert (move.to, move.why) == (None, "no file of its own")
    (photos / "red" / "00.png").unlink()
    pack(photos, file)
    assert hashret.remove(tmp_path / "index", gone=True).count == 1
