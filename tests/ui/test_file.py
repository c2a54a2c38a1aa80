"""The page of a file, and of what its lines became: who sees what, exact counts, hostile text."""

import gzip
import json
import re
from dataclasses import replace
from html import unescape
from typing import Any

import pytest

from ingest import preview
from ingest.archiving import archive
from ingest.core.source import ONE_OFF
from ingest.ports import Audit
from ingest.redrive import redrive
from tests.ui.conftest import ROOT, Site
from tests.ui.producers import HOSTILE, file_id_of, load, text_of

GOOD: dict[str, object] = {"_p": "ann", "_t": 1_700_000_000, "_n": "Signed up", "plan": "pro"}
LATE: dict[str, object] = {"_p": "bob", "_t": "2024-01-01", "_n": "Paid", "secret plan": "gold"}
NESTED: dict[str, object] = {"_p": "bob", "_t": 1_700_000_000, "secret plan": {"a": 1}}
ONE_MB = 1_048_000


def page(site: Site, path: str, who: str = "user", status: int = 200) -> str:
    answer = site.of(who).get(f"{ROOT}/files/{path}")
    assert answer.status_code == status, answer.text
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    return str(answer.text)


def mend(site: Site, file_id: str, text: str) -> None:
    site.job.ask(lambda pipeline: redrive(pipeline, file_id, text.encode(), Audit("carl", "typo")))


# --- who sees what ---------------------------------------------------------------------------------------------------


def test_values_are_for_those_who_may_run_the_dag(site: Site) -> None:
    file_id = load(site.job, "a.json", GOOD, *[LATE] * 4, *[NESTED] * 4, *["broken"] * 4)
    for path in (file_id, f"{file_id}/lines"):
        assert "Log in" in page(site, path, "nobody", 401)
    page(site, f"{file_id}/lines", "viewer", 403)

    for path in (file_id, f"{file_id}?at=1", f"{file_id}?code=nested_value&pointer=/secret%20plan"):
        told = text_of(page(site, path, "viewer"))
        for hidden in ("bob", "2024-01-01", "1704067200", "gold", "secret plan", "roken", "Mend", "Undo"):
            assert hidden not in told, (path, hidden)
        assert "shown to those who may run the DAG ingest_website" in told
    told = text_of(page(site, file_id, "viewer"))
    assert "time_not_epoch_seconds 4 lines 4 open at /_t" in told
    assert "nested_value 4 lines 4 open at a property" in told
    assert "Convert dates to such seconds before exporting." in told
    assert "line 7" in told
    links = re.findall(r"\?code=[^\"]*", page(site, file_id, "viewer"))
    assert [unescape(link) for link in links] == [
        "?code=nested_value", "?code=not_json", "?code=time_not_epoch_seconds",
    ]  # fmt: skip

    for who in ("user", "op", "admin"):
        html = page(site, file_id, who)
        assert "<mark>&#34;2024-01-01&#34;</mark>" in html
        assert "nested_value 4 lines 4 open at /secret plan" in text_of(html)
        assert "send 1704067200" in html
        for action in ("undo", "force"):
            assert f'href="{ROOT}/files/{file_id}/act/{action}"' in html
        assert "/act/release" not in html
        assert f'href="{ROOT}/files/{file_id}/mend"' in html


def test_what_is_hidden_is_as_if_it_were_not_there(site: Site) -> None:
    file_id, somebody = load(site.job, "a.json", GOOD, "broken"), "runs ingest_one_off, ingest_action"
    unknown = page(site, "0" * 32, somebody, 404)
    for path in (file_id, f"{file_id}/lines", f"{file_id}?code=not_json", f"{file_id}/mend", f"{file_id}/lines.txt"):
        assert page(site, path, somebody, 404) == unknown


@pytest.mark.slow
def test_a_file_of_another_source_below_a_prefix_is_for_those_who_may_run_both(site: Site) -> None:
    """It was loaded before that prefix was a source's; it keeps its source."""
    site.job.s3.put("landing/a.json", b"a secret")
    site.job.write("")
    site.job.ask(lambda pipeline: pipeline.load(pipeline.locate(f"s3://{site.job.s3.bucket}/landing/a.json")))
    site.job.configure()
    file_id = file_id_of(site.job, "landing/a.json")
    one, both = "runs ingest_one_off, ingest_action", "runs ingest_one_off, ingest_action, ingest_website"
    assert "a secret" not in text_of(page(site, file_id, one))
    assert "a secret" in text_of(page(site, file_id, both))
    for path in (f"{file_id}/lines", f"{file_id}/mend", f"{file_id}/lines.txt"):
        assert "a secret" not in text_of(page(site, path, one, 403))
        assert "a secret" in text_of(page(site, path, both))


def test_hostile_text_stays_text(site: Site) -> None:
    lines = [json.dumps({"_p": text, "_t": 5, "_n": text, text: {text: 1}}, ensure_ascii=False) for text in HOSTILE]
    fine = [json.dumps(GOOD | {"_p": text, "_n": text, text: text}) for text in HOSTILE]
    name = f"{HOSTILE[0]}{HOSTILE[1]}{{{{7*7}}}}\u202e.json"
    file_id = load(site.job, name, *lines, *fine, *HOSTILE)
    html = "".join(
        page(site, path)
        for path in (file_id, f"{file_id}?at=1", f"{file_id}?at=2", f"{file_id}/lines", f"{file_id}/lines?from=21")
    )
    html += page(site, f"{file_id}?code=nested_value&pointer={HOSTILE[0]}") + page(site, f"{file_id}?code={HOSTILE[2]}")
    assert "<script>alert" not in html
    assert "<img src=x" not in html
    assert not re.search(r"\son\w+=", re.sub(r">[^<]*<", "><", html)), "an attribute that runs"
    assert not re.search(r'(href|src|action)="(?!/landfall/|#content")', html), "a link that leads elsewhere"
    assert "{{7*7}}" in text_of(html)
    for invisible in ("\x1b", "\u202e", "\u200b", "\ufeff"):
        assert invisible not in html
    assert "U+202E" in html
    assert "U+001B" in html


@pytest.mark.slow
@pytest.mark.parametrize(
    "long",
    [
        pytest.param(b'{"_p": "%s", "_t": "x", "_n": "n"}' % (b"<" * ONE_MB), id="markup"),
        pytest.param(
            b'{"_p": "a", "_t": 5, "_n": 1, %s}' % b",".join(b'"n%d":{}' % n for n in range(60_000)), id="many"
        ),
        pytest.param(b"\xff\x00" * (ONE_MB // 2), id="no text"),
        pytest.param(b'{"_p": "\xff%s"}' % (b"\xe2\x80\xae" * (ONE_MB // 3)), id="directions"),
        pytest.param(b"x" * (2 * ONE_MB), id="not kept whole"),
    ],
)
def test_a_line_of_a_megabyte_does_not_break_a_page(site: Site, long: bytes) -> None:
    file_id = load(site.job, "a.json", GOOD, long, "broken")
    for path in (file_id, f"{file_id}?at=1", f"{file_id}/lines", f"{file_id}/mend"):
        html = page(site, path)
        assert len(html.encode()) < 300_000, path
        assert "more characters" in html
        assert "line 3" in html or path == file_id, "what follows is shown, too"


# --- counts ----------------------------------------------------------------------------------------------------------


def test_groups_and_pages_count_each_line_once(site: Site) -> None:
    two: dict[str, object] = {"_p": "", "_t": -5, "_n": "x"}  # breaks two rules
    file_id = load(site.job, "a.json", *[LATE] * 42, *[two] * 3, "broken", GOOD)
    told = text_of(page(site, file_id))
    assert "46 lines failed, 46 still open" in told
    assert "time_not_epoch_seconds 45 lines 45 open at /_t" in told
    assert "person_blank 3 lines 3 open at /_p" in told
    assert len(re.findall(r'<article class="line">', page(site, file_id))) == 3 + 3 + 1, "samples"

    mend(site, file_id, "1\t" + json.dumps(GOOD))
    told = text_of(page(site, file_id))
    assert "46 lines failed, 45 still open" in told
    assert "time_not_epoch_seconds 45 lines 44 open at /_t" in told

    group = f"{file_id}?code=time_not_epoch_seconds&pointer=/_t"
    numbers = [re.findall(r"<strong>line (\d+)", page(site, f"{group}&at={at}")) for at in (1, 2, 3, 4)]
    assert [number for numbers_of_page in numbers for number in numbers_of_page] == [str(n) for n in range(1, 46)]
    assert "Page 3 of 3" in page(site, f"{group}&at=3")
    assert 'rel="next"' not in page(site, f"{group}&at=3")
    assert re.findall(r"<strong>line (\d+)", page(site, f"{group}&open=1"))[0] == "2"
    assert "44 lines still open" in text_of(page(site, f"{group}&open=1"))
    assert len(re.findall(r"<strong>line (\d+)", page(site, f"{file_id}?at=3"))) == 6


def test_a_mended_line_leads_to_what_took_its_place(site: Site) -> None:
    file_id = load(site.job, "a.json", GOOD, "broken")
    mend(site, file_id, '2\t{"_p": "ann", "_t": 1700000000, "_n": "mended"}')
    (redriven,) = (row["file_id"] for row in site.job.ledger() if row["redrive_of"])
    html = page(site, f"{file_id}?at=1")
    assert f'<a href="{ROOT}/files/{redriven}">' in html
    assert "fixed just now by carl" in text_of(html)
    assert "Fix and send again" not in page(site, file_id), "nothing is open"
    assert "fixed lines of this file" in page(site, file_id)
    html = page(site, redriven)
    assert f'<a href="{ROOT}/files/{file_id}">' in html
    assert "/act/force" not in html, "mended lines are sent again, not forced"
    told = text_of(page(site, f"{redriven}/lines"))
    assert "They have no object of their own" in told


def test_a_copy_leads_to_the_file_that_holds_its_failed_lines(site: Site) -> None:
    original = load(site.job, "a.json", GOOD, "broken")
    copy = load(site.job, "b.json", GOOD, "broken")
    html = page(site, copy)
    assert "Its bytes are loaded as another file, which holds the failed lines. To that file" in text_of(html)
    assert f'href="{ROOT}/files/{original}#failed"' in html
    assert "To that file" not in text_of(page(site, original))


def test_summary_provenance_and_history(site: Site) -> None:
    first = load(site.job, "a.json", GOOD | {"_t": "1700000000"}, "", "broken")
    site.job.configure(max_failed_lines=0)
    second = load(site.job, "a.json", GOOD, "broken", "too")
    told = text_of(page(site, first))
    assert "time_coerced" in told
    assert "blank 1" in told
    assert re.search(r"SHA-256 [0-9a-f]{64} ", told)
    assert "another version of this object" in told
    told = text_of(page(site, second))
    assert "2 of 3 lines failed; max_failed_lines is 0." in told
    assert "rejected" in told
    assert f'href="{ROOT}/files/{second}/act/undo"' in page(site, second)

    from ingest import actions

    site.job.ask(
        lambda pipeline: actions.act(
            pipeline, "undo", [pipeline.warehouse.find_file(first)], [], Audit("dora", "<b>sent twice</b>")
        )
    )
    html = page(site, first)
    assert "undone" in html
    assert "dora" in html
    assert "&lt;b&gt;sent twice" in html


def test_runs_are_linked_to_airflows_own_pages(site: Site) -> None:
    site.job.put("a.json", GOOD)
    ran = site.job.run()
    html = page(site, file_id_of(site.job, "landing/a.json"))
    run_id = ran.run_id.replace(":", "%3A").replace("+", "%2B")
    assert f'<a data-airflow href="/dags/ingest_website/runs/{run_id}">' in html


# --- what the lines became -------------------------------------------------------------------------------------------


def test_each_line_is_shown_with_its_rows(site: Site) -> None:
    both = {"_p": "Ann Lee", "_t": 1_700_000_000.5, "_p2": "ann@x.org", "_n": "Signed Up", "price": "1.10"}
    text = "\ufeff" + json.dumps(both) + "\r\n\r\nbroken\r\n" + "\n".join(json.dumps(GOOD) for _ in range(30))
    file_id = load(site.job, "a.json.gz", body=gzip.compress(text.encode()))
    html = page(site, f"{file_id}/lines")
    told = text_of(html)
    assert re.findall(r"<strong>line (\d+)", html) == [str(n) for n in range(1, 21)]
    assert "becomes alias" in told
    assert "Ann Lee → ann lee in kissmetrics" in told
    assert "ann@x.org → ann@x.org" in told
    assert "2023-11-14 22:13:20.500000 UTC" in told
    assert "Signed Up → signed up" in told
    assert '{"price":"1.10"}' in told
    assert "Warnings: time_coerced" in told
    assert "not_json: The line is not JSON." in told
    assert "blank" in told
    with_ids = {str(row) for row in site.job.ask(_command_ids)}
    shown = set(re.findall(r'<dd class="mono">([0-9a-f-]{36})</dd>', html + page(site, f"{file_id}/lines?from=21")))
    assert shown == with_ids, "the rows are those of the warehouse"
    assert re.findall(r"<strong>line (\d+)", page(site, f"{file_id}/lines?from=32")) == ["32", "33"]
    assert "There is no line 34" in page(site, f"{file_id}/lines?from=34")


def _command_ids(pipeline: Any) -> list[Any]:
    with pipeline.warehouse.query("SELECT DISTINCT command_id::VARCHAR AS id FROM commands") as answer:
        return list(answer.reader.read_all()["id"].to_pylist())


def test_what_cannot_be_read_is_one_sentence(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    file_id = load(site.job, "a.json", *[GOOD] * 3)
    with monkeypatch.context() as patched:
        patched.setattr(preview, "READ_AT_MOST", 10)
        assert "lies beyond its first" in page(site, f"{file_id}/lines?from=3")
    site.job.s3.put("landing/a.json", b"other bytes\n")
    html = page(site, f"{file_id}/lines")
    assert html.count('role="alert"') == 1
    assert "becomes" not in html
    assert page(site, file_id)


def test_only_known_buckets_are_read(site: Site) -> None:
    file_id = load(site.job, "a.json", GOOD)
    site.job.write('[[source]]\nname = "website"\nbucket = "another"\n')
    assert "may not be read from here" in page(site, f"{file_id}/lines")
    site.job.write(f'allowed_buckets = ["{site.job.s3.bucket}"]\n')
    assert "becomes" in page(site, f"{file_id}/lines")


def test_a_local_file_is_read_from_folders_of_sources_only(site: Site) -> None:
    folder = site.job.folder / "drop"
    folder.mkdir()
    for path in (folder / "a.json", site.job.folder / "b.json"):
        path.write_text(json.dumps(GOOD) + "\n")
        site.job.ask(lambda pipeline, path=path: pipeline.load(pipeline.locate(str(path))))  # type: ignore[misc]
    site.job.write(f'[[source]]\nname = "website"\nbucket = "file"\nprefix = "{folder}/"\n')
    assert "becomes" in page(site, f"{file_id_of(site.job, str(folder / 'a.json'))}/lines")
    link = folder / "link.json"
    link.symlink_to(site.job.folder / "b.json")
    site.job.ask(lambda pipeline: pipeline.load(pipeline.locate(str(link))))
    for path in (site.job.folder / "b.json", link):
        assert "nothing is read from here" in page(site, f"{file_id_of(site.job, str(path))}/lines")
    row = next(row for row in site.job.ledger() if row["key"].endswith("b.json"))
    for key in (f"{folder}/../b.json", f"{folder}ish/b.json", "-"):
        with pytest.raises(Exception, match="nothing is read from here"):
            site.job.ask(lambda pipeline, key=key: preview.preview(pipeline, row | {"key": key}, 1))  # type: ignore[misc]


def test_an_archived_file_is_read_from_the_archive(site: Site) -> None:
    site.job.configure(after_load="archive")
    file_id = load(site.job, "a.json", GOOD)
    assert site.job.ask(lambda pipeline: archive(pipeline, "website", Audit("t"))) == []
    assert site.job.ledger()[0]["archived_to"]
    assert not list(site.job.s3.store.list(site.job.s3.bucket, "landing/"))
    assert "becomes" in page(site, f"{file_id}/lines")
    assert "completed_imports/" in page(site, file_id)


def test_an_upload_is_read_as_it_was_written_whatever_source_it_was_loaded_for(site: Site) -> None:
    bucket = site.job.s3.bucket
    site.job.write(f'[uploads]\nbucket = "{bucket}"\n[[source]]\nname = "website"\nbucket = "another"\n')
    site.job.s3.put("uploads/a.json", (json.dumps(GOOD) + "\n").encode())
    uri = f"s3://{bucket}/uploads/a.json"
    site.job.ask(lambda pipeline: pipeline.load(pipeline.locate(uri, "website")))
    (row,) = site.job.ledger()

    def shown(pipeline: Any) -> preview.Preview:
        def store_of(name: str) -> Any:
            assert name == ONE_OFF, "the source's credentials are for its own bucket"
            return pipeline.store_of(name)

        return preview.preview(replace(pipeline, store_of=store_of), row, 1)

    assert len(site.job.ask(shown).lines) == 1


def test_a_document_is_refused_as_a_whole(site: Site) -> None:
    file_id = load(site.job, "a.json", body=b'[\n{\n"_p": "ann"\n}\n]\n')
    assert "The file is refused as a whole" in page(site, f"{file_id}/lines")
    assert "document_not_lines" in page(site, file_id)


def test_of_a_file_with_much_text_the_page_says_what_it_does_not_hold(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.warehouse.engines.duckdb.published._TEXTS_BYTES", 3_000)
    nested: dict[str, object] = {f"x{n}": [] for n in range(15)}
    file_id = load(site.job, "a.json", *[LATE | {"y": f"{'y' * 500}{n}"} for n in range(6)], "broken")
    other = load(site.job, "b.json", NESTED | nested)

    told = text_of(page(site, file_id))
    assert "Of 7 failed lines the first 2 are shown here with their texts" in told
    assert "the next ones come once the first are fixed" in told
    assert "time_not_epoch_seconds 6 lines 6 open" in told
    assert "not_json 1 line 1 open" in told
    assert "first open ones" in told
    listed = text_of(page(site, f"{file_id}?at=1"))
    assert listed.count("it comes once lines before it are fixed") == 5
    assert "Its text is not on pages" not in text_of(page(site, f"{file_id}?at=1", "viewer"))
    whole = text_of(page(site, other))
    assert "shown here with their texts" not in whole
    assert "It is so at 6 more places." in whole

    mending = site.of("user").get(f"{ROOT}/files/{file_id}/mend")
    assert mending.status_code == 200
    assert mending.text.count("<textarea") == 2
    assert "the next ones come once these are fixed" in text_of(mending.text)
    assert "ingest " not in told + listed + text_of(mending.text), "nobody here has a terminal"
    download = site.of("user").get(f"{ROOT}/files/{file_id}/lines.txt")
    assert f'{file_id}.first.lines.txt"' in download.headers["content-disposition"]
    assert len(download.text.splitlines()) == 2
    sent = {"file": ("x", b'7\t{"_p":"ann","_t":1393344603,"_n":"x"}\n9\t{}\n')}
    checked = text_of(site.of("user").post(f"{ROOT}/files/{file_id}/mended?do=check", files=sent).text)
    assert "Of 2 edited lines, 1 is right" in checked
    assert "Not open in this file: line 9" in checked
