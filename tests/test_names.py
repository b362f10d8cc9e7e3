"""Names that are not plain text: kept as they are, shown as one harmless line, sent as JSON that gives them back."""

import json

import pytest

from hashret.names import json_lines, names_in, shown, shown_path, to_json


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("plain name.jpg", "plain name.jpg"),
        ("caf\udce9", r"caf\xe9"),
        ("a\nb\tc\rd", r"a\nb\tc\rd"),
        ("\x1b]0;owned\x07", r"\x1b]0;owned\x07"),
        ("\x9b2J\x85", r"\u009b2J\u0085"),
        ("a\u2028b\u2029c", r"a\u2028b\u2029c"),
        ("gpj.\u202ephoto\u2066\ufeff", r"gpj.\u202ephoto\u2066\ufeff"),
        ("\U000e0041", r"\U000e0041"),
        ("\ud83d", r"\ud83d"),
        ("e\u0301 \u00e9 日本\u3000語 5.02\u202fPM", "e\u0301 \u00e9 日本\u3000語 5.02\u202fPM"),
        ("👨\u200d👩\u200d👧 क्\u200cष", "👨\u200d👩\u200d👧 क्\u200cष"),
        (r"back\slash", r"back\slash"),
    ],
)
def test_shown(name, text):
    assert shown(name) == text
    assert shown(text) == text
    assert text.encode()
    assert len(text.splitlines()) == 1
    assert json.loads(to_json(name)) == name
    assert to_json(name).isascii()


def test_what_json_has_no_words_for_is_not_written():
    with pytest.raises(ValueError, match="JSON"):
        to_json({"map": float("nan")})


def test_a_path_is_shown_from_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert shown_path(str(tmp_path / "in\x07side")) == r"in\x07side"
    assert shown_path(str(tmp_path.parent / "out\x07side")) == str(tmp_path.parent) + r"/out\x07side"
    assert shown_path("") == ""


def test_lines_end_in_line_feeds_alone():
    names = ["a\u2028b", "c\x85d", "e\udcff", "f\x0bg\x0ch\x1ci"]
    assert json_lines("".join(to_json(name) + "\n" for name in names)) == names
    assert json_lines("\n".join(json.dumps(name, ensure_ascii=False) for name in names)) == names  # as earlier releases
    assert names_in(b"a\xe2\x80\xa8b\r\n\n c\xff \nlast") == ["a\u2028b", " c\udcff ", "last"]
    assert names_in(b"two\nlines\0\xff\r\0", null=True) == ["two\nlines", "\udcff\r"]
