"""Values as text for people: nothing is lost, nothing is invisible, and what offends is marked."""

import json
import string
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.airflow.ui.shown import age, every, moment, plain, raw_pieces, share, size

AT = datetime(2026, 11, 24, 3, 25, 20, tzinfo=UTC)
PLAIN = st.text(st.characters(categories=("L", "N", "P", "S", "Zs"), exclude_characters="\u3164\u115f\u1160"))
INVISIBLE = "\x00\x08\x0b\x1b\x7f\x85\xad\u061c\u200b\u200e\u2028\u202e\u2066\ufeff\ufff9\U000e0041"
POINTERS = st.lists(
    st.fixed_dictionaries({"code": st.just("x"), "pointer": st.text("/abc01~", max_size=6)}), max_size=4
)


@given(text=PLAIN.filter(lambda text: len(text) <= 2000), failures=POINTERS)
def test_what_is_neither_odd_nor_cut_is_shown_as_it_is(text: str, failures: list[dict[str, Any]]) -> None:
    pieces = raw_pieces(text.encode(), failures)
    assert "".join(piece.text for piece in pieces) == text
    assert {piece.kind for piece in pieces} <= {"text", "mark"}


@given(
    st.dictionaries(PLAIN, st.none() | st.integers() | PLAIN | st.lists(PLAIN, max_size=3), min_size=1, max_size=5),
    st.data(),
)
def test_the_value_that_a_failure_names_is_marked(sent: dict[str, Any], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(sent)))
    text = json.dumps(sent, ensure_ascii=False)
    if len(text) > 2000:
        return
    pointer = "/" + name.replace("~", "~0").replace("/", "~1")
    marked = [
        piece.text for piece in raw_pieces(text.encode(), [{"code": "x", "pointer": pointer}]) if piece.kind == "mark"
    ]
    assert marked == [json.dumps(sent[name], ensure_ascii=False)]


@given(st.binary(max_size=5000))
def test_any_bytes_become_visible_text(raw: bytes) -> None:
    failures = [{"code": "not_utf8"}, {"code": "not_json", "message": "Expecting value at character 3."}]
    shown = "".join(piece.text for piece in raw_pieces(raw, failures))
    shown.encode()  # no half of a surrogate pair is left, which no answer could hold
    assert not set(shown) & set(INVISIBLE)
    assert "\r" not in shown
    assert "\n" not in shown


def test_what_cannot_be_seen_is_named() -> None:
    pieces = raw_pieces(b"a\xff\xfe\xe2\x80\xaeb\r\0", [{"code": "not_utf8", "message": ""}])
    assert [(piece.kind, piece.text) for piece in pieces] == [
        ("text", "a"), ("odd", "\\xFF\\xFE"), ("odd", "U+202E"), ("text", "b"), ("odd", "\\rU+0000"),
    ]  # fmt: skip
    assert plain(f"x{INVISIBLE[0]}{INVISIBLE[11]}y") == "x⟨U+0000U+202E⟩y"


@pytest.mark.parametrize("at", [0, 100, 50_000, 99_999])
def test_a_long_line_is_cut_around_its_mark(at: int) -> None:
    text = "x" * at + "!" + "y" * (100_000 - at)
    message = f"Expecting value at character {at + 1}."
    pieces = raw_pieces(text.encode(), [{"code": "not_json", "message": message}])
    assert [piece.text for piece in pieces if piece.kind == "mark"] == ["!"]
    shown = sum(len(piece.text) for piece in pieces if piece.kind != "cut")
    cut = sum(int(piece.text.split()[1].replace(",", "")) for piece in pieces if piece.kind == "cut")
    assert shown <= 2000
    assert shown + cut == len(text)


def test_a_line_with_thousands_of_failures_is_shown_soon() -> None:
    names = [f"n{number}" for number in range(60_000)]
    text = json.dumps({name: {} for name in names})
    pieces = raw_pieces(text.encode(), ({"code": "nested_value", "pointer": f"/{name}"} for name in names))
    assert [piece.kind for piece in pieces] == ["text", "mark", "text", "cut"]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (None, ""),
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (1_440_000, "1.4 MB"),
        (5e9, "5.0 GB"),
        (2e15, "2,000.0 TB"),
    ],
)
def test_sizes(number: float | None, words: str) -> None:
    assert size(number) == words


@pytest.mark.parametrize(
    ("part", "whole", "words"),
    [(0, 0, "0 %"), (0, 9, "0 %"), (1, 10**6, "< 0.1 %"), (32, 1000, "3.2 %"), (1, 3, "33 %"),
     (9999, 10_000, "> 99.9 %"), (500, 501, "99.8 %"), (3, 3, "100 %")],
)  # fmt: skip
def test_shares(part: int, whole: int, words: str) -> None:
    assert share(part, whole) == words


@pytest.mark.parametrize(
    ("passed", "words"),
    [(0, "just now"), (59, "just now"), (60, "1 minute ago"), (7200, "2 hours ago"), (200_000, "2 days ago"),
     (-30, "in a moment"), (-3600, "in 1 hour")],
)  # fmt: skip
def test_ages(passed: int, words: str) -> None:
    assert age(AT - timedelta(seconds=passed), AT) == words


@pytest.mark.parametrize(
    ("length", "words"),
    [(timedelta(hours=1), "every hour"), (timedelta(hours=24), "every day"), (timedelta(hours=36), "every 36 hours"),
     (timedelta(days=7), "every 7 days"), (timedelta(minutes=90), "every 90 minutes"),
     (timedelta(seconds=1.5), "every 1.5 seconds")],
)  # fmt: skip
def test_how_often(length: timedelta, words: str) -> None:
    assert every(length) == words


def test_what_never_was_is_nothing() -> None:
    assert (age(None), moment(None), moment(AT)) == ("", "", "2026-11-24 03:25:20")
    assert set(string.printable) - set(plain(string.printable)) == set("\n\r\x0b\x0c"), "what can be seen stays"
