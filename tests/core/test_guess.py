"""Which format a file begins like: every format's examples, wrong pairs refused once, and anything else left alone."""

import gzip
import json
import re
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.cli import cli
from ingest.core.filetype import kind_of
from ingest.core.formats import FORMATS, open_format
from ingest.core.formats.guess import guess
from tests.core.lines import lines
from tests.core.test_bodies import BODIES
from tests.support import ROOT

CASES = ROOT / "tests" / "cases"
HEAD = 65_536
EXAMPLES = {
    "kissmetrics": [ROOT / "examples" / "sample.json", *sorted(CASES.glob("*.jsonl"))],
    **{
        name: [path for path in sorted((CASES / name).glob("*.json")) if not path.name.endswith(".expected.json")]
        for name in FORMATS[1:]
    },
}
LINES_IN_A_DOCUMENT = "vendor_page_invalid.jsonl"  # the vendor's example of what is no Kissmetrics file
PAIRS = [(right, path) for right, paths in EXAMPLES.items() for path in paths if path.name != LINES_IN_A_DOCUMENT]


@pytest.mark.parametrize(("format", "path"), PAIRS, ids=lambda one: getattr(one, "name", one))
def test_every_example_is_known_and_refused_as_any_other(format: str, path: Path) -> None:
    head = path.read_bytes()[:HEAD]
    assert guess(head) == format
    assert guess(b"\xef\xbb\xbf\r\n" + head) == format
    for given_as in FORMATS:
        refused = open_format(given_as).refusal(head)
        if given_as == format:
            assert refused is None
            continue
        assert refused
        (failure,) = refused.failures
        assert failure.code == "wrong_format" or (given_as == "kissmetrics" and failure.code == "document_not_lines")
        assert f"It seems to be {format}. Choose that format where you upload it" in failure.message


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("indent", [None, orjson.OPT_INDENT_2])
def test_a_document_that_is_cut_off_is_known(format: str, indent: int | None) -> None:
    """The head of a file ends where it ends."""
    one = {
        "kissmetrics": {"_p": "ann", "_t": 1393344604, "note": "x" * 100_000},
        "woopra": {
            "visitor": {"id": "ann"},
            "actions": [{"name": "x", "properties": {"a": [1, {"b": "x" * 100}]}}] * 900,
        },
        "webengage": {"users": [{"userId": "ann", "attributes": {"a": "x" * 100}}] * 900},
        "retailrocket": [{"order": {"sessionExternalId": "a", "productId": 1, "note": "x" * 100}}] * 900,
        "vitally": [{"type": "user", "userId": "7", "traits": {"a": {"b": "x" * 100}}}] * 900,
    }[format]
    head = orjson.dumps(one, option=indent)[:HEAD]
    assert len(head) == HEAD
    assert [guess(head[:size]) for size in (HEAD, HEAD - 1, HEAD - 2, HEAD - 77)] == [format] * 4


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        pytest.param(b"", None, id="nothing"),
        pytest.param(b" \n\n", None, id="blank lines"),
        pytest.param(b"_p,_t\nann,1393344604\n", None, id="CSV"),
        pytest.param(b"\x00\x01\xff\xfe", None, id="bytes"),
        pytest.param(b"{}\n[]\n7\n", None, id="nothing that tells"),
        pytest.param(b'{"a": 1}\n', None, id="an object"),
        pytest.param(b'{"_n": "x"}\n{"a": 1}\n', "kissmetrics", id="one line tells"),
        pytest.param(b'not JSON\n{"_p": "a"}\n', "kissmetrics", id="behind one that is broken"),
        pytest.param(b'{"a": 1, "_p": "x", "b": "\\302"}\n', "kissmetrics", id="octal escapes"),
        pytest.param(b'{"_p": "a"}\n{"visitor": {"id": "a"}}\n', None, id="two formats"),
        pytest.param(b'{"visitor":{"email":"a"}, "actions":[{"name":"x"}]', "woopra", id="a bracket short"),
        pytest.param(b'{"visitor": "ann"}', None, id="a visitor that is no object"),
        pytest.param(b'{"actions": [{"name": "x"}]}', "woopra", id="actions alone"),
        pytest.param(b'{"type": "delete", "pid": 1}', None, id="a delete line alone"),
        pytest.param(b'{"users": []}', None, id="no users"),
        pytest.param(b'{"users": [{"name": "x"}]}', None, id="users of something else"),
        pytest.param(b'{"events": [{"_p": "a", "_n": "x"}]}', None, id="events of something else"),
        pytest.param(b'{"events": [{"userId": "a", "eventName": "x"}]}', "webengage", id="events"),
        pytest.param(b"[]", None, id="an empty array"),
        pytest.param(b'[{"view": {}}]', "retailrocket", id="an envelope"),
        pytest.param(b'[{"view": 7}]', None, id="an envelope that holds none"),
        pytest.param(b'[{"view": {}}, {"a": {}}]', None, id="and one that is none"),
        pytest.param(b'{"view": {}}', None, id="an envelope without an array"),
        pytest.param(b'[{"type": "user", "userId": 7}]', "vitally", id="a message"),
        pytest.param(b'[{"type": "customobjectinstance", "userId": "a"}]', "vitally", id="a message that is not read"),
        pytest.param(b'{"type": "user", "userId": "a"}', None, id="a message without an array"),
        pytest.param(b'[{"type": "user", "name": "x"}]', None, id="a user of something else"),
        pytest.param(b'[{"type": "user", "userId": 7}, 7]', None, id="and a number"),
        pytest.param(b'[{"_p": "a"}]', "kissmetrics", id="lines in an array"),
        pytest.param(b'{"visitor": {}, "_p": "a"}', "kissmetrics", id="its own names before a part of a visit"),
        pytest.param(b'[{"visitor": {}}]', None, id="visits in an array"),
    ],
)
def test_only_what_is_sure_is_told(head: bytes, expected: str | None) -> None:
    assert guess(head) == expected


def test_a_printed_document_given_as_kissmetrics_stays_one_and_is_told_what_it_seems_to_be() -> None:
    printed = orjson.dumps([{"type": "user", "userId": "7", "messageId": "m"}], option=orjson.OPT_INDENT_2)
    item = open_format("kissmetrics").refusal(printed)
    assert item
    assert [failure.code for failure in item.failures] == ["document_not_lines"]
    assert "It seems to be vitally" in item.failures[0].message
    unknown = open_format("kissmetrics").refusal(b'{\n"a": 1\n}')
    assert unknown
    assert "It seems" not in unknown.failures[0].message


def test_kissmetrics_refuses_nothing_that_has_a_name_of_its_own() -> None:
    refusal = open_format("kissmetrics").refusal
    woopra = b'{"visitor": {"id": "a"}}\n'
    assert refusal(woopra)
    for more in (b'{"_p": 7', b'{"a": {"_t" : 1}}', b'{"_p2": "x"}', b'{"_n"\t:1}'):
        assert refusal(woopra * 2 + more) is None
    assert refusal(b'{"_": 1}\n{"_px": 1}\n{"a": "_p"}\n' + woopra)
    assert refusal(b'{"a": 1}\n') is None


@pytest.mark.slow
@settings(deadline=None)
@given(st.binary() | st.text(st.sampled_from('{}[]",:\\a1 \n')).map(str.encode), st.data())
def test_anything_is_guessed_or_not(noise: bytes, data: st.DataObject) -> None:
    some = data.draw(st.sampled_from([lines(), *(bodies().map(str.encode) for bodies in BODIES.values())]))
    whole = data.draw(some)
    at = data.draw(st.integers(0, len(whole)))
    for head in (noise, whole, whole[:at], whole[:at] + noise + whole[at:]):
        assert guess(head) in (None, *FORMATS)
        for format in FORMATS:
            refused = open_format(format).refusal(head)
            assert not refused or guess(head) not in (None, format) or format == "kissmetrics" or kind_of(head)


@pytest.mark.parametrize("deep", [b"[", b'{"a":', b"[\n", b'{"visitor":\n[', b'"', b"\\", b"[1,", b'{"actions":[{\n'])
def test_however_deep_it_is_cheap(deep: bytes) -> None:
    assert guess(deep * (HEAD // len(deep))) in (None, "woopra")


# --- on the command line ---------------------------------------------------------------------------------------------


def run(*arguments: str) -> tuple[int, Any]:
    ran = CliRunner().invoke(cli, [*arguments, "--json"], standalone_mode=False)
    assert ran.exception is None
    return ran.return_value, json.loads(ran.stdout_bytes)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for format, paths in EXAMPLES.items():
        (tmp_path / f"{format}.json").write_bytes(paths[-1].read_bytes())
    (tmp_path / "kissmetrics.json").write_bytes((CASES / "vendor_page.jsonl").read_bytes())
    return tmp_path


@pytest.mark.parametrize("format", FORMATS)
def test_auto_is_by_what_a_file_begins_like(folder: Path, format: str) -> None:
    code, asked = run("check", f"{format}.json", "--format", format)
    assert (code, run("check", f"{format}.json", "--format", "auto")[1]) == (code, asked)
    assert asked["format"] == format
    (folder / "a.json.gz").write_bytes(gzip.compress((folder / f"{format}.json").read_bytes()))
    assert run("check", "a.json.gz", "--format", "auto")[1]["format"] == format


def test_auto_is_kissmetrics_where_nothing_tells(folder: Path) -> None:
    for text in (b"", b"{}", b"_p,_t\n"):
        (folder / "a.json").write_bytes(text)
        assert run("check", "a.json", "--format", "auto")[1]["format"] == "kissmetrics"
    (folder / "a.json").write_bytes(gzip.compress(b"{}" * 9)[:-9])
    _, loaded = run("load", "a.json", "vitally.json", "--format", "auto")
    assert [file["state"] for file in loaded["files"]] == ["retrying", "loaded"]  # a broken one holds up nobody


def test_files_of_all_formats_are_loaded_together(folder: Path) -> None:
    paths = [f"{format}.json" for format in FORMATS]
    _, loaded = run("load", *paths, "--format", "auto")
    assert [file["state"] for file in loaded["files"]] == ["loaded"] * len(FORMATS)
    _, found = run("sql", "SELECT format FROM ledger ORDER BY format")
    assert sorted(FORMATS) == [row["format"] for row in found]
    assert all(file["already"] for file in run("load", *paths, "--format", "auto")[1]["files"])


def test_a_file_of_another_format_is_rejected_once(folder: Path) -> None:
    (folder / "many.json").write_bytes((folder / "woopra.json").read_bytes() * 5)
    for name, format in (
        ("many.json", "kissmetrics"),
        ("vitally.json", "retailrocket"),
        ("kissmetrics.json", "woopra"),
    ):
        code, loaded = run("load", name, "--format", format)
        (file,) = loaded["files"]
        assert (code, file["state"], file["lines"], file["failed"], file["records"]) == (1, "rejected", 1, 1, 0)
        assert "It seems to be" in file["error"]
    _, found = run("sql", "SELECT codes FROM failed_lines")
    assert [row["codes"] for row in found] == [["wrong_format"]] * 3
    (told,) = re.findall("load it with (.*?);", file["error"])
    _, mended = run("load", name, *told.split())
    assert mended["files"][0]["state"] == "loaded"
