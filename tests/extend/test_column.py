"""A column from outside the package, the time a photograph was taken: from the source to the index, past an engine."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hashret import open_index, shards
from hashret.data import open_data
from hashret.encoding import encode
from hashret.errors import HashretError

CODE = """
import sys
from dataclasses import fields, replace
from pathlib import Path
import numpy as np
import pytest
from hashret.errors import HashretError
from hashret.shards import COLUMNS, Column, ShardFolder

COLUMNS.append(Column("taken", "taken", (("<i8", ()),), optional=True))

from extend.memory_engine import PHOTOGRAPHS
from fastapi.testclient import TestClient
from hashret.data import open_data
from hashret.encoding import encode
from hashret.engines import export, open_collection
from hashret.engines.engine import STORED
from hashret.index import append, build_index, compact, open_index, remove
from hashret.search import query
from hashret.service.app import create_app

photos, model, folder = map(Path, sys.argv[1:])


def encoded(subset, start):
    source = open_data(photos, subset)
    taken = np.arange(start, start + len(source))
    encode(replace(source, columns={"taken": taken}), model, folder / subset, shard_size=10, workers=0)
    assert ShardFolder(folder / subset).load().others["taken"].tolist() == taken.tolist()


def taken():
    index = open_index(folder / "index", "cpu")
    return dict(zip(index.ids[:].tolist(), index.column("taken")[:].tolist(), strict=True))


encoded("train", 100)
encoded("test", 200)
build_index(folder / "train", folder / "index")
append(folder / "index", folder / "test")
encode(open_data(photos, "test"), model, folder / "untaken", workers=0)
with pytest.raises(HashretError, match="untaken have no taken, as all of the index .*index have; encode them with it"):
    append(folder / "index", folder / "untaken")
wanted = {id: 100 + id if id < 36 else 200 + id - 36 for id in range(48)}
assert taken() == wanted
remove(folder / "index", ids=[0, 40])
compact(folder / "index")
assert taken() == {id: value for id, value in wanted.items() if id not in (0, 40)}

index, photo = open_index(folder / "index", "cpu"), photos / "test" / "red" / "00.png"
[(_, ours)] = query([photo], index, model, k=3, device="cpu")
positions = [index.find(hit.id)[0] for hit in ours]
assert index.column("taken")[positions].tolist() == [wanted[hit.id] for hit in ours]
assert [hit.as_dict()["columns"] for hit in ours] == [{"taken": wanted[hit.id]} for hit in ours]
with TestClient(create_app(folder / "index", model, "cpu")) as client:
    hits = client.get("/api/items/1/query").json()["hits"]
assert [hit["columns"] for hit in hits] == [{"taken": wanted[hit["id"]]} for hit in hits]

# An engine keeps what it searches and shows: the column stays behind, and answers are the same.
export(folder / "index", "memory:here#taken")
assert {len(photograph) for photograph in PHOTOGRAPHS["taken"].values()} == {len(STORED)}
[(_, theirs)] = query([photo], "memory:here#taken", model, k=3, device="cpu")
assert theirs == [replace(hit, columns={}) for hit in ours]
beside = open_collection("memory:here#taken", folder / "index").beside
assert beside.column("taken")[positions].tolist() == [wanted[hit.id] for hit in theirs]
"""

PLUGIN = """
from dataclasses import replace
import numpy as np
from hashret.data import open_data, register
from hashret.shards import COLUMNS, Column

COLUMNS.append(Column("taken", "taken", (("<i8", ()),), optional=True))


def open_dated(asked):
    source = open_data(asked.where, asked.subset)
    return replace(source, spec=asked.spec, columns={"taken": np.arange(len(source))})


register("dated", open_dated, "dated:DIR")
"""


def test_one_entry_adds_a_column(photos, model, tmp_path):
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", CODE, photos, model, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == 0, done.stderr


def test_encode_takes_a_column_of_the_rows_of_a_subset(photos, model, tmp_path, monkeypatch):
    taken = shards.Column("taken", "taken", (("<i8", ()),), optional=True)
    monkeypatch.setattr(shards, "COLUMNS", [*shards.COLUMNS, taken])
    source = replace(open_data(photos, "test"), columns={"taken": np.arange(100, 112)}).subset([7, 3, 5])
    encode(source, model, tmp_path / "codes", shard_size=2, workers=0)
    assert shards.ShardFolder(tmp_path / "codes").load().others["taken"].tolist() == [107, 103, 105]


def test_a_plugin_adds_a_column_to_the_verbs_and_its_lack_is_said(photos, model, tmp_path):
    (tmp_path / "dates.py").write_text(PLUGIN)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "HASHRET_PLUGINS": "dates"}
    for verb in (["encode", f"dated:{photos}", "--split", "test", "--model", model, "--workers", "0"], ["build-index"]):
        command = [sys.executable, "-m", "hashret", *map(str, verb)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert np.load(tmp_path / "index" / "000001" / "taken.npy").tolist() == list(range(12))
    command = [sys.executable, "-m", "hashret", "query", photos / "test" / "red" / "00.png", "--model", model, "--json"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert all(hit["columns"] == {"taken": hit["id"]} for hit in json.loads(done.stdout)["hits"]), done.stderr
    for read in (shards.read_shard, open_index):
        file = tmp_path / ("index" if read is open_index else "codes/codes-00000.h5")
        with pytest.raises(
            HashretError, match=f"^{file} has a column 'taken' that nothing here knows; name the plugin"
        ):
            read(file)
