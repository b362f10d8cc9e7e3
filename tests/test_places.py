"""hashret where nothing but its output can be written: a package of somebody else's, and no home."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import hashret
from hashret.files import is_private
from hashret.index.hamming import has_compiled

pytestmark = pytest.mark.skipif(not has_compiled(), reason="needs numba")


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A copy of the package that nobody can write compiled code into, be it root."""
    root = tmp_path_factory.mktemp("package")
    shutil.copytree(Path(hashret.__file__).parent, root / "hashret", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "hashret" / "index" / "__pycache__").touch()
    return root


def run(package, code, folder, **environment):
    """Run Python code with that package and without a home: -> the lines that it printed."""
    kept = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    places = {
        "PYTHONPATH": str(package),
        "TMPDIR": str(folder / "tmp"),
        "HOME": str(package / "hashret" / "__init__.py"),
    }
    (folder / "tmp").mkdir(exist_ok=True)
    kept.pop("HASHRET_CACHE", None)
    kept.pop("XDG_CACHE_HOME", None)
    done = subprocess.run(
        [sys.executable, "-c", code], env=kept | places | environment, cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return (done.stdout + done.stderr).splitlines()


WHERE = """
from hashret.index.hamming import load_scan
print(load_scan()._search._cache.cache_path)
"""


def test_compiled_code_goes_where_it_can_be_written(package, tmp_path):
    def where(**environment):
        return Path(run(package, WHERE, tmp_path, **environment)[0])

    mine = tmp_path / "tmp" / f"hashret-{os.getuid()}" / "numba"
    assert where().is_relative_to(mine)
    assert mine.stat().st_mode & 0o777 == 0o700
    assert where(HASHRET_CACHE=str(tmp_path / "cache")).is_relative_to(tmp_path / "cache" / "numba")
    named = {"NUMBA_CACHE_DIR": str(tmp_path / "named"), "HASHRET_CACHE": str(tmp_path / "cache")}
    assert where(**named).is_relative_to(tmp_path / "named")


NOWHERE = """
import warnings, sys
from hashret.index import build_index, hamming, open_index
hamming._CODES_TO_COMPILE = 0
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    print(build_index({codes!r}, {out!r}).count)
    index = open_index({out!r}, "cpu").warm()
    print(len(index.search(index.codes()[:1], None, 5).positions[0]), hamming.load_scan())
for one in said:
    print(one.message)
"""


def test_without_any_place_faiss_searches_and_that_is_said_once(package, tmp_path, codes):
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp" / f"hashret-{os.getuid()}").touch()
    code = NOWHERE.format(codes=str(codes), out=str(tmp_path / "index"))
    count, found, note = run(package, code, tmp_path, HASHRET_CACHE=str(package / "hashret" / "errors.py"))
    assert (count, found) == ("36", "5 None")
    assert note.startswith("the compiled scan is not used, faiss searches: no folder to keep its code in")


def test_code_is_not_kept_where_others_can_put_theirs(tmp_path):
    assert is_private(tmp_path / "new" / "folder")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    assert not is_private(tmp_path / "open")
    (tmp_path / "link").symlink_to(tmp_path / "new")
    assert not is_private(tmp_path / "link")
    (tmp_path / "file").touch()
    assert not is_private(tmp_path / "file")
