"""As a person would: a real browser, real Airflow with its scheduler, an S3 server. docs/pictures comes from here.

One stack for all, and one story after the other.
"""

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, BrowserContext, FrameLocator, Locator, Page, expect, sync_playwright

from ingest.demo.samples import BUCKET, PREFIX
from ingest.demo.stack import PASSWORD, USER, VIEWER, Stack, running_stack, wait_for
from ingest.settings import load_settings
from ingest.wiring import open_pipeline
from tests.ui.producers import HOSTILE

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("browser")]

CHROMIUM = "/usr/bin/chromium"
# Without them it looks for Google's hosts at every start.
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
]
PICTURES = os.environ.get("LANDFALL_PICTURES")  # `make pictures` says docs/pictures
SCHEDULED_MS = 90_000  # until the scheduler has begun and ended a run, on a busy machine
expect.set_options(timeout=30_000)  # as the pages' own: on a busy machine Airflow's take long


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running_stack(tmp_path_factory.mktemp("stack"), lambda _: None) as (running, processes):
        (running.folder / "dags" / "strange.py").write_text(STRANGE)
        running.s3().create_bucket(Bucket=BUCKET)
        drop(running, "orders-2026-11-23.json", ORDERS)
        drop(running, "signups-2026-11-23.json", SIGNUPS)
        # A file that begins like a page is refused as a whole: here its lines are to be seen.
        lines = [text.encode() for text in (*HOSTILE[1:], HOSTILE[0])]
        drop(running, "hostile.json", *lines, line("hal@example.com", 1, "Visited"))
        with open_pipeline(load_settings(running.environment)) as pipeline:
            wait_for(lambda: len(pipeline.warehouse.files({"state": "loaded"})) == 3, "three loaded files", processes)
        read = "/api/v2/dags?dag_id_pattern=strange"
        wait_for(lambda: running.get(read)["total_entries"] == 1, "the DAG of somebody else", processes)
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield started
        started.close()


@pytest.fixture
def open_page(stack: Stack, browser: Browser) -> Iterator[Callable[..., Page]]:
    """Log in as somebody, the way that a person does. Whatever a page runs or refuses to run fails the test."""
    contexts: list[BrowserContext] = []
    complaints: list[str] = []

    def opened(user: str = USER, password: str = PASSWORD, **options: Any) -> Page:
        context = browser.new_context(viewport=options.pop("viewport", {"width": 1280, "height": 860}), **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("dialog", lambda dialog: complaints.append(f"dialog: {dialog.message}"))
        page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
        page.on(
            "console", lambda told: complaints.append(told.text) if "Content Security Policy" in told.text else None
        )
        page.goto(stack.url)
        page.fill("input[name=username]", user)
        page.fill("input[name=password]", password)
        page.press("input[name=password]", "Enter")
        page.wait_for_url(lambda url: "login" not in url)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []


def drop(stack: Stack, name: str, *lines: bytes) -> None:
    stack.s3().put_object(Bucket=BUCKET, Key=PREFIX + name, Body=b"".join(line + b"\n" for line in lines))


def line(person: str, minute: int, event: str, **properties: object) -> bytes:
    return json.dumps({"_p": person, "_t": 1_795_435_200 + 60 * minute, "_n": event, **properties}).encode()


ORDERS = b"\n".join(
    [line(f"user{n % 7}@example.com", n, "Purchased", price=19.9, plan="pro") for n in range(40)]
    + [
        b'{"_p": "ann@example.com", "_t": 1795435200000, "_n": "Purchased", "price": 49}',
        b'{"_p": "bob@example.com", "_t": 1795435260, "_n": 7, "cart": ["a", "b"]}',
        b'{"_p": "cat@example.com", "_t": 1795435320, "_n": "Purchased", "price": 12.50',
    ]
)
STRANGE = "from airflow.sdk import dag\n\n\n@dag(schedule=None)\ndef strange(): ...\n\n\nstrange()\n"
SIGNUPS = b"\n".join(line(f"new{n}@example.com", n, "Signed Up", source="ad") for n in range(25))


def landfall(page: Page) -> FrameLocator:
    """Our pages, in Airflow's frame."""
    return page.frame_locator("iframe")


def to_files(page: Page) -> FrameLocator:
    page.get_by_role("link", name="Landfall", exact=True).first.click()
    frame = landfall(page)
    expect(frame.get_by_role("table")).to_contain_text("orders-2026-11-23.json")
    return frame


def picture(page: Page, name: str) -> None:
    if PICTURES:
        page.screenshot(path=Path(PICTURES, f"{name}.png"))


def rows(stack: Stack, sql: str) -> list[dict[str, Any]]:
    with open_pipeline(load_settings(stack.environment)) as pipeline, pipeline.warehouse.query(sql) as answer:
        return [row for batch in answer.reader for row in batch.to_pylist()]


def test_mend_a_line_send_it_again_and_undo(stack: Stack, open_page: Callable[..., Page]) -> None:
    page = open_page()
    frame = to_files(page)
    picture(page, "files")
    frame.get_by_role("link", name=re.compile("orders-2026-11-23")).click()
    expect(frame.get_by_role("heading", level=1)).to_contain_text("orders-2026-11-23.json")
    expect(frame.locator("mark").first).to_be_visible()
    picture(page, "file")

    frame.get_by_role("link", name="Fix and send again").click()
    mended = frame.get_by_label("Line 41", exact=True)
    mended.fill('{"_p": "ann@example.com", "_t": 1795435200, "_n": "Purchased", "price": 49}')
    frame.get_by_label("Line 42", exact=True).fill('{"_p": "bob@example.com", "_t": "soon", "_n": "Purchased"}')
    frame.get_by_role("button", name="Check").first.click()
    expect(frame.get_by_text("right: becomes record")).to_be_visible()
    expect(frame.get_by_text("still wrong", exact=True)).to_be_visible()
    picture(page, "mend")
    frame.get_by_role("button", name="Send again").first.click()
    expect(frame.get_by_text(re.compile("1 line still wrong: it stays open"))).to_be_visible(timeout=SCHEDULED_MS)
    expect(frame.get_by_role("status")).to_contain_text("2 lines sent. 1 line is fixed.")
    expect(frame.get_by_role("heading", level=1)).to_contain_text("orders-2026-11-23.json")  # it led to the file

    told = rows(stack, "SELECT count(*) AS n FROM events WHERE person = 'ann@example.com' AND event = 'Purchased'")
    assert told == [{"n": 1}]
    expect(frame.get_by_text("2 still open")).to_be_visible()
    frame.get_by_role("link", name="Fix what is open").click()
    expect(frame.get_by_label("Line 42", exact=True)).to_have_value(re.compile("soon"))  # sent, and still wrong
    expect(frame.get_by_text("Your edits from before are back: 1 line on this page")).to_be_visible()
    frame.get_by_role("link", name="Discard the edits").click()
    expect(frame.get_by_label("Line 42", exact=True)).to_have_value(re.compile("cart"))
    frame.get_by_role("link", name=re.compile("orders-2026-11-23")).click()

    frame.get_by_role("link", name="Undo").click()  # 1
    frame.get_by_label("Why").fill("sent twice")
    frame.get_by_role("button", name="Undo").click()  # 2
    expect(frame.locator("h1 .state")).to_have_text("undone", timeout=SCHEDULED_MS)
    expect(frame.get_by_text("sent twice")).to_be_visible()
    assert rows(stack, "SELECT count(*) AS n FROM events WHERE event = 'Purchased'") == [{"n": 0}]
    (entry,) = rows(stack, "SELECT \"by\", reason FROM history WHERE action = 'undo' AND reason IS NOT NULL LIMIT 1")
    assert entry == {"by": USER, "reason": "sent twice"}

    frame.get_by_role("link", name="Bring back").click()  # 3
    frame.get_by_role("button", name="Bring back").click()  # 4
    landed = "The file is loaded again. 1 line is fixed. 1 line still wrong: it stays open."
    expect(frame.get_by_text(landed)).to_be_visible(timeout=SCHEDULED_MS)
    assert rows(stack, "SELECT count(*) AS n FROM events WHERE event = 'Purchased'") == [{"n": 41}]


def test_upload_check_load_and_the_same_once_more(stack: Stack, open_page: Callable[..., Page], tmp_path: Path) -> None:
    chosen = tmp_path / "my events <b>&.json"
    chosen.write_bytes(b"\n".join([line("zoe@example.com", 1, "Uploaded"), b'{"_p": "zoe"}', b""]))
    page = open_page()
    frame = to_files(page)
    frame.get_by_role("link", name="Upload").first.click()
    frame.locator("input[type=file]").set_input_files(chosen)
    expect(frame.get_by_role("button", name="Cancel")).to_be_hidden()
    picture(page, "upload")
    frame.get_by_role("button", name="Check first").click()
    expect(frame.get_by_text("time_missing").first).to_be_visible(timeout=SCHEDULED_MS)
    assert rows(stack, "SELECT count(*) AS n FROM events WHERE event = 'Uploaded'") == [{"n": 0}]
    picture(page, "check")
    frame.get_by_role("button", name="Load it").click()
    expect(frame.get_by_role("heading", level=1)).to_contain_text("my-events", timeout=SCHEDULED_MS)
    assert rows(stack, "SELECT count(*) AS n FROM events WHERE event = 'Uploaded'") == [{"n": 1}]

    frame.get_by_role("link", name="Upload").first.click()
    frame.locator("input[type=file]").set_input_files(chosen)
    frame.get_by_role("button", name="Load now").click()
    expect(frame.get_by_text("These bytes were loaded already")).to_be_visible()
    frame.get_by_role("button", name="Load now").click()
    expect(frame.locator("h1 .state")).to_have_text("duplicate", timeout=SCHEDULED_MS)
    assert rows(stack, "SELECT count(*) AS n FROM events WHERE event = 'Uploaded'") == [{"n": 1}]


def test_five_hundred_lines_of_one_problem_are_fixed_in_four_clicks(
    stack: Stack, open_page: Callable[..., Page]
) -> None:
    wrong = [json.dumps({"_p": f"m{n}", "_t": 1_795_435_200_000 + n, "_n": "In milliseconds"}) for n in range(500)]
    page = open_page()
    frame = to_files(page)
    drop(stack, "milliseconds.json", line("ann@example.com", 1, "Purchased"), *(text.encode() for text in wrong))
    show = frame.get_by_role("button", name="New data: show")
    expect(show).to_be_visible(timeout=SCHEDULED_MS)  # somebody who looks at the list learns of it
    show.click()
    expect(frame.get_by_text("loaded · 500 to fix")).to_be_visible()

    frame.get_by_role("link", name=re.compile("milliseconds.json")).click()
    frame.get_by_role("link", name="Fix and send again").click()
    frame.get_by_label("Line 2", exact=True).fill("edited")
    frame.get_by_role("button", name="Next").click()
    expect(frame.get_by_label("Line 22", exact=True)).to_be_visible()
    expect(frame.get_by_text("Your edits from before are back: 1 line on other pages")).to_be_visible()
    page.reload()
    frame.get_by_role("button", name="Before").click()
    expect(frame.get_by_label("Line 2", exact=True)).to_have_value("edited")
    frame.get_by_role("link", name="Discard the edits").click()
    expect(frame.get_by_label("Line 2", exact=True)).to_have_value(wrong[0])

    frame.get_by_role("link", name="Failures", exact=True).click()  # 1
    expect(frame.get_by_role("heading", name="time_in_milliseconds")).to_be_visible()
    picture(page, "failures")
    frame.get_by_role("link", name=re.compile("^Fix time_in_milliseconds in .*milliseconds.json")).click()  # 2
    frame.get_by_role("link", name="Use the stated values in all 500 lines").click()  # 3
    expect(frame.get_by_text("of 500 lines that would change, 500 are right")).to_be_visible()
    picture(page, "fix")
    frame.get_by_role("button", name="Send 500 lines").click()  # 4
    expect(frame.locator("h1 .state")).to_have_text("loaded", timeout=SCHEDULED_MS)
    assert rows(stack, "SELECT count(*) AS n FROM events WHERE event = 'In milliseconds'") == [{"n": 500}]


WRONG: tuple[tuple[str, bytes, str], ...] = (
    ("a.xlsx", b"PK\x03\x04" + bytes(26) + b"[Content_Types].xml", "an Office document"),
    ("a.csv", b"person,time,event\n" + b"ann,1700000000,Signed up\n" * 2, "a table (CSV)"),
    ("a.png", b"\x89PNG\r\n\x1a\n" + bytes(40), "an image"),
    ("a.zip", b"PK\x03\x04" + bytes(40), "a ZIP archive"),
    ("a.pdf", b"%PDF-1.7\n", "a PDF document"),
    ("a.json", '{"_p": "ann"}\n'.encode("utf-16"), "text in UTF-16"),
    ("b.json", '{"_p": "ann"}\n'.encode("utf-16-le"), "text in UTF-16"),
    ("c.json", b'\xef\xbb\xbf{"_p": "a,b"}\n{"_p": "a,b"}\n', ""),
    ("d.json.gz", b"\x1f\x8b\x08\x00" + bytes(20), ""),
    ("e.json", b"a, b\nc\n", ""),
    ("f.csv", b"ann,1700000000\nbob,1700000001\n", "perhaps"),
)


def test_wrong_files_are_named_before_they_are_sent(open_page: Callable[..., Page], tmp_path: Path) -> None:
    page = open_page()
    frame = to_files(page)
    frame.get_by_role("link", name="Upload").first.click()
    check = frame.get_by_role("button", name="Check first")
    for name, content, told in WRONG:
        (tmp_path / name).write_bytes(content)
        frame.locator("input[type=file]").set_input_files(tmp_path / name)
        line = frame.locator("#files li").filter(has_text=name)
        words = {"": "Ready", "perhaps": "It looks like a table (CSV)."}.get(told, f"The file is {told}")
        expect(line.locator(".state-of")).to_contain_text(words)
        expect(check).to_be_enabled(enabled=told in ("", "perhaps"))
    frame.locator("input[type=file]").set_input_files([tmp_path / "c.json", tmp_path / "a.png"])
    expect(frame.locator("#files .state-of")).to_contain_text(["Ready", "The file is an image"])
    expect(check).to_be_enabled()  # for the one that may be sent


def test_several_files_at_once(stack: Stack, open_page: Callable[..., Page], tmp_path: Path) -> None:
    for name, content in {
        "one": line("una@example.com", 1, "Several"),
        "two": b"broken",
        "a.png": b"\x89PNG\r\n\x1a\n",
    }.items():
        (tmp_path / name).write_bytes(content)
    page = open_page()
    frame = to_files(page)
    frame.get_by_role("link", name="Upload").first.click()
    frame.locator("input[type=file]").set_input_files([tmp_path / name for name in ("one", "two", "a.png")])
    frame.get_by_role("button", name="Check first").click()
    expect(frame.get_by_text("2 of 3 files are sent: look at the list, then press again to go on.")).to_be_visible()
    frame.get_by_role("button", name="Check first").click()
    result = frame.get_by_role("heading", name="2 files are checked: 1 can be loaded")
    expect(result).to_be_focused(timeout=SCHEDULED_MS)
    expect(frame.get_by_text("reject it", exact=True)).to_be_visible()
    frame.get_by_role("button", name="Load the 1 that can be loaded").click()
    expect(frame.locator("h1 .state")).to_have_text("loaded", timeout=SCHEDULED_MS)
    assert rows(stack, "SELECT count(*) AS n FROM events WHERE event = 'Several'") == [{"n": 1}]


def test_a_copied_link_opens_within_airflow(stack: Stack, open_page: Callable[..., Page]) -> None:
    page = open_page(permissions=["clipboard-read", "clipboard-write"])
    frame = to_files(page)
    file = frame.get_by_role("link", name=re.compile("orders-2026-11-23"))
    bare = file.get_attribute("href")  # what a browser's own menu copies
    file.click()
    expect(frame.get_by_role("heading", level=1)).to_contain_text("orders-2026-11-23.json")
    frame.get_by_role("button", name="Copy link").click()
    expect(frame.get_by_role("button", name="Link copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == f"{stack.url}/plugin/landfall{bare}"
    page.goto("about:blank")
    page.goto(f"{stack.url}{bare}")
    page.wait_for_url(f"{stack.url}/plugin/landfall{bare}")
    expect(frame.get_by_role("heading", level=1)).to_contain_text("orders-2026-11-23.json")
    page.go_back()
    assert page.url == "about:blank", "the bare page is not in between, which would lead forth again"


def follow(page: Page, link: Locator) -> None:
    """Click it, and wait until the next page is there: else the former one answers while that is on its way."""
    with page.expect_event("framenavigated", lambda frame: frame != page.main_frame):
        link.click()


def test_hostile_lines_do_nothing(open_page: Callable[..., Page]) -> None:
    page = open_page()
    frame = to_files(page)
    for link in ("All of them", "Fix and send again", "See what the lines became"):
        follow(page, frame.get_by_role("link", name="Files", exact=True))
        follow(page, frame.get_by_role("link", name=re.compile("hostile")))
        follow(page, frame.get_by_role("link", name=link).first)
        expect(frame.get_by_text("alert(1)").first).to_be_attached()
        assert "49" not in frame.locator("main").inner_text().split()  # {{7*7}}


def test_tabs_on_the_run_and_its_task(stack: Stack, open_page: Callable[..., Page]) -> None:
    (loaded,) = rows(stack, f"SELECT run_id FROM ledger WHERE key = '{PREFIX}hostile.json'")
    page = open_page()
    page.goto(f"{stack.url}/dags/ingest_website/runs/{quote(loaded['run_id'])}")
    page.get_by_role("link", name="Failed lines", exact=True).last.click()
    expect(landfall(page).get_by_text("hostile.json").first).to_be_visible()
    page.goto(f"{stack.url}/dags/ingest_website/runs/{quote(loaded['run_id'])}/tasks/load/mapped/0")
    page.get_by_role("link", name="Failed lines", exact=True).last.click()
    expect(landfall(page).get_by_text("hostile.json").first).to_be_visible()


def test_the_page_of_a_dag_counts_what_is_left_to_fix_and_a_strange_dag_does_not(
    stack: Stack, open_page: Callable[..., Page]
) -> None:
    """From Airflow 3.4 on. Before, there is no place for a button, and our tabs are on every DAG."""
    of_dag = "source = 'website' AND state IN ('loaded', 'rejected') AND redriven_at IS NULL"
    (left,) = rows(stack, f"SELECT count(*) AS n FROM failed_lines JOIN ledger USING (file_id) WHERE {of_dag}")
    scopes = tuple(map(int, stack.get("/api/v2/version")["version"].split(".")[:2])) >= (3, 4)
    page = open_page()
    page.goto(f"{stack.url}/dags/ingest_website")
    button = page.get_by_role("link", name=re.compile(r"^\d+ lines? to fix$"))
    tab = page.get_by_role("link", name="Failed lines", exact=True)
    expect(tab).to_be_visible()
    if scopes:
        expect(button).to_have_text(re.compile(rf"^{left['n']} line"))
        button.click()
        expect(landfall(page).get_by_role("heading", level=1)).to_have_text("Failures")
    page.goto(f"{stack.url}/dags/strange")
    expect(page.get_by_role("link", name="Code", exact=True)).to_be_visible()
    if scopes:
        expect(page.get_by_role("link", name="Landfall", exact=True)).to_be_visible()  # plugins are known
        page.wait_for_load_state("networkidle")
        expect(tab).to_have_count(0)
    else:
        tab.click()
        expect(landfall(page).get_by_text("This DAG is not Landfall's")).to_be_visible()
    expect(button).to_have_count(0)


def tab_to(page: Page, frame: FrameLocator, words: str) -> None:
    """Press Tab until what has the focus is called so."""
    name = "e => (e = document.activeElement, e.ariaLabel || (e.matches('a, button') ? e.textContent : ''))"
    for _ in range(200):
        page.keyboard.press("Tab")
        if words in frame.locator("html").evaluate(name):
            return
    pytest.fail(f"Tab never comes to {words!r}")


def test_with_the_keyboard_alone(open_page: Callable[..., Page]) -> None:
    page = open_page()
    frame = to_files(page)
    frame.get_by_role("searchbox").focus()
    page.keyboard.type("signups")
    page.keyboard.press("Enter")
    expect(frame.get_by_text("1 file", exact=True)).to_be_visible()
    tab_to(page, frame, "signups")
    page.keyboard.press("Enter")
    expect(frame.get_by_role("heading", level=1)).to_contain_text("signups-2026-11-23.json")


def test_mending_with_the_keyboard_alone(stack: Stack, open_page: Callable[..., Page]) -> None:
    drop(stack, "keys.json", b"broken", line("kay@example.com", 1, "Visited"))
    page = open_page()
    frame = to_files(page)
    for _ in range(SCHEDULED_MS // 1000):
        if frame.get_by_role("link", name=re.compile("keys.json")).count():
            break
        page.wait_for_timeout(1000)
        follow(page, frame.get_by_role("link", name="Files", exact=True))
    frame.get_by_role("searchbox").focus()
    for words in ("keys.json", "Fix and send again", "Line 1"):
        tab_to(page, frame, words)
        page.keyboard.press("Enter" if words != "Line 1" else "Control+A")
        if words == "keys.json":
            expect(frame.get_by_role("heading", level=1)).to_contain_text("keys.json")
        elif words == "Fix and send again":
            expect(frame.get_by_label("Line 1", exact=True)).to_be_visible()
            frame.get_by_role("link", name="Files", exact=True).focus()
    page.keyboard.type('{"_p": "kim@example.com", "_t": 1795435200, "_n": "Typed"}')
    tab_to(page, frame, "Check")
    page.keyboard.press("Enter")
    expect(frame.get_by_text("right: becomes record")).to_be_visible()
    frame.get_by_label("Line 1", exact=True).focus()
    tab_to(page, frame, "Send again")
    page.keyboard.press("Enter")
    expect(frame.get_by_text("all fixed")).to_be_visible(timeout=SCHEDULED_MS)
    assert rows(stack, "SELECT count(*) AS n FROM events WHERE event = 'Typed'") == [{"n": 1}]


def test_a_session_that_ended_leads_to_the_login(stack: Stack, open_page: Callable[..., Page]) -> None:
    page = open_page()
    frame = to_files(page)
    frame.get_by_role("link", name=re.compile("hostile")).click()
    frame.get_by_role("link", name="Fix and send again").click()
    frame.get_by_label("Line 1", exact=True).fill("what took an hour")
    page.context.clear_cookies()
    frame.get_by_role("button", name="Check").first.click()
    button = frame.get_by_role("link", name="Log in")
    expect(button).to_be_visible()
    assert button.evaluate("one => getComputedStyle(one).backgroundColor") == "rgb(11, 95, 193)", "it has its style"
    button.click()
    page.wait_for_url(re.compile("/auth/login"))
    page.fill("input[name=username]", USER)  # in the window, not in the frame
    page.fill("input[name=password]", PASSWORD)
    page.press("input[name=password]", "Enter")
    page.wait_for_url(lambda url: "login" not in url)
    to_files(page)
    frame.get_by_role("link", name=re.compile("hostile")).click()
    frame.get_by_role("link", name="Fix and send again").click()
    expect(frame.get_by_label("Line 1", exact=True)).to_have_value("what took an hour")


def test_who_may_only_look_sees_no_lines_and_no_buttons(open_page: Callable[..., Page]) -> None:
    page = open_page(VIEWER, VIEWER)
    frame = to_files(page)
    frame.get_by_role("link", name=re.compile("hostile")).click()
    expect(frame.get_by_role("heading", level=1)).to_contain_text("hostile.json")
    assert frame.locator("code.raw").count() == 0
    assert frame.get_by_role("link", name=re.compile("^(Undo|Force|Fix)")).count() == 0


@pytest.mark.parametrize("width", [400, 1280])
def test_dark_as_airflow_is(stack: Stack, open_page: Callable[..., Page], width: int) -> None:
    page = open_page(viewport={"width": width, "height": 860})
    page.evaluate("localStorage.setItem('theme', 'dark')")
    page.goto(f"{stack.url}/plugin/landfall")
    frame = landfall(page)
    expect(frame.get_by_role("table")).to_contain_text("signups")
    expect(page.locator("html")).to_have_class(re.compile("dark"))
    expect(frame.locator("html")).to_have_class("dark")
    wide = frame.locator("html").evaluate("html => html.scrollWidth - html.clientWidth")
    assert wide <= 0, "the page is wider than the screen"
    picture(page, f"dark-{width}")
