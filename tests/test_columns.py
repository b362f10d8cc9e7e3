"""A column that is added to the one list is written to shards, carried into an index, and kept by its changes."""

import subprocess
import sys
from dataclasses import replace

import numpy as np

from hashret import shards
from hashret.data import open_data
from hashret.encoding import encode

CODE = """
import sys
from pathlib import Path
import numpy as np
from hashret import shards

shards.COLUMNS.append(shards.Column("taken", "taken", (("<i8", ()),), optional=True))

from hashret.files import write_json
from hashret.index import append, build_index, compact, open_index, remove

folder, (n, bits) = Path(sys.argv[1]), (9, 16)


def save(name, start):
    outputs = np.random.default_rng(start).random((n, bits), np.float32)
    paths = shards.encode_paths([f"/photos/{start + i}.jpg" for i in range(n)])
    codes, taken = np.packbits(outputs >= 0.5, axis=1), np.arange(start, start + n)
    shard = shards.Shard(codes, outputs, np.arange(n), paths, others={"taken": taken})
    keys = {"bits": bits, "encoder": "e", "image_size": 32}
    (folder / name).mkdir()
    shards.write_shard(folder / name / shards.shard_name(0), shard, first_id=0, **keys)
    manifest = {"precision": "float32", "shards": 1, "classes": [], "protocol": None}
    write_json(folder / name / shards.MANIFEST, keys | manifest)
    assert shards.ShardFolder(folder / name).load().others["taken"].tolist() == taken.tolist()


def kept():
    index = open_index(folder / "index", "cpu")
    return [part.columns["taken"][part.alive].tolist() for part in index.segments]


save("old", 100)
save("new", 200)
build_index(folder / "old", folder / "index")
append(folder / "index", folder / "new")
assert kept() == [[*range(100, 109)], [*range(200, 209)]]
remove(folder / "index", ids=[0, 17])
compact(folder / "index")
assert kept() == [[*range(101, 109), *range(200, 208)]]
"""


def test_one_entry_adds_a_column(tmp_path):
    done = subprocess.run([sys.executable, "-c", CODE, tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_encode_takes_a_column_from_the_source(photos, model, tmp_path, monkeypatch):
    taken = shards.Column("taken", "taken", (("<i8", ()),), optional=True)
    monkeypatch.setattr(shards, "COLUMNS", [*shards.COLUMNS, taken])
    source = replace(open_data(photos, "test"), columns={"taken": np.arange(100, 112)}).subset([7, 3, 5])
    encode(source, model, tmp_path / "codes", shard_size=2, workers=0)
    assert shards.ShardFolder(tmp_path / "codes").load().others["taken"].tolist() == [107, 103, 105]
