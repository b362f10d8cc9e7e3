import pytest

from hashret.demo import write_digits


def test_digits_are_mended_and_what_is_not_theirs_stays(tmp_path):
    pytest.importorskip("sklearn", reason="needs hashret[demo]")
    write_digits(tmp_path / "digits")
    picture = tmp_path / "digits" / "test" / "3" / "0003.png"
    before = picture.read_bytes()
    picture.write_bytes(b"")
    (tmp_path / "digits" / "mine.txt").write_text("mine")
    write_digits(tmp_path / "digits")
    assert picture.read_bytes() == before
    assert (tmp_path / "digits" / "mine.txt").read_text() == "mine"
    assert len(list((tmp_path / "digits").rglob("*.png"))) == 1797
