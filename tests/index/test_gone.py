"""Photographs that are gone, and those that are only out of reach."""

import errno
import os
import shutil

import pytest
from click.testing import CliRunner

from hashret.cli import main
from hashret.errors import HashretError
from hashret.index import build_index, open_index, remove
from index.test_changes import make_shards


@pytest.fixture
def place(tmp_path):
    """An index of 30 photographs on a disk, 12 in a folder of the home and 3 in one below."""
    names = [f"media/disk/trips/{n:02d}.jpg" for n in range(30)] + [f"home/{n:02d}.jpg" for n in range(12)]
    names += [f"home/copies/{n}.jpg" for n in range(3)]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    make_shards(tmp_path / "shards", 45, 0, paths=[str(tmp_path / name) for name in names])
    build_index(tmp_path / "shards", tmp_path / "index")
    long_ago = 10**9
    for folder in ("media/disk/trips", "media/disk", "home/copies", "home"):
        os.utime(tmp_path / folder, (long_ago, long_ago))
    return tmp_path


def left(place):
    opened = open_index(place / "index", "cpu")
    return [os.path.relpath(opened.path(row), place) for row in opened.alive.nonzero()[0]]


def unmount_the_folder(disk):
    shutil.rmtree(disk)


def unmount_and_keep_the_mount_point(disk):
    before = disk.stat()
    shutil.rmtree(disk)
    disk.mkdir()
    os.utime(disk, ns=(before.st_atime_ns, before.st_mtime_ns))


def unmount_behind_a_link(disk):
    shutil.rmtree(disk)
    disk.symlink_to(disk.parent / "not mounted")


@pytest.mark.parametrize("unmount", [unmount_the_folder, unmount_and_keep_the_mount_point, unmount_behind_a_link])
@pytest.mark.parametrize("yes", [False, True])
def test_a_disk_that_is_not_mounted_keeps_its_photographs(place, unmount, yes):
    unmount(place / "media" / "disk")
    (place / "home" / "07.jpg").unlink()
    with pytest.warns(UserWarning, match=r"30 photographs are out of reach.*disk/trips \(30\)"):
        assert remove(place / "index", gone=True, yes=yes).count == 1
    assert len(left(place)) == 44
    assert "home/07.jpg" not in left(place)


def test_a_folder_that_cannot_be_looked_at_keeps_its_photographs(place, monkeypatch):
    lstat = os.lstat

    def fail(path, *arguments, **options):
        if "/disk/" in os.fspath(path):
            raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")
        return lstat(path, *arguments, **options)

    (place / "home" / "07.jpg").unlink()
    monkeypatch.setattr(os, "lstat", fail)
    with pytest.warns(UserWarning, match="30 photographs are out of reach"):
        assert remove(place / "index", gone=True, yes=True).count == 1


def test_an_emptied_folder_and_a_removed_one_beside_others_are_gone(place):
    for file in (place / "home" / "copies").iterdir():
        file.unlink()
    assert remove(place / "index", gone=True).count == 3
    shutil.rmtree(place / "home" / "copies")
    (place / "media" / "disk" / "trips" / "00.jpg").unlink()
    (place / "index" / "000001" / "ids.npy").touch()
    assert remove(place / "index", gone=True).count == 1
    assert len(left(place)) == 41


def test_a_removed_folder_beside_photographs_is_gone(place):
    shutil.rmtree(place / "home" / "copies")
    assert remove(place / "index", gone=True).count == 3


def test_a_large_share_goes_only_when_asked_for(place):
    for number in range(15):
        (place / "media" / "disk" / "trips" / f"{number:02d}.jpg").unlink()
    done = CliRunner().invoke(main, ["remove", str(place / "index"), "--gone"])
    assert done.exit_code == 2
    assert "the files of 15 of 45 photographs are gone from" in done.stderr
    assert "disk/trips (15); add --yes" in done.stderr
    assert len(left(place)) == 45
    done = CliRunner().invoke(main, ["remove", str(place / "index"), "--gone", "--yes"])
    assert "15 photographs removed" in done.output
    assert len(left(place)) == 30


def test_nothing_is_removed_where_nothing_is_there(place):
    shutil.rmtree(place / "media" / "disk")
    shutil.rmtree(place / "home")
    with pytest.raises(HashretError, match=r"45 photographs are out of reach.*is a disk missing\?"):
        remove(place / "index", gone=True, yes=True)
    assert len(left(place)) == 45
