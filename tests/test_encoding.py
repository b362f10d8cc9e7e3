import json
import os
import shutil
import signal
import subprocess
import time

import h5py
import numpy as np
import pytest
from conftest import make_model, make_photos
from helpers import kill_when, start, together, torchrun, tree_bytes
from PIL import Image

from hashret import encoding, files
from hashret.bits import binarize, pack
from hashret.data import open_data, read_image
from hashret.data.feature_cache import PRESENT, FeatureCache
from hashret.encoding import encode
from hashret.errors import HashretError
from hashret.files import locked
from hashret.models.checkpoint import load_encoder, read_meta
from hashret.shards import ShardFolder, decode_path


def run(data, model, out, **options):
    return encode(data, model, out, workers=options.pop("workers", 0), **options)


def test_shards_hold_codes_values_labels_and_paths(photos, codes, model):
    source = open_data(photos, "train")
    rows = ShardFolder(codes).load()
    assert len(rows) == 36
    assert len(list(codes.glob("*.h5"))) == 4
    assert rows.ids.tolist() == list(range(36))
    assert np.array_equal(rows.labels, source.labels)
    assert decode_path(rows.paths[5]) == str(source.file(5))
    assert np.array_equal(rows.codes, pack(binarize(rows.hash_outputs)))
    encoder = load_encoder(model, "cpu")
    alone = encoder.hash_outputs(read_image(source.file(20), 32)[None])
    assert np.array_equal(rows.hash_outputs[20], alone[0])


def test_workers_and_shard_sizes_do_not_change_the_rows(photos, model, codes, tmp_path):
    run(photos, model, tmp_path / "codes", split="train", workers=2, shard_size=17)
    one, other = ShardFolder(codes).load(), ShardFolder(tmp_path / "codes").load()
    for name in ("codes", "hash_outputs", "ids", "labels"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name


def test_what_cannot_be_read_is_listed_and_the_run_goes_on(model, tmp_path):
    make_photos(tmp_path / "photos", 3, 0)
    (tmp_path / "photos" / "green" / "00.png").write_bytes(b"")
    whole = (tmp_path / "photos" / "red" / "02.png").read_bytes()
    (tmp_path / "photos" / "red" / "02.png").write_bytes(whole[:300])
    report = run(tmp_path / "photos", model, tmp_path / "codes", shard_size=4)
    assert (report.encoded, report.skipped) == (7, 2)
    lines = [json.loads(line) for line in (tmp_path / "codes" / "skipped.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == [3, 8]
    assert "empty" in lines[0]["reason"]
    assert "truncated" in lines[1]["reason"]
    assert lines[1]["path"].endswith("red/02.png")
    assert ShardFolder(tmp_path / "codes").load().ids.tolist() == [0, 1, 2, 4, 5, 6, 7]


def test_a_plain_folder_of_odd_pictures(model, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    picture = Image.effect_noise((50, 30), 80)
    for mode, name in (("L", "grey.png"), ("CMYK", "cmyk.jpg"), ("P", "palette.gif"), ("RGBA", "alpha.webp")):
        picture.convert(mode).save(folder / name)
    Image.fromarray(np.arange(900, dtype=np.uint16).reshape(30, 30) * 70).save(folder / "sixteen.png")
    (folder / "ünï code\n.png").write_bytes((folder / "grey.png").read_bytes())
    report = run(folder, model, tmp_path / "codes")
    assert (report.encoded, report.skipped) == (6, 0)
    rows = ShardFolder(tmp_path / "codes").load()
    assert rows.labels is None
    assert decode_path(rows.paths[-1]).endswith("ünï code\n.png")


def test_nothing_but_broken_files(model, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"no picture")
    report = run(folder, model, tmp_path / "codes")
    assert (report.encoded, report.skipped) == (0, 1)


def test_a_killed_run_ends_in_the_same_bytes(photos, model, tmp_path):
    make_photos(tmp_path / "photos", 30, 5)
    (tmp_path / "photos" / "red" / "07.png").write_bytes(b"")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run(tmp_path / "photos", model, whole, shard_size=5)
    code = (
        "from hashret.encoding import encode; "
        f"encode({str(tmp_path / 'photos')!r}, {str(model)!r}, {str(broken)!r}, shard_size=5, workers=1)"
    )
    kills = 0
    for wanted in (1, 4, 9):
        kills += kill_when(start(code), lambda wanted=wanted: len(list(broken.glob("codes-*.h5"))) >= wanted)
    assert kills, "every run ended before it could be killed"
    gone = subprocess.Popen(["true"])
    gone.wait()
    (broken / f".codes-00011.h5.{gone.pid}.tmp").write_bytes(b"left over")
    report = run(tmp_path / "photos", model, broken, shard_size=5)
    assert (report.encoded, report.skipped) == (89, 1)
    assert tree_bytes(broken) == tree_bytes(whole)


def test_existing_output_is_refused_unless_it_is_the_same_unfinished_run(photos, model, codes, tmp_path):
    out = tmp_path / "codes"
    shutil.copytree(codes, out)
    options = {"split": "train", "shard_size": 10}
    with pytest.raises(HashretError, match="complete already"):
        run(photos, model, out, **options)
    (out / "skipped.jsonl").unlink()
    (out / "codes-00002.h5").unlink()
    with pytest.raises(HashretError, match="another run"):
        run(photos, model, out, split="test", shard_size=10)
    with pytest.raises(HashretError, match="another run"):
        run(photos, make_model(tmp_path / "m.safetensors", seed=9), out, **options)
    run(photos, model, out, **options)
    assert tree_bytes(out) == tree_bytes(codes)
    run(photos, model, out, split="test", overwrite=True)
    assert len(ShardFolder(out).load()) == 12
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    for overwrite in (False, True):
        with pytest.raises(HashretError, match="exists already and is no folder of shards"):
            run(photos, model, tmp_path / "mine", split="test", overwrite=overwrite)
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"


def test_overwritten_shards_stay_until_the_new_run_is_complete(photos, model, codes, tmp_path, monkeypatch):
    out, options = tmp_path / "codes", {"split": "train", "shard_size": 10, "overwrite": True}
    run(photos, model, out, split="test")
    before = tree_bytes(out)
    write, replace_folder, written = encoding._Run._write, encoding.replace_folder, []

    def interrupted(self, number, *rest):
        if len(written) in (2, 3):
            written.append(None)
            raise KeyboardInterrupt
        written.append(number)
        write(self, number, *rest)

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(encoding._Run, "_write", interrupted)
    monkeypatch.setattr(encoding, "replace_folder", interrupt)
    for _ in range(3):  # before its shards are all there, and when they are
        with pytest.raises(KeyboardInterrupt):
            run(photos, model, out, **options)
        assert tree_bytes(out) == before
        assert len(ShardFolder(out).load()) == 12
    monkeypatch.setattr(encoding, "replace_folder", replace_folder)
    run(photos, model, out, **options)
    assert [number for number in written if number is not None] == [0, 1, 2, 3]
    assert tree_bytes(out) == tree_bytes(codes)
    assert os.listdir(tmp_path) == ["codes"]


def test_an_interrupted_overwrite_of_something_else_begins_anew(photos, model, codes, tmp_path, monkeypatch):
    out = tmp_path / "codes"
    run(photos, model, out, split="test")
    shutil.copytree(codes, tmp_path / ".codes.new")
    (tmp_path / ".codes.new" / "pending").touch()
    run(photos, model, out, split="test", shard_size=5, overwrite=True)
    assert len(ShardFolder(out).load()) == 12
    assert os.listdir(tmp_path) == ["codes"]


def test_what_is_not_hashrets_is_not_overwritten(photos, model, codes, tmp_path):
    out = tmp_path / "codes"
    shutil.copytree(codes, out)
    (out / "notes").mkdir()
    with pytest.raises(HashretError, match="holds notes, which hashret did not write there"):
        run(photos, model, out, split="test", overwrite=True)
    (out / "notes").rename(tmp_path / "notes")
    assert tree_bytes(out) == tree_bytes(codes)
    assert sorted(os.listdir(tmp_path)) == ["codes", "notes"]


def test_one_run_at_a_time_writes_to_a_folder(photos, model, codes, tmp_path):
    out = tmp_path / "codes"
    shutil.copytree(codes, out)
    with locked(out), pytest.raises(HashretError, match="another hashret encode writes to"):
        run(photos, model, out, split="test", overwrite=True)
    assert tree_bytes(out) == tree_bytes(codes)


def test_a_run_that_has_taken_its_place_is_still_the_only_one(photos, model, codes, tmp_path, monkeypatch):
    out, remove_old = tmp_path / "codes", files.remove_own
    shutil.copytree(codes, out)

    def remove_while_another_run_begins(folder, names):
        with pytest.raises(HashretError, match="another hashret encode writes to"):
            run(photos, model, out, split="test", overwrite=True)
        remove_old(folder, names)

    monkeypatch.setattr(files, "remove_own", remove_while_another_run_begins)
    run(photos, model, out, split="test", overwrite=True)
    assert len(ShardFolder(out).load()) == 12
    assert os.listdir(tmp_path) == ["codes"]


def test_shards_that_were_replaced_are_not_read_as_the_others(photos, model, codes, tmp_path):
    out = tmp_path / "codes"
    shutil.copytree(codes, out)
    opened = ShardFolder(out)
    opened.read(0)
    run(photos, model, out, split="test", shard_size=5, overwrite=True)
    with pytest.raises(HashretError, match="was encoded anew while it was read"):
        opened.read(1)


def test_an_unfinished_folder_is_not_taken_for_a_whole_one(codes, tmp_path):
    shutil.copytree(codes, tmp_path / "codes")
    (tmp_path / "codes" / "codes-00001.h5").unlink()
    with pytest.raises(HashretError, match="1 of 4 shards are missing"):
        ShardFolder(tmp_path / "codes")


@pytest.mark.parametrize("fill", [False, True])
def test_cached_features_give_the_same_shards(photos, model, codes, tmp_path, fill):
    cache = tmp_path / "cache"
    if not fill:  # a cache that an interrupted training left half full
        source, encoder = open_data(photos, "train"), load_encoder(model, "cpu")
        half = FeatureCache(cache, source, read_meta(model)["weights_fingerprint"], 32, encoder.compute_dtype)
        half.fill(encoder.backbone, workers=0)
        state = np.fromfile(half.folder / "state.u8", np.uint8)
        assert (state == PRESENT).all()
        state[7:20] = 0
        state.tofile(half.folder / "state.u8")
    run(photos, model, tmp_path / "codes", split="train", shard_size=10, cache=cache, fill_cache=fill)
    assert tree_bytes(tmp_path / "codes") == tree_bytes(codes)


@pytest.mark.parametrize(("processes", "fill"), [(2, True), (3, False), (5, True)])
def test_several_processes_write_the_bytes_of_one(photos, model, codes, tmp_path, processes, fill):
    """Four shards, the last of six photographs: three processes have unequal shares, a fifth has none."""
    options = {"split": "train", "shard_size": 10, "cache": tmp_path / "cache", "fill_cache": fill}
    found = together(run, processes, photos, model, tmp_path / "codes", **options)
    assert (found[0].encoded, found[0].skipped) == (36, 0)
    assert found[1:] == [None] * (processes - 1)
    assert tree_bytes(tmp_path / "codes") == tree_bytes(codes)


def test_several_processes_lose_one_and_the_next_run_ends_in_the_same_bytes(model, tmp_path):
    make_photos(tmp_path / "photos", 60, 5)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run(tmp_path / "photos", model, whole, shard_size=2)
    arguments = ["encode", str(tmp_path / "photos"), "--model", str(model), "--out", str(broken), "--shard-size", "2"]
    process = torchrun(*arguments, "--workers", "1", processes=3, launcher="hashret.launch")
    while process.poll() is None and len(list(broken.glob("codes-*.h5"))) < 3:
        time.sleep(0.002)
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    os.kill(int(children[-1]), signal.SIGKILL)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGKILL
    assert output == ""
    told = sorted(errors.splitlines())
    assert len(told) == 2
    assert "a process of this run was lost" in told[0]
    assert told[1].endswith("was killed by SIGKILL")
    assert 3 <= len(list(broken.glob("codes-*.h5"))) < 90
    process = torchrun(*arguments)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "180 encoded, 0 skipped" in output
    assert tree_bytes(broken) == tree_bytes(whole)


def test_a_full_disk_is_one_line_and_what_was_written_stays(model, tmp_path):
    """A limit on file sizes stands in for the full disk: both make a write fail midway."""
    make_photos(tmp_path / "photos", 4, 0)
    code = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "from hashret.cli import main; import hashret.encoding, h5py; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)); "
        f"main(['encode', {str(tmp_path / 'photos')!r}, '--model', {str(model)!r},"
        f" '--out', {str(tmp_path / 'codes')!r}, '--workers', '0', '--shard-size', '5'])"
    )
    process = start(code)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 2, output
    assert "cannot write" in output
    assert "Traceback" not in output
    assert not list((tmp_path / "codes").glob("*.tmp"))
    report = run(tmp_path / "photos", model, tmp_path / "codes", shard_size=5)
    assert report.encoded == 12


def test_shards_record_the_encoder(codes, model):
    with h5py.File(codes / "codes-00001.h5") as file:
        assert file.attrs["encoder"] == read_meta(model)["fingerprint"]
        assert file.attrs["first_id"] == 10
        assert file.attrs["bits"] == 24
        assert file.attrs["image_size"] == 32
