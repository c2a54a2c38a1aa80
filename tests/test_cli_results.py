"""What a command says of what it did, or would do: exit codes that a person chose, dry runs, summaries, questions."""

import os
import pty
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import S3
from tests.support import lines, record
from tests.test_cli import BAD, GOOD, Shell, ingest
from tests.test_terminal import command, environ, terminal

__all__ = ["ingest"]  # a fixture


# --- --fail-on -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("content", "codes"), [
    pytest.param(GOOD, (0, 0, 0), id="all right"),
    pytest.param((*GOOD, "no json"), (1, 0, 0), id="failed lines"),
    pytest.param(BAD, (1, 1, 0), id="rejected"),
])  # fmt: skip
@pytest.mark.parametrize("command", ["check", "load", "poll"])
def test_a_person_chooses_what_is_exit_1(ingest: Shell, command: str, content: tuple[str, ...], codes: object) -> None:
    ingest.config({"name": "web", "bucket": "file", "prefix": str(ingest.folder / "web"), "max_failed_lines": 1})
    ended = []
    for number, fail_on in enumerate(("failed", "rejected", "error")):
        name = ingest.file(f"web/{number}.json", *content, record("ann", 9, fail_on))
        ended.append(ingest(command, *[name] * (command != "poll"), "--fail-on", fail_on).code)
    assert tuple(ended) == codes


@pytest.mark.slow
def test_a_redrive_too(ingest: Shell) -> None:
    ingest.config({"name": "web", "bucket": "file", "prefix": str(ingest.folder / "web"), "max_failed_lines": 1})
    names = [ingest.file("a.json", *BAD), ingest.file("web/b.json", *BAD)]
    files = ingest("load", *names, "--json").json["files"]
    assert [file["state"] for file in files] == ["loaded", "rejected"]
    ended = [[ingest("redrive", file["file_id"], "--fail-on", how).code for how in ("failed", "rejected", "error")]
             for file in files]  # fmt: skip
    assert ended == [[1, 0, 0], [1, 1, 0]]


def test_what_could_not_be_done_is_exit_2_whatever_was_chosen(ingest: Shell) -> None:
    ingest.config({"name": "web", "bucket": "no-such-bucket", "endpoint_url": "http://127.0.0.1:9"})
    assert ingest("load", "nope.json", "--fail-on", "error").code == 2
    assert ingest("check", "nope.json", "--fail-on", "error").code == 2
    assert ingest("redrive", "abc", "--fail-on", "error").code == 2


# --- --dry-run -------------------------------------------------------------------------------------------------------


@pytest.fixture
def landing(ingest: Shell) -> Shell:
    ingest.config({"name": "web", "bucket": "file", "prefix": str(ingest.folder / "web"), "max_failed_lines": 1})
    ingest.file("web/1.json", *GOOD)
    ingest.file("web/2.json", *BAD)
    return ingest


@pytest.mark.parametrize("command", [("load", "web"), ("poll",)])
def test_a_dry_run_says_what_would_become_of_files(landing: Shell, command: tuple[str, ...]) -> None:
    told = landing(*command, "--dry-run", "--json")
    assert (told.code, told.json["dry_run"]) == (1, True)
    assert [(one["state"], one["outcome"], one["records"]) for one in told.json["files"]] == [
        ("loaded", "would be loaded", 1), ("rejected", "would be rejected", 1),
    ]  # fmt: skip
    shown = landing(*command, "--dry-run")
    assert shown.out.startswith(b"2 files in web/: 1 would be loaded, 1 would be rejected\n")
    assert shown.out.count(b"would be loaded") == 2
    assert "ingest failures" not in shown.err
    assert landing.json("files") == {"files": []}
    assert [*landing("poll", "--json").json] == ["files"]
    again = landing("load", "web", "--dry-run", "--json").json["files"]
    assert [one["outcome"] for one in again] == ["already loaded", "already rejected"]


def test_a_dry_run_of_a_first_poll_that_passes_files_over(ingest: Shell) -> None:
    ingest.config({"name": "web", "bucket": "file", "prefix": str(ingest.folder / "web"), "existing_files": "skip"})
    ingest.file("web/1.json", *GOOD)
    ran = ingest("poll", "--dry-run", "--json")
    assert (ran.code, ran.json) == (0, {"dry_run": True, "files": []})
    assert "web: the first poll would enter 1 file as ignored" in ran.err
    assert ingest.json("sources")["sources"][0]["skipped_by_first_poll"] == 1  # it was no poll
    assert ingest.json("poll") == {"files": []}
    ingest.file("web/2.json", record("bob", 0, "x"))
    assert len(ingest.json("poll", "--dry-run")["files"]) == 1


def test_a_dry_run_of_a_poll_moves_nothing(ingest: Shell) -> None:
    ingest.config({"name": "web", "bucket": "file", "prefix": str(ingest.folder / "web"), "after_load": "archive"})
    path = ingest.folder / ingest.file("web/1.json", *GOOD)
    assert ingest("poll", "--dry-run").code == 0
    assert path.exists()


# --- many files ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_of_many_files_a_summary_is_shown_and_what_needs_a_look(ingest: Shell) -> None:
    for number in range(60):
        ingest.file(f"in/{number}.json", record("ann", number, "x"), *["no json"] * (number % 20 == 7))
    ran = ingest("load", "in")
    assert ran.code == 1
    shown = ran.out.decode()
    assert shown.startswith("60 files in in/: 60 loaded\n")
    assert "3 files to look at\n" in shown
    assert [name for name in ("7.json", "27.json", "47.json", "8.json") if f" {name}\n" in shown] == [
        "7.json", "27.json", "47.json",
    ]  # fmt: skip
    assert len(shown.splitlines()) < 20
    assert "; of all files: ingest failures" in ran.err
    assert len(ingest.json("load", "in")["files"]) == 60
    assert b"60 already loaded" in ingest("load", "in").out
    few = ingest("load", *(f"in/{number}.json" for number in range(50))).out
    assert few.count(b".json\n") == 50


def test_of_many_errors_the_first_are_said(ingest: Shell) -> None:
    ingest.config({"name": "web", "bucket": "file", "prefix": str(ingest.folder / "in"), "max_failed_lines": 0})
    for number in range(60):
        ingest.file(f"in/{number}.json", record("ann", number, "x"), "no json")
    ran = ingest("poll")
    assert (ran.code, ran.err.count("1 of 2 lines failed"), "… and 40 more (--json has all of them)" in ran.err) == (
        1,
        20,
        True,
    )
    assert ran.out.decode().splitlines()[0].endswith("60 rejected")
    assert b"60 files to look at, the first 10\n" in ran.out


def test_somebody_who_watches_sees_files_and_listings_go_by(tmp_path: Path) -> None:
    """On a terminal that can show it; nothing of it is left behind."""
    for number in range(1_200):
        (tmp_path / f"in{number % 7}").mkdir(exist_ok=True)
        (tmp_path / f"in{number % 7}" / f"{number}.json").write_bytes(lines(record("ann", number, "x")))
    seen = terminal(tmp_path, command("load", f"{tmp_path}/", "--dry-run"), TERM="xterm")
    assert "listing " in seen
    assert " of 1,200 files" in seen
    assert "1,200 would be loaded" in seen


# --- undo of a whole source ------------------------------------------------------------------------------------------


@pytest.fixture
def loaded(ingest: Shell) -> Shell:
    """A source with two files, of which one has a redrive."""
    ingest.config({"name": "web", "bucket": "file", "prefix": str(ingest.folder / "web")})
    ingest.file("web/1.json", *GOOD)
    ingest.file("web/2.json", record("bob", 0, "x"), "no json", "nor this")
    ingest("poll")
    (file,) = (one for one in ingest.json("files")["files"] if one["failed"])
    ingest.file("fixed.txt", b"2\t" + lines(record("cy", 9, "y"), "3\tstill no json"))
    ran = ingest("redrive", file["file_id"], "fixed.txt")
    assert b"1 line still open\n" in ran.out
    return ingest


def answered(folder: Path, answer: bytes, *arguments: str) -> tuple[int, str]:
    """The exit code, and what a terminal showed on which somebody answers."""
    ours, theirs = pty.openpty()
    os.write(ours, answer)
    ran = command(*arguments)
    with subprocess.Popen(ran, cwd=folder, env=environ(), stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        with suppress(OSError):  # so a terminal says that nobody holds it any more
            while piece := os.read(ours, 1 << 16):
                shown += piece
    os.close(ours)
    return process.returncode, shown.decode()


def test_a_terminal_is_asked_before_a_whole_source_is_undone(loaded: Shell) -> None:
    code, shown = answered(loaded.folder, b"n\n", "undo", "--source", "web")
    takes = "undo would take 2 files, 5 rows, 2 failed lines, 1 redrive: all of the source web. Go on? [y/N]"
    assert (code, takes in shown, "You said no, so nothing was done." in shown) == (2, True, True)
    assert {file["state"] for file in loaded.json("files")["files"]} == {"loaded"}
    code, shown = answered(loaded.folder, b"y\n", "undo", "--source", "web", "--since", "1h")
    assert (code, ": all of the source web since 1h. Go on? [y/N]" in shown) == (0, True)
    assert {file["state"] for file in loaded.json("files")["files"]} == {"undone"}


@pytest.mark.parametrize("arguments", [("--yes",), ("--dry-run",)])
def test_who_said_it_already_is_not_asked(loaded: Shell, arguments: tuple[str, ...]) -> None:
    code, shown = answered(loaded.folder, b"", "undo", "--source", "web", *arguments)
    assert (code, "Go on?" in shown) == (0, False)


def test_without_a_terminal_nobody_is_asked_and_a_dry_run_says_how_much(loaded: Shell) -> None:
    told = loaded.json("undo", "--source", "web", "--dry-run")
    assert told["takes"] == {"files": 2, "rows": 5, "failed_lines": 2, "redrives": 1}
    assert [(one["state"], one["would_be"]) for one in told["files"]] == [("loaded", "undone")] * 2
    shown = loaded("undo", "--source", "web", "--dry-run").out.decode()
    assert "undo would take 2 files, 5 rows, 2 failed lines, 1 redrive\nfile_id   is now  would be  file\n" in shown
    shown = loaded("undo", "--source", "web", "--since", "1h").out.decode()
    assert "undo took 2 files, 5 rows, 2 failed lines, 1 redrive\nfile_id   was     is now  file\n" in shown
    files = loaded.json("files")["files"]
    assert {file["state"] for file in files} == {"undone"}
    again = loaded("undo", files[-1]["file_id"], "--dry-run")
    assert b"undo would take 0 files, 0 rows, 0 failed lines, 0 redrives\n" in again.out
    assert "It is undone; undo is for files that are loaded or rejected." in again.err


@pytest.mark.slow
def test_of_many_files_an_action_shows_a_summary(ingest: Shell) -> None:
    for number in range(60):
        ingest.file(f"in/{number}.json", record("ann", number, "x"))
    ingest("load", "in")
    assert (
        ingest("undo", "--source", "one_off").out.decode().split("\n")[0]
        == "undo took 60 files, 60 rows, 0 failed lines, 0 redrives"
    )
    ids = [file["file_id"] for file in ingest.json("files", "--limit", "60")["files"]]
    again = ingest("undo", *ids)
    assert (again.code, len(again.out.splitlines()), "… and 40 more" in again.err) == (0, 5, True)


# --- what is left to fix ---------------------------------------------------------------------------------------------


def test_a_redrive_says_what_is_left(ingest: Shell) -> None:
    ingest.file("a.json", *GOOD, "no json")
    (file,) = ingest("load", "a.json", "--json").json["files"]
    for empty in (b"", b"\n\r\n", b"\xef\xbb\xbf"):
        ran = ingest("redrive", file["file_id"], "-", "--json", stdin=empty)
        assert (ran.code, "There is no line in what was sent" in ran.json["error"]) == (2, True)
    assert b": 1 line still wrong; 1 line still open\n" in ingest("redrive", file["file_id"]).out
    fixed = b"4\t" + lines(record("bob", 0, "x"))
    ran = ingest("redrive", file["file_id"], "-", stdin=fixed)
    assert (ran.code, ran.out.endswith(b"; no failed line is open\n")) == (0, True)
    assert ingest("redrive", file["file_id"], "-", "--json", stdin=fixed).json["open"] == 0


# --- which file is meant ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_of_an_address_with_several_versions_the_newest_is_said_to_be_meant(ingest: Shell, s3: S3) -> None:
    s3.keep_versions()
    address = f"s3://{s3.bucket}/a.json"
    for number in range(2):
        s3.put("a.json", lines(record("ann", number, "x"), f"no json {number}"))
        assert ingest("load", address).code == 1
    newest, older = (file["file_id"] for file in ingest.json("files")["files"])
    said = (
        f"The ledger has 2 versions of {address}. This is the newest, {newest[:8]} (loaded); for another one name its"
        f" FILE_ID: {older[:8]} (loaded)\n"
    )
    for words in (("failures",), ("failures", "--lines"), ("redrive",), ("undo", "--dry-run"), ("undo",)):
        assert said in ingest(*words, address).err
    assert "versions" not in ingest("failures", older).err
    assert {file["file_id"]: file["state"] for file in ingest.json("files")["files"]} == {
        newest: "undone", older: "loaded",
    }  # fmt: skip


@pytest.mark.slow
def test_a_file_of_the_ledger_is_loaded_by_its_id(ingest: Shell, s3: S3) -> None:
    s3.keep_versions()
    s3.put("a.json", lines(record("ann", 0, "old"), "no json"))
    (old,) = ingest("load", f"s3://{s3.bucket}/a.json", "--json").json["files"]
    s3.put("a.json", lines(record("ann", 0, "new")))
    assert ingest("undo", old["file_id"]).code == 0
    (again,) = ingest("load", old["file_id"][:8], "--json").json["files"]
    assert (again["file_id"], again["state"], again["failed"]) == (old["file_id"], "loaded", 1)
    assert b"old" in ingest("sql", "select event from events").out
    assert b"already loaded" in ingest("load", old["file_id"]).out
    assert b": 1 loaded\n" in ingest("load", old["file_id"], "--force").out
    ingest("redrive", old["file_id"], "-", stdin=b"2\t" + lines(record("ann", 1, "fixed")))
    (redrive,) = (file["file_id"] for file in ingest.json("files")["files"] if file["redrive_of"])
    for wrong, said in (
        (old["file_id"][:7], "If it is the id of one in the ledger, give 8 characters of it."),
        ("0" * 32, "No file 00000000000000000000000000000000 is in the ledger."),
        (redrive, "holds fixed lines of " + old["file_id"][:8]),
    ):
        ran = ingest("load", wrong)
        assert (ran.code, said in ran.err) == (2, True), ran.err
    ingest.file(old["file_id"][:8], record("ann", 5, "local"))  # a path goes before
    assert ingest("load", old["file_id"][:8], "--json").json["files"][0]["bucket"] == "file"


def test_a_source_whose_prefix_ends_in_no_slash_is_named(ingest: Shell, s3: S3) -> None:
    ingest.config(
        {"name": "bare", "bucket": s3.bucket, "prefix": "web"},
        {"name": "folder", "bucket": s3.bucket, "prefix": "in/"},
        {"name": "all", "bucket": f"{s3.bucket}-2"}, {"name": "here", "bucket": "file", "prefix": str(ingest.folder)},
    )  # fmt: skip
    s3.client.create_bucket(Bucket=f"{s3.bucket}-2")
    s3.put("web2/a.json", lines(*GOOD))
    told = {source["name"]: source["notices"] for source in ingest.json("sources")["sources"]}
    said = "The prefix web ends in no slash: web2/a.json is taken, too. Write web/ if a folder is meant."
    assert told == {"bare": [said], "folder": [], "all": [], "here": []}
    assert said.encode() in ingest("sources", "bare").out
