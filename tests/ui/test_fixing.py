"""Fix and send again: in the page, or downloaded, mended and uploaded. What is right loads once, the rest stays."""

import json
import re
from html import unescape
from typing import Any

import pytest
from httpx import Response

from ingest.airflow.action import Request, act
from ingest.airflow.ui.pages import fixing
from ingest.errors import ConfigError
from ingest.handout import inert
from ingest.ports import Audit
from ingest.uploads import keep_mended
from tests.ui.conftest import ROOT, Site, on_both_engines, runs_of
from tests.ui.producers import HOSTILE, load, text_of

GOOD: dict[str, object] = {"_p": "ann", "_t": 1_700_000_000, "_n": "Signed up"}
MENDED = json.dumps(GOOD)
ACTION = "ingest_action"

Form = dict[str, str]


def form_of(html: str) -> Form:
    """What a browser sends of the lines on the page if nobody touches anything."""
    boxes = re.findall(r'<textarea name="([^"]*)"[^>]*>\n?(.*?)</textarea>', html, re.DOTALL)
    hidden = re.findall(r'<input type="hidden" name="(was:[^"]*)" value="([^"]*)">', html)
    return {unescape(name): unescape(value) for name, value in (*boxes, *hidden)}


def get(site: Site, path: str, who: str = "user", status: int = 200) -> Response:
    answer: Response = site.of(who).get(f"{ROOT}/files/{path}")
    assert answer.status_code == status, answer.text
    return answer


def post(site: Site, path: str, form: Form, who: str = "user", status: int = 200, **more: Any) -> Response:
    answer: Response = site.of(who).post(f"{ROOT}/files/{path}", data=form, **more)
    assert answer.status_code == status, answer.text
    return answer


def upload(site: Site, path: str, text: bytes, status: int = 200, reason: str = "") -> Response:
    return post(site, path, {"reason": reason}, status=status, files={"file": ("<b>\r\nX: y.txt", text)})


def conf_of(answer: Response) -> tuple[dict[str, Any], str | None]:
    """(conf, who) of the run that an answer leads to."""
    from urllib.parse import unquote

    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from sqlalchemy import select

    dag_id, run_id = answer.headers["location"].removeprefix(f"{ROOT}/run/").split("/")
    assert dag_id == ACTION
    with create_session() as session:
        run = session.scalar(select(DagRun).where(DagRun.dag_id == dag_id, DagRun.run_id == unquote(run_id)))
        assert run is not None
        return dict(run.conf), run.triggering_user_name


def take_uploads(site: Site) -> None:
    """Name a bucket for uploads in the settings: mended lines wait there for their run."""
    toml = (site.job.folder / "ingest.toml").read_text()
    site.job.write(f'[uploads]\nbucket = "{site.job.s3.bucket}"\n{toml}')


def waiting(site: Site, conf: dict[str, Any]) -> str:
    """The mended lines of which a run is told where they are."""
    bucket, key = conf["lines_at"].removeprefix("s3://").split("/", 1)
    assert bucket == site.job.s3.bucket
    found: bytes = site.job.s3.client.get_object(Bucket=bucket, Key=key)["Body"].read()
    return found.decode()


# --- who -------------------------------------------------------------------------------------------------------------


def test_mending_is_for_those_who_may_run_both_dags(site: Site) -> None:
    file_id = load(site.job, "a.json", GOOD, "secret")
    before = len(runs_of(ACTION))

    def every_way(who: str, status: int) -> None:
        told = [
            *(get(site, f"{file_id}/{way}", who, status).text for way in ("mend", "lines.txt")),
            post(site, f"{file_id}/mend", {"do": "send", "line:2": MENDED}, who, status).text,
            post(site, f"{file_id}/mend", {"do": "again"}, who, status).text,
            post(site, f"{file_id}/mended?do=send", {}, who, status, files={"file": ("a", b"2\tx")}).text,
        ]
        assert not any("secret" in text for text in told)

    every_way("nobody", 401)
    every_way("viewer", 403)
    every_way("runs ingest_website", 403)
    every_way(f"runs {ACTION}, ingest_one_off", 404)
    get(site, f"{file_id}/mend", f"runs ingest_website, {ACTION}")
    elsewhere = {"headers": {"Sec-Fetch-Site": "cross-site"}}
    post(site, f"{file_id}/mend", {"do": "again"}, "admin", 403, **elsewhere)
    post(site, f"{file_id}/mended?do=send", {}, "admin", 403, files={"file": ("a", b"2\tx")}, **elsewhere)
    assert len(runs_of(ACTION)) == before
    get(site, f"{'0' * 32}/mend", "admin", 404)


# --- in the page -----------------------------------------------------------------------------------------------------


def test_check_says_what_each_line_would_be_and_loads_nothing(site: Site) -> None:
    alias = {"_p": "ann", "_t": 1_700_000_000, "_p2": "ann@x.org", "plan": "pro"}
    file_id = load(site.job, "a.json", GOOD, "one", "two", '{"_p": "bob", "_t": 5, "_n": "x"}', "four", "five")
    form = form_of(get(site, f"{file_id}/mend").text)
    form |= {
        "line:2": MENDED,
        "line:3": json.dumps(alias),
        "line:4": '{"_p": "bob", "_t": "<i>", "_n": "x"}',
        "line:5": "",
    }
    html = post(site, f"{file_id}/mend", form | {"do": "check"}).text
    told = text_of(html)
    assert "line 2 right: becomes record" in told
    assert "line 3 right: becomes alias and set" in told
    assert "line 4 still wrong time_not_epoch_seconds at /_t" in told
    assert "<mark>&#34;&lt;i&gt;&#34;</mark>" in html
    assert "line 5 empty: it stays open" in told
    assert "line 6 not_json: The line is not JSON." in told, "it was not edited, so it is not judged"
    assert "2 lines are right" in told
    assert {name: form_of(html)[name] for name in form} == form, "what was written stays"
    assert [row["failed"] for row in site.job.ledger()] == [5]
    assert site.job.count("commands") == 1


@on_both_engines
def test_send_starts_a_run_that_loads_each_line_once(site: Site) -> None:
    take_uploads(site)
    file_id = load(site.job, "a.json", GOOD, "one", "two", "three")
    site.know_dags()
    old_page = form_of(get(site, f"{file_id}/mend").text)
    changed = {"line:2": MENDED + "\r\n", "line:3": "still wrong", "reason": "typo <b>", "do": "send"}
    answer = post(site, f"{file_id}/mend", old_page | changed, status=303)
    conf, who = conf_of(answer)
    assert (conf["action"], conf["files"], conf["reason"], who) == ("redrive", [file_id], "typo <b>", "the user")
    assert waiting(site, conf) == f"2\t{MENDED}\n3\tstill wrong\n"
    assert "Signed up" not in str(conf), "whoever may read the DAG sees what its runs are told"
    told = text_of(site.of("user").get(site.carry_out(answer)).text)
    assert "1 line still wrong: it stays open." in told
    assert sorted(row["lines"] for row in site.job.ledger()) == [1, 4]
    assert site.job.count("commands") == 2
    landed = text_of(get(site, f"{file_id}?done={answer.headers['location'].rpartition('/')[2]}").text)
    assert "2 lines sent. 1 line is fixed. 1 line still wrong: it stays open. 2 lines of this file are open." in landed
    assert "2 lines sent" not in text_of(get(site, f"{file_id}?done={'x' * 20}").text)
    told = text_of(get(site, f"{file_id}?at=1").text)
    assert "fixed just now by the user" in told
    assert "typo <b>" in told
    assert "3 lines failed, 2 still open" in text_of(get(site, file_id).text)
    assert 'data-airflow href="/dags/ingest_action/runs/' in get(site, file_id).text

    html = post(site, f"{file_id}/mend", old_page | changed | {"do": "check"}).text
    assert "not open any more: it may be fixed already" in html
    again = site.carry_out(post(site, f"{file_id}/mend", old_page | changed, status=303))
    assert site.job.count("commands") == 2, "an old page brings nothing twice"
    told = text_of(site.of("user").get(again).text)
    assert "1 line was fixed before, so what was sent now in place of it was not loaded." in told


def test_a_box_gives_back_what_came(site: Site) -> None:
    more = ("\ttabs\t", "é ü 漢 👍🏽", "a&amp;b", "line\x0b\x0c\x85 \u2028sep")
    lines = [*(f"not JSON: {text}" for text in HOSTILE), *more]
    file_id = load(site.job, "a.json", *lines)
    html = get(site, f"{file_id}/mend").text
    form = form_of(html)
    assert [form[f"line:{number}"] for number in range(1, len(lines) + 1)] == lines
    assert "<script>alert" not in html
    assert "<img" not in html.split("<main")[1]
    assert "No line was changed" in post(site, f"{file_id}/mend", form | {"do": "check"}).text
    assert "No line was changed" in post(site, f"{file_id}/mend", form | {"do": "send"}, status=400).text


def test_a_mended_line_stays_one_line(site: Site) -> None:
    file_id = load(site.job, "a.json", "one", "two")
    before = len(runs_of(ACTION))
    form = form_of(get(site, f"{file_id}/mend").text) | {
        "line:1": '{"_p": "ann",\r\n"_t": 1700000000}',
        "line:2": MENDED,
    }
    html = post(site, f"{file_id}/mend", form | {"do": "send"}, status=400).text
    assert "Nothing was sent: a fixed line has to stay one line" in html
    assert "there is a line break in it" in post(site, f"{file_id}/mend", form | {"do": "check"}).text
    assert form_of(html)["line:2"] == MENDED
    assert len(runs_of(ACTION)) == before


def test_what_a_browser_would_change_is_not_edited_in_it(site: Site) -> None:
    lines = [b"x" * 16_385, b"\xff\xfe", b"a\rb", b"a\0b", b"x" * 1_100_000, b"short"]
    file_id = load(site.job, "a.json", body=b"\n".join(lines))
    html = get(site, f"{file_id}/mend").text
    assert {name for name in form_of(html) if name.startswith("line")} == {"line:6"}
    for why in ("It is longer than 16 KB", "It is not UTF-8", "It holds U+0000 or a carriage return"):
        assert why in html
    assert html.count("download the lines to fix it") == 4
    assert html.count("It is not kept whole") == 1
    assert len(html) < 100_000


def test_judge_all_open_lines_again(site: Site) -> None:
    file_id = load(site.job, "a.json", {"_p": "ann", "_t": 1_000_000_000, "_n": "old"})
    site.know_dags()
    site.job.write(f'time_from = "2001-01-01"\n{(site.job.folder / "ingest.toml").read_text()}')
    answer = post(site, f"{file_id}/mend", {"do": "again"}, status=303)
    assert conf_of(answer)[0] == {"action": "redrive", "files": [file_id], "reason": None}
    site.carry_out(answer)
    assert site.job.count("commands") == 1
    assert "No failed line of this file is open" in get(site, f"{file_id}/mend").text


def test_a_page_holds_what_was_asked_for(site: Site) -> None:
    file_id = load(site.job, "a.json", *["broken"] * 45, *['{"_p":"ann","_n":"x"}'] * 25)
    html = get(site, f"{file_id}/mend?code=time_missing&at=2").text
    assert [name for name in form_of(html) if name.startswith("line")] == [f"line:{n}" for n in range(66, 71)]
    assert "page 2 of 2" in html
    assert f'action="{ROOT}/files/{file_id}/mend?code=time_missing&amp;at=2"' in html
    assert '<option value="time_missing" selected>time_missing (25)</option>' in html
    assert next(iter(form_of(get(site, f"{file_id}/mend?from=40").text))) == "line:40"
    assert f'href="{ROOT}/files/{file_id}/mend?code=time_missing"' in get(site, file_id).text
    assert "no such line" in get(site, f"{file_id}/mend?code=%3Cb%3E").text


def test_without_a_bucket_the_page_says_what_to_set(site: Site) -> None:
    file_id = load(site.job, "a.json", "broken")
    assert "let an operator set bucket of [uploads]" in get(site, f"{file_id}/mend").text
    form = form_of(get(site, f"{file_id}/mend").text) | {"line:1": MENDED, "do": "send"}
    assert "set bucket of [uploads]" in post(site, f"{file_id}/mend", form, status=400).text


def test_pages_and_states(site: Site) -> None:
    take_uploads(site)
    file_id = load(site.job, "a.json", *["broken"] * 45)
    assert len(form_of(get(site, f"{file_id}/mend?at=3").text)) == 2 * 5
    assert "page 3 of 3" in get(site, f"{file_id}/mend?at=3").text
    assert "There is no such line that is open" in get(site, f"{file_id}/mend?at=4").text
    site.job.configure(max_failed_lines=0)
    rejected = load(site.job, "b.json", "broken")
    assert "The file was rejected" in get(site, f"{rejected}/mend").text

    from ingest import actions

    site.job.ask(
        lambda pipeline: actions.act(pipeline, "undo", [pipeline.warehouse.find_file(file_id)], [], Audit("t"))
    )
    assert "only lines of loaded and rejected files can be fixed" in get(site, f"{file_id}/mend").text
    post(site, f"{file_id}/mend", {"do": "send", "line:1": MENDED}, status=409)
    post(site, f"{file_id}/mend", {"do": "again"}, status=409)


# --- by file ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        pytest.param(b"=cmd|' /C calc'!A0", b" =cmd|' /C calc'!A0", id="formula"),
        pytest.param(b'{"a":\t-1}\t@SUM', b'{"a":\t -1}\t @SUM', id="in a later cell"),
        pytest.param(b'{"a":"\x1b]0;x\x07\xc2\x9b2J"}', b'{"a":"\\u001b]0;x\\u0007\\u009b2J"}', id="terminal"),
        pytest.param('{"a":"é\u202e=","b":-1}'.encode(), '{"a":"é\u202e=","b":-1}'.encode(), id="nothing to change"),
        pytest.param(b"\xff\x9b", b"\xff\x9b", id="no text"),
    ],
)
def test_what_is_downloaded_runs_nowhere(raw: bytes, told: bytes) -> None:
    assert inert(raw) == told


def test_download_mend_upload(site: Site) -> None:
    take_uploads(site)
    file_id = load(site.job, "a.json", GOOD, "=cmd|' /C calc'!A0", b"\xff", "<script>", '{"_p": ""}')
    site.know_dags()
    answer = get(site, f"{file_id}/lines.txt")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["content-disposition"] == f'attachment; filename="{file_id}.lines.txt"'
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.content == b'2\t =cmd|\' /C calc\'!A0\n3\t\xff\n4\t<script>\n5\t{"_p": ""}\n'

    mended = answer.content.replace(b"<script>", MENDED.encode()).replace(b"\n", b"\r\n") + f"1\t{MENDED}\r\n".encode()
    told = text_of(upload(site, f"{file_id}/mended?do=check", b"\xef\xbb\xbf" + mended).text)
    assert "Of 2 edited lines, 1 is right" in told
    assert "become record 1" in told
    assert "as they were: stay open 3" in told
    assert "Not open in this file: line 1." in told
    assert site.job.count("commands") == 1

    mended = mended.removesuffix(f"1\t{MENDED}\r\n".encode()).replace(b'{"_p": ""}', b'{"_p": "", "edited": 1}')
    answer = upload(site, f"{file_id}/mended?do=send", mended, 303, "by hand")
    conf, who = conf_of(answer)
    assert who == "the user"
    assert waiting(site, conf) == f'4\t{MENDED}\n5\t{{"_p": "", "edited": 1}}\n', "what is as it was stays"
    site.carry_out(answer)
    assert site.job.count("commands") == 2
    assert get(site, f"{file_id}/mended", status=303).headers["location"] == f"{ROOT}/files/{file_id}/mend"


def test_what_was_checked_is_what_is_sent_without_choosing_it_again(site: Site) -> None:
    take_uploads(site)
    two = '{"_p": "ann", "_n": "=1+1;=2"}'
    file_id = load(site.job, "a.json", GOOD, "=broken", two, "\x1b", '{"_n": "x"}')
    site.know_dags()
    page = get(site, f"{file_id}/mend").text
    assert f'href="{ROOT}/files/{file_id}/lines.csv?code=time_missing"' in page
    answer = get(site, f"{file_id}/lines.csv?code=time_missing")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == f'attachment; filename="{file_id}.time_missing.lines.csv"'
    assert answer.content.count(b"\r\n") == 3, "those of one problem, and the names of the columns"
    assert get(site, f"{file_id}/lines.txt?code=time_missing").content == b"3\t" + two.encode() + b'\n5\t{"_n": "x"}\n'
    whole = get(site, f"{file_id}/lines.csv").content
    assert whole.count(b"\r\n") == 5
    nothing = upload(site, f"{file_id}/mended", whole, 400).text
    assert "Each line in this file is as it was handed out" in nothing

    fixed = b'""_t"": 1700000000, ""_p"": ""ann""'
    checked = upload(site, f"{file_id}/mended", whole.replace(b'""_p"": ""ann""', fixed), reason="in a table").text
    assert "Of 1 edited line, 1 is right" in text_of(checked)
    assert "as they were: stay open 3" in text_of(checked)
    assert 'value="in a table"' in checked
    assert ">Send 1 line<" in checked
    (kept,) = re.findall('name="kept" value="([^"]*)"', checked)
    send = {"kept": unescape(kept), "reason": "in a table"}
    before = len(runs_of(ACTION))
    post(site, f"{file_id}/mended?do=send", send, f"runs ingest_website, {ACTION}", 400)  # somebody else's
    another = load(site.job, "b.json", "broken, too")
    post(site, f"{another}/mended?do=send", send, status=400)
    for wrong in ("s3://elsewhere/x.mended.txt", "x", kept.replace("uploads/", "landing/")):
        assert post(site, f"{file_id}/mended?do=send", send | {"kept": wrong}, status=400)
    gone = kept.rpartition("/")[0] + "/20200101T000000Z-" + kept.partition("Z-")[2]
    assert "choose the file again" in post(site, f"{file_id}/mended?do=send", send | {"kept": gone}, status=404).text
    assert len(runs_of(ACTION)) == before

    answer = post(site, f"{file_id}/mended?do=send", send, status=303)
    conf, _ = conf_of(answer)
    assert (conf["lines_at"], conf["sent"], conf["reason"]) == (send["kept"], 1, "in a table")
    said = b'{"_t": 1700000000, "_p": "ann", "_n": "=1+1;\\u003d2"}'
    assert waiting(site, conf) == f"3\t{said.decode()}\n"
    site.carry_out(answer)
    assert site.job.count("commands") == 2


def test_no_upload_is_too_large_that_was_handed_out(site: Site) -> None:
    """Each byte becomes six in the download, and lines of that length are edited."""
    file_id = load(site.job, "a.json", *[b"\x01" * 600_000] * 12)
    for kind in ("txt", "csv"):
        handed_out = get(site, f"{file_id}/lines.{kind}").content
        assert len(handed_out) > 40_000_000
        edited = handed_out.replace(b"\\u0001\\u0001", b"edited")
        assert "Of 12 edited lines, 0 are right" in text_of(upload(site, f"{file_id}/mended", edited).text)


def test_edits_come_along_to_other_lines(site: Site) -> None:
    file_id = load(site.job, "a.json", *["broken"] * 45, '{"_p":"ann","_n":"x"}')
    form = form_of(get(site, f"{file_id}/mend").text)
    turn = post(site, f"{file_id}/mend?at=2", form | {"do": "turn"}, status=303)
    assert turn.headers["location"] == f"{ROOT}/files/{file_id}/mend?at=2", "nothing was edited: a plain page"

    html = post(site, f"{file_id}/mend?at=2", form | {"line:3": MENDED, "do": "turn"}).text
    boxes = {name for name in form_of(html) if name.startswith("line")}
    assert boxes == {f"line:{n}" for n in range(21, 41)}
    assert "1 edited line on other pages comes along" in text_of(html)
    carried = {"line:3": MENDED, "was:3": form["was:3"]}
    (kept,) = re.findall('<input type="hidden" name="line:3" value="([^"]*)">', html)
    assert unescape(kept) == MENDED
    form = form_of(html) | carried | {"code": "", "from": "1", "at": "2"}

    to_one = post(site, f"{file_id}/mend?at=2", form | {"line:22": "x", "code": "time_missing", "do": "show"}).text
    assert {name for name in form_of(to_one) if name.startswith("line")} == {"line:46"}
    assert "2 edited lines on other pages come along" in text_of(to_one)
    assert "page 3 of 3" in text_of(post(site, f"{file_id}/mend?at=2", form | {"at": "3", "do": "enter"}).text)

    checked = text_of(post(site, f"{file_id}/mend?at=2", form | {"line:22": "x", "do": "enter"}).text)
    assert "1 line is right, 1 is still wrong" in checked
    assert "line 3 right: becomes record on another page" in checked
    take_uploads(site)
    site.know_dags()
    conf, _ = conf_of(post(site, f"{file_id}/mend?at=2", form | {"line:22": "x", "do": "send"}, status=303))
    assert waiting(site, conf) == f"3\t{MENDED}\n22\tx\n"
    assert conf["sent"] == 2


def test_many_mended_lines_wait_in_the_bucket_for_uploads(site: Site) -> None:
    file_id = load(site.job, "a.json", *["broken"] * 3_000)
    site.know_dags()
    mended = b"".join(b'%d\t{"_p": "p%d", "_t": 1700000000, "_n": "%s"}\n' % (n, n, b"n" * 80) for n in range(1, 3_001))
    assert "Of 3,000 edited lines, 3,000 are right" in text_of(upload(site, f"{file_id}/mended?do=check", mended).text)
    assert "set bucket of [uploads]" in upload(site, f"{file_id}/mended?do=send", mended, 400).text
    take_uploads(site)
    answer = upload(site, f"{file_id}/mended?do=send", mended, 303)
    conf, _ = conf_of(answer)
    assert "lines" not in conf
    assert re.fullmatch(
        rf"s3://{site.job.s3.bucket}/uploads/[0-9/]+/[0-9TZ]+-[0-9a-f]+-[0-9a-f]+-{file_id}-[0-9a-f]{{64}}\.mended\.txt",
        conf["lines_at"],
    )
    site.carry_out(answer)
    assert site.job.count("commands") == 3_000
    assert site.job.ask(lambda pipeline: pipeline.discover("website").pending) == []


def test_mended_lines_are_read_from_the_prefix_of_uploads_only(site: Site) -> None:
    file_id = load(site.job, "a.json", "broken")
    bucket = site.job.s3.bucket
    take_uploads(site)
    address = site.job.ask(lambda pipeline: keep_mended(pipeline, file_id, f"1\t{MENDED}".encode(), _now(), by="ann"))
    for key in ("landing/x.mended.txt", "uploads/x.json", "uploadsx.mended.txt"):
        site.job.s3.put(key, f"1\t{MENDED}".encode())

    def run(address: str) -> dict[str, Any]:
        request = Request(action="redrive", files=(file_id,), lines_at=address)
        return site.job.ask(lambda pipeline: act(pipeline, request, Audit("t"))[0])

    for wrong in (
        f"s3://{bucket}/landing/x.mended.txt", f"s3://{bucket}/uploads/x.json", f"s3://{bucket}/uploadsx.mended.txt",
        "s3://other/uploads/x.mended.txt", "/etc/passwd", "uploads/x.mended.txt", "file:///uploads/x.mended.txt",
    ):  # fmt: skip
        with pytest.raises(ConfigError):
            run(wrong)
    another = load(site.job, "b.json", "broken, too")
    of_another = site.job.ask(
        lambda pipeline: keep_mended(pipeline, another, f"1\t{MENDED}".encode(), _now(), by="ann")
    )
    with pytest.raises(ConfigError, match=f"does not hold fixed lines of the file {file_id}"):
        run(of_another)
    site.job.s3.put(of_another.partition(f"{bucket}/")[2].replace(another, file_id), b"1\tother lines")
    with pytest.raises(ConfigError, match="was changed since the lines were sent"):
        run(of_another.replace(another, file_id))
    assert run(address)["redrive"]
    form = {"action": "redrive", "files": [file_id], "source": None, "since": None, "reason": None}
    with pytest.raises(ConfigError, match="not both"):
        Request.from_params(form | {"lines": "1\tx", "lines_at": address})
    with pytest.raises(ConfigError, match="for redrive only"):
        Request.from_params(form | {"action": "undo", "lines": None, "lines_at": address})


def _now() -> Any:
    from datetime import UTC, datetime

    return datetime.now(UTC)


def test_limits_and_wrong_shapes_are_one_sentence(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    file_id = load(site.job, "a.json", "broken")
    assert "more than 4 MB" in post(site, f"{file_id}/mend", {"line:1": "x" * (5 << 20)}, status=413).text
    monkeypatch.setattr(fixing, "_UPLOADED_AT_MOST", 8 << 20)
    assert "more than 8 MB" in upload(site, f"{file_id}/mended", b"x" * (9 << 20), 413).text
    monkeypatch.setattr(fixing, "MENDED_AT_MOST", 1 << 20)
    take_uploads(site)
    told = upload(site, f"{file_id}/mended?do=send", b"1\t" + b"x" * (2 << 20), 413).text
    assert "more than 1 MB of edited lines" in told
    assert "begin with their number and a tab" in upload(site, f"{file_id}/mended", b"1 no tab\n", 400).text
    assert "There is no line" in upload(site, f"{file_id}/mended", b"\n\r\n", 400).text
    assert "There is no line" in post(site, f"{file_id}/mended", {"file": "text"}, status=400).text
    told = upload(site, f"{file_id}/mended?do=send", b"1\t\n", 400).text
    assert "None of these lines can be right" in told
    strange = {"line:x": MENDED, "line:1\n2": MENDED, "line:99999999999999999999": MENDED, "was:1": "x"}
    assert "No line was changed" in post(site, f"{file_id}/mend", strange | {"do": "check"}).text
