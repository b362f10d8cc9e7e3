"""An index that mirrors a folder has what one built anew has, and nothing is encoded that was encoded before."""

import json
import os
import shutil
import threading
import time
import warnings

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import make_photo, make_photos
from PIL import Image

import hashret
from hashret.cli import main
from hashret.data import batches, formats
from hashret.errors import HashretError
from hashret.files import turn
from hashret.index import build_index, open_index, relocate, remove
from hashret.mirror import photographs, syncing


@pytest.fixture
def photos(tmp_path):
    """18 photographs in three folders."""
    return make_photos(tmp_path / "photos", 6, seed=3)


@pytest.fixture
def run(photos, model, monkeypatch):
    """Sync the photographs with an encoder that is there; ``run.decoded`` names what was read to be encoded."""
    read = batches.read_image

    def read_and_note(path, *arguments, **options):
        call.decoded.append(os.path.relpath(path, photos))
        return read(path, *arguments, **options)

    def call(**options):
        call.decoded = []
        return hashret.sync(photos, model=model, workers=0, **options)

    monkeypatch.setattr(batches, "read_image", read_and_note)
    call.decoded = []
    return call


def held_by(index):
    """What an index has: path -> code and hash outputs."""
    opened = open_index(index, "cpu")
    rows = opened.alive.nonzero()[0].tolist()
    return {opened.path(row): (opened.code(row).tobytes(), opened.hash_outputs[row].tobytes()) for row in rows}


def built_anew(photos, model, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        hashret.encode(photos, model, tmp_path / "anew-codes", workers=0, overwrite=True)
    build_index(tmp_path / "anew-codes", tmp_path / "anew", overwrite=True)
    return held_by(tmp_path / "anew")


pytestmark = pytest.mark.filterwarnings("ignore:.* passed over:UserWarning", "ignore:--include:UserWarning")


def counts(report):
    names = ("unchanged", "new", "changed", "moved", "gone", "encoded", "photographs")
    return {name: getattr(report, name) for name in names if getattr(report, name)}


def test_the_index_follows_the_folder(photos, model, run, tmp_path):
    own = photos / ".hashret" / "index"
    assert counts(run()) == {"new": 18, "encoded": 18, "photographs": 18}
    assert held_by(own) == built_anew(photos, model, tmp_path)
    assert counts(run()) == {"unchanged": 18, "photographs": 18}
    make_photo(photos / "red" / "later.png", "red", np.random.default_rng(9))
    shutil.copy(photos / "blue" / "00.png", photos / "green" / "01.png")  # another content, which is known
    make_photo(photos / "green" / "02.png", "blue", np.random.default_rng(8))
    (photos / "red" / "03.png").rename(photos / "blue" / "moved.png")
    (photos / "red" / "04.png").unlink()
    shutil.copy(photos / "red" / "05.png", photos / "copy.png")
    report = run()
    assert counts(report) == {
        "unchanged": 14, "new": 2, "changed": 2, "moved": 1, "gone": 1, "encoded": 2, "photographs": 19,
    }  # fmt: skip
    assert sorted(run.decoded) == ["green/02.png", "red/later.png"]
    assert held_by(own) == built_anew(photos, model, tmp_path)
    assert not (own / "pending").exists()


def test_two_names_change_places_and_a_folder_its_name(photos, model, run, tmp_path):
    run()
    (photos / "red" / "00.png").rename(tmp_path / "aside.png")
    (photos / "red" / "01.png").rename(photos / "red" / "00.png")
    (tmp_path / "aside.png").rename(photos / "red" / "01.png")
    (photos / "blue").rename(photos / "azure")
    assert counts(run()) == {"unchanged": 10, "changed": 2, "moved": 6, "photographs": 18}
    photos.joinpath("all").mkdir()
    for folder in ("azure", "green", "red"):
        (photos / folder).rename(photos / "all" / folder)
    assert counts(run()) == {"moved": 18, "photographs": 18}
    assert run.decoded == []
    assert held_by(photos / ".hashret" / "index") == built_anew(photos, model, tmp_path)


def test_a_touched_file_is_read_and_not_encoded(photos, run, monkeypatch):
    monkeypatch.setattr(photographs, "_SETTLED", 0)
    monkeypatch.setattr(photographs, "_TICK", 0)
    run()
    memory = photos / ".hashret" / "index" / "sync.json"
    written = memory.stat().st_mtime_ns
    assert counts(run()) == {"unchanged": 18, "photographs": 18}
    assert memory.stat().st_mtime_ns == written
    looked = []
    read = photographs._read
    monkeypatch.setattr(photographs, "_read", lambda path: looked.append(path) or read(path))
    os.utime(photos / "red" / "00.png", (1, 1))
    assert counts(run()) == {"unchanged": 18, "photographs": 18}
    assert looked == [str(photos / "red" / "00.png")]
    file = photos / "red" / "01.png"
    before, status = file.read_bytes(), file.stat()
    file.write_bytes(before[:-1] + b"\0")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))  # as some editors do
    assert counts(run()) == {"unchanged": 17, "changed": 1, "encoded": 1, "photographs": 18}


def test_folders_called_as_splits_are_folders(model, tmp_path):
    for name in ("train", "test", "database"):
        make_photos(tmp_path / "photos" / name, 1, seed=len(name))
    assert hashret.sync(tmp_path / "photos", model=model, workers=0).new == 9


def test_nothing_is_done_in_a_dry_run(photos, run):
    assert counts(run(dry_run=True)) == {"new": 18, "encoded": 18, "photographs": 18}
    assert not (photos / ".hashret").exists()
    run()
    (photos / "red" / "00.png").rename(photos / "moved.png")
    make_photo(photos / "new.png", "red", np.random.default_rng(9))
    state = (photos / ".hashret" / "index" / "index.json").read_bytes()
    report = run(dry_run=True)
    assert counts(report) == {"unchanged": 17, "new": 1, "moved": 1, "encoded": 1, "photographs": 19}
    assert report.dry_run
    assert (photos / ".hashret" / "index" / "index.json").read_bytes() == state
    assert run.decoded == []


def test_what_cannot_be_read_is_named_and_tried_again_when_it_changes(photos, model, run, tmp_path):
    (photos / "bad.jpg").write_bytes(b"no picture")
    with pytest.warns(UserWarning, match=r"cannot read .*bad\.jpg: "):
        report = run()
    assert [line["path"] for line in report.unreadable] == [str(photos / "bad.jpg")]
    assert "bad.jpg" in run.decoded
    shutil.copy(photos / "bad.jpg", photos / "red" / "00.png")
    with pytest.warns(UserWarning, match="cannot read"):
        report = run()
    assert len(report.unreadable) == 2
    assert counts(report) == {"unchanged": 17, "photographs": 17}
    assert run.decoded == []
    make_photo(photos / "bad.png", "red", np.random.default_rng(1)).rename(photos / "bad.jpg")
    (photos / "red" / "00.png").unlink()
    assert counts(run()) == {"unchanged": 17, "new": 1, "encoded": 1, "photographs": 18}
    assert held_by(photos / ".hashret" / "index") == built_anew(photos, model, tmp_path)


def test_what_another_limit_reads_is_tried_again_by_that_limit(photos, model, run, monkeypatch):
    monkeypatch.setenv("HASHRET_MAX_PIXELS", "1")
    Image.new("RGB", (1200, 1000), "red").save(photos / "wide.png")
    with pytest.warns(UserWarning, match=r"wide\.png: too large: 1200x1000 pixels, .*--max-pixels 2 "):
        assert run().photographs == 18
    with pytest.warns(UserWarning, match="wide"):
        run()
    assert run.decoded == []
    monkeypatch.setenv("HASHRET_MAX_PIXELS", "2")
    assert counts(run()) == {"unchanged": 18, "new": 1, "encoded": 1, "photographs": 19}


def test_photographs_whose_plugin_is_missing_stay_in_the_index(photos, run, monkeypatch):
    (photos / "red" / "00.png").rename(photos / "red" / "00.heic")
    monkeypatch.setattr(formats, "find_spec", lambda name: name)
    assert run().photographs == 18
    monkeypatch.setattr(formats, "find_spec", lambda name: None)
    with pytest.warns(UserWarning, match="install hashret.heic"):
        report = run(yes=True)
    assert (report.photographs, report.gone, report.out_of_reach) == (18, 0, 0)
    monkeypatch.setattr(formats, "find_spec", lambda name: name)
    assert counts(run()) == {"unchanged": 18, "photographs": 18}


def test_a_folder_of_none_that_can_be_read_gets_no_index(tmp_path, model):
    (tmp_path / "photos").mkdir()
    with pytest.raises(HashretError, match="no images in"):
        hashret.sync(tmp_path / "photos", model=model, workers=0)
    (tmp_path / "photos" / "bad.jpg").write_bytes(b"no picture")
    with pytest.raises(HashretError, match=r"cannot read .*bad\.jpg"):
        hashret.sync(tmp_path / "photos", model=model, workers=0)
    with pytest.raises(HashretError, match="engine"):
        hashret.sync(tmp_path / "photos", index="milvus:http://host:19530#photos", model=model)
    with pytest.raises(HashretError, match="no such folder"):
        hashret.sync(tmp_path / "missing", model=model)


def test_an_unmounted_disk_stays_in_the_index(photos, run):
    make_photos(photos / "disk", 4, seed=5)
    run()
    index = photos / ".hashret" / "index"
    os.utime(photos / "disk", (10**9, 10**9))
    shutil.copytree(photos / "disk", photos.parent / "unmounted")
    for folder in list((photos / "disk").iterdir()):
        shutil.rmtree(folder)
    os.utime(photos / "disk", (10**9, 10**9))
    with pytest.warns(UserWarning, match="12 photographs are out of reach"):
        report = run(yes=True)
    assert (report.out_of_reach, report.photographs) == (12, 30)
    shutil.rmtree(photos / "disk")
    (photos.parent / "unmounted").rename(photos / "disk")
    assert counts(run()) == {"unchanged": 30, "photographs": 30}
    assert len(open_index(index, "cpu")) == 30


def test_an_index_elsewhere_is_not_emptied_with_the_folder(photos, run, tmp_path):
    run(index=tmp_path / "index")
    for name in os.listdir(photos):
        shutil.rmtree(photos / name)
    os.utime(photos, (10**9, 10**9))
    with pytest.raises(HashretError, match=r"18 photographs are out of reach.*is a disk missing\?"):
        run(index=tmp_path / "index", yes=True)
    assert len(open_index(tmp_path / "index", "cpu")) == 18


def test_an_emptied_folder_keeps_its_index_until_that_is_wanted(photos, run):
    for name in ("red", "blue"):
        shutil.rmtree(photos / name)
    run(yes=True)
    for path in (photos / "green").iterdir():
        path.unlink()
    with pytest.warns(UserWarning, match="the files of 6 of 6 photographs are gone .* until --yes is given"):
        report = run()
    assert (report.photographs, report.held) == (6, 6)
    assert run(yes=True).photographs == 0


def test_a_large_part_goes_only_when_asked_for(photos, run):
    run()
    for folder in ("red", "blue"):
        for file in (photos / folder).iterdir():
            file.unlink()
    make_photo(photos / "new.png", "red", np.random.default_rng(1))
    with pytest.warns(UserWarning, match="the files of 12 of 18 photographs are gone from .* until --yes"):
        report = run()
    assert (report.held, report.gone, report.new, report.photographs) == (12, 0, 1, 19)
    report = run(yes=True)
    assert (report.held, report.gone, report.photographs) == (0, 12, 7)


def test_a_killed_sync_loses_nothing(photos, run, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    for function, before in (("create", 18), ("exchange", 1)):
        with monkeypatch.context() as patch:
            patch.setattr(syncing, function, interrupt)
            with pytest.raises(KeyboardInterrupt):
                run()
        assert len(run.decoded) == before
        (photos / "red" / "00.png").rename(photos / "blue" / "moved.png")
        assert run().encoded == 0
        make_photo(photos / "red" / "00.png", "green", np.random.default_rng(before))
        (photos / "blue" / "moved.png").unlink()
    assert counts(run()) == {"unchanged": 17, "new": 1, "gone": 1, "encoded": 1, "photographs": 18}


def test_what_changes_while_it_is_encoded_is_encoded_again(photos, model, run, tmp_path, monkeypatch):
    first, rng = photos / "red" / "00.png", np.random.default_rng(4)
    shutil.copy(first, photos / "red" / "zz-copy.png")
    read, changed = batches.read_image, []

    def read_and_change(path, *arguments, **options):
        if str(path) == str(first) and not changed:
            changed.append(make_photo(first, "blue", rng))
        return read(path, *arguments, **options)

    monkeypatch.setattr(batches, "read_image", read_and_change)
    report = run()
    assert (report.photographs, report.encoded) == (19, 20)
    assert held_by(photos / ".hashret" / "index") == built_anew(photos, model, tmp_path)


def test_two_at_once_wait_for_each_other(photos, run, caplog):
    run()
    lock, done = photos / ".hashret" / "index" / "sync.lock", []
    with turn(lock, "hashret sync, process 7 on elsewhere", print), caplog.at_level("INFO", "hashret"):
        waiting = threading.Thread(target=lambda: done.append(run()))
        waiting.start()
        while "waiting for" not in caplog.text:
            time.sleep(0.01)
        assert not done
    waiting.join(20)
    assert "waiting for hashret sync, process 7 on elsewhere" in caplog.text
    assert done[0].unchanged == 18


def test_a_change_by_another_verb_is_looked_at_again(photos, model, run, monkeypatch):
    run()
    index, exchange, removed = photos / ".hashret" / "index", syncing.exchange, []

    def exchange_after_another(*arguments, **options):
        if not removed:
            removed.append(remove(index, paths=["red/02.png"]))
        return exchange(*arguments, **options)

    monkeypatch.setattr(syncing, "exchange", exchange_after_another)
    make_photo(photos / "new.png", "red", np.random.default_rng(1))
    report = run()
    assert counts(report) == {"unchanged": 17, "new": 2, "encoded": 2, "photographs": 19}


def test_patterns_are_remembered(photos, run):
    assert run(exclude=["red"]).photographs == 12
    assert counts(run()) == {"unchanged": 12, "photographs": 12}
    assert counts(run(exclude=["green"])) == {"unchanged": 6, "new": 6, "gone": 6, "encoded": 6, "photographs": 12}
    shutil.copy(photos / "red" / "00.png", photos / ".hashret" / "own.png")
    assert counts(run(exclude=["green"], include=[".*"])) == {"unchanged": 12, "photographs": 12}


def test_many_changes_leave_few_pieces(photos, run, monkeypatch):
    monkeypatch.setattr(syncing, "_SEGMENTS", 3)
    run()
    for number in range(5):
        make_photo(photos / f"{number}.png", "red", np.random.default_rng(number))
        run()
    opened = open_index(photos / ".hashret" / "index", "cpu")
    assert len(opened.segments) <= 3
    assert len(opened) == 23
    assert counts(run()) == {"unchanged": 23, "photographs": 23}


def test_index_and_photographs_move_together_and_apart(photos, model, run, tmp_path):
    run()
    moved = tmp_path / "elsewhere" / "pictures"
    moved.parent.mkdir()
    photos.rename(moved)
    own = moved / ".hashret" / "index"
    assert counts(hashret.sync(moved, model=model, workers=0)) == {"unchanged": 18, "photographs": 18}
    assert set(held_by(own)) == {str(path) for path in moved.rglob("*.png")}
    own.rename(tmp_path / "index")
    with pytest.raises(HashretError, match=r"is of .*relocate"):
        hashret.sync(moved, index=tmp_path / "index", model=model)
    with pytest.raises(HashretError, match=r"none of the photographs .* is below"):
        relocate(tmp_path / "index", tmp_path)
    done = CliRunner().invoke(main, ["relocate", str(tmp_path / "index"), "--root", str(moved)])
    assert done.exit_code == 0, done.output
    assert "18 photographs" in done.output
    assert set(held_by(tmp_path / "index")) == {str(path) for path in moved.rglob("*.png")}
    report = hashret.sync(moved, index=tmp_path / "index", model=model, workers=0)
    assert counts(report) == {"unchanged": 18, "photographs": 18}


def test_a_folder_below_one_that_has_an_index_is_warned_of(photos, model, run):
    run()
    with pytest.warns(UserWarning, match=f"^{photos} has an index already, .* what is in {photos / 'red'}; this makes"):
        hashret.sync(photos / "red", model=model, workers=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hashret.sync(photos / "red", model=model, workers=0)
        hashret.sync(photos / "blue", index=photos.parent / "other-index", model=model, workers=0)
        run()


def test_paths_below_the_root_are_found_by_any_name(photos, model, run, tmp_path):
    run()
    index = photos / ".hashret" / "index"
    opened = open_index(index, "cpu")
    whole = str(photos / "red" / "00.png")
    for name in (whole, "red/00.png", "photos/red/00.png", f"{tmp_path.name}/photos/red/00.png"):
        [position] = np.flatnonzero(opened.matching(name))
        assert opened.path(position) == whole
    assert opened.matching("photos/red/*").sum() == opened.matching(f"{photos}/red/*").sum() == 6
    assert not opened.matching("hotos/red/00.png").any()
    (tmp_path / "link").symlink_to(photos)
    assert opened.known_files([whole, str(tmp_path / "link" / "red" / "00.png"), str(photos / "no.png")]).keys() == {
        whole, str(tmp_path / "link" / "red" / "00.png"),
    }  # fmt: skip
    assert hashret.add(index, photos, model, workers=0).encoded == 0
    make_photo(tmp_path / "other" / "one.png", "red", np.random.default_rng(1))
    assert hashret.add(index, tmp_path / "other", model, workers=0).encoded == 1  # whole, as it is not below the root
    make_photo(photos / "two.png", "red", np.random.default_rng(2))
    assert hashret.add(index, photos, model, workers=0).encoded == 1
    hashret.compact(index)
    assert set(held_by(index)) == {str(path) for path in (*photos.rglob("*.png"), tmp_path / "other" / "one.png")}
    assert counts(run()) == {"unchanged": 18, "changed": 1, "encoded": 1, "photographs": 19}  # its content was unknown


def test_an_index_that_was_built_is_taken_over(photos, model, run, tmp_path):
    hashret.encode(photos, model, tmp_path / "codes", workers=0)
    build_index(tmp_path / "codes", tmp_path / "index")
    labelled = open_index(tmp_path / "index", "cpu").meta["classes"]
    with pytest.raises(HashretError, match=r"was not made by hashret sync.*relocate"):
        run(index=tmp_path / "index")
    assert relocate(tmp_path / "index", photos).count == 18
    (photos / "red" / "00.png").unlink()
    report = run(index=tmp_path / "index")
    assert counts(report) == {"changed": 17, "gone": 1, "encoded": 17, "photographs": 17}
    opened = open_index(tmp_path / "index", "cpu")
    assert opened.meta["classes"] == labelled
    assert held_by(tmp_path / "index") == built_anew(photos, model, tmp_path)


def test_an_index_of_another_encoder_is_refused(photos, run, tmp_path):
    from conftest import make_model

    run()
    with pytest.raises(HashretError, match="built by another encoder"):
        hashret.sync(photos, model=make_model(tmp_path / "other.safetensors", seed=5))


def test_damaged_memory_costs_reading_and_no_encoding(photos, run):
    run()
    (photos / ".hashret" / "index" / "sync.json").write_text("{")
    assert counts(run()) == {"unchanged": 18, "photographs": 18}
    assert run.decoded == []


def test_the_first_sync_trains_an_encoder_and_the_index_remembers_it(photos, tmp_path, monkeypatch):
    import torch

    from hashret.models.efficientnet_lite import build_lite0

    torch.manual_seed(0)
    torch.save(build_lite0().state_dict(), tmp_path / "lite0.pth")
    asked = ["sync", str(photos), "--weights", str(tmp_path / "lite0.pth"), "--workers", "0", "--json"]
    done = CliRunner().invoke(main, asked, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert (report["trained"], report["new"], report["encoded"]) == (True, 18, 18)
    record = json.loads((photos / ".hashret" / "model.json").read_text())
    assert (record["method"], record["arch"], record["bits"]) == ("itq", "efficientnet_lite0", 48)
    assert not (photos / ".hashret" / "index" / "pending").exists()
    done = CliRunner().invoke(main, ["sync", str(photos)], catch_exceptions=False)
    assert "18 unchanged; 0 encoded, 18 in the index" in done.stdout
    photos.rename(tmp_path / "moved")
    make_photo(tmp_path / "moved" / "new.png", "red", np.random.default_rng(1))
    done = CliRunner().invoke(main, ["sync", str(tmp_path / "moved"), "--workers", "0"], catch_exceptions=False)
    assert "18 unchanged, 1 new; 1 encoded, 19 in the index" in done.stdout


def test_an_encoder_of_few_photographs_is_outgrown(photos, model, tmp_path):
    """It goes on, and a line says what to remove where there are ten times as many as it learned from."""
    own = photos / ".hashret" / "model.safetensors"
    own.parent.mkdir()
    shutil.copy(model, own)
    record = {"method": "itq", "train_images": 2}
    own.with_suffix(".json").write_text(json.dumps(record))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert hashret.sync(photos, workers=0).photographs == 18
    make_photos(photos / "more", 1, seed=9)
    with pytest.warns(UserWarning, match=r"learned from 2 photographs, and there are 21 now; remove .*index and "):
        hashret.sync(photos, workers=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert hashret.sync(photos, workers=0).unchanged == 21  # nothing came, nothing is said
        own.with_suffix(".json").write_text("{")
        make_photos(photos / "others", 1, seed=10)
        assert hashret.sync(photos, workers=0).photographs == 24


def test_what_is_left_out_of_the_walk_is_kept_where_it_may_be_there(photos, run, tmp_path):
    """A link whose disk is missing leaves nothing; a file that is named otherwise now leaves the index."""
    (tmp_path / "disk").mkdir()
    make_photo(tmp_path / "disk" / "far.png", "red", np.random.default_rng(1))
    (photos / "link.png").symlink_to(tmp_path / "disk" / "far.png")
    assert run().photographs == 19
    shutil.rmtree(tmp_path / "disk")
    (photos / "red" / "00.png").rename(photos / "red" / ".00.png")
    with pytest.warns(UserWarning, match="1 photographs are out of reach"):
        report = run()
    assert (report.out_of_reach, report.gone, report.photographs) == (1, 1, 18)
