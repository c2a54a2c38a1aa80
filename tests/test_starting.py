"""`ingest init`: what it writes, what it tries, and that no file of settings is ever written by halves or over."""

import errno
import os
import pty
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import pytest

from ingest import starting
from ingest.errors import ConfigError
from ingest.settings import SOURCE_SETTINGS, Source, load_settings
from tests.conftest import S3
from tests.support import ROOT, lines, record
from tests.test_cli import Shell, ingest

__all__ = ["ingest"]  # a fixture

WOOPRA = b'{"visitor":{"id":"ann"},"actions":[{"name":"bought","time":1393344604000}]}\n'


def toml(folder: Path, name: str = "ingest.toml") -> list[dict[str, object]]:
    found: list[dict[str, object]] = tomllib.loads((folder / name).read_text(encoding="utf-8"))["source"]
    return found


# --- what is written -------------------------------------------------------------------------------------------------


def test_what_is_commented_out_may_be_taken_in() -> None:
    text = starting.source_text({"name": "web", "bucket": "acme"})
    before, title, more = text.partition("# More settings of this source.")
    assert [one["name"] for one in tomllib.loads(before)["source"]] == ["web"]
    assert starting.settings_of(text.encode()).sources == {"web": Source(name="web", bucket="acme")}
    whole = before + title + re.sub(r"(?m)^#(?! )", "", more)
    taken_in = starting.settings_of(whole.encode()).sources["web"]
    values = tomllib.loads(whole)["source"][0]
    assert len(values) > 10
    defaults = {field.name: field.default for field in fields(Source)}
    for name in values.keys() - {"name", "bucket"}:
        if defaults[name] not in (None, ""):
            assert getattr(taken_in, name) == defaults[name]
        else:
            assert f"Default: {SOURCE_SETTINGS[name].default}" in " ".join(re.sub(r"\n# ", " ", text).split())


def test_comments_are_what_the_program_says_of_its_settings() -> None:
    text = re.sub(r"\n# ", " ", starting.source_text({"name": "web", "bucket": "acme", "format": "woopra"}))
    for name in re.findall(r"(?m)^#?(\w+) = ", text):
        assert SOURCE_SETTINGS[name].about in text


@pytest.mark.parametrize("value", ['a"b\\c', "a\nb\x7f\x01", "Ünï", "#"])
def test_any_text_is_written_as_toml(value: str) -> None:
    text = starting.source_text({"name": "web", "bucket": "acme", "prefix": value})
    assert tomllib.loads(text)["source"][0]["prefix"] == value


@pytest.mark.parametrize(("bucket", "prefix", "place"), [
    pytest.param("acme", None, ("acme", ""), id="a bucket"),
    pytest.param("acme", "web/", ("acme", "web/"), id="a bucket and a prefix"),
    pytest.param("s3://acme/landing/web", None, ("acme", "landing/web"), id="an address"),
    pytest.param("s3://acme", "web/", ("acme", "web/"), id="an address without a prefix, and one"),
    pytest.param("/data/drop", None, ("file", "/data/drop"), id="a folder"),
    pytest.param("arn:aws:s3:eu-west-1:123456789012:accesspoint/web", "a/",
                 ("arn:aws:s3:eu-west-1:123456789012:accesspoint/web", "a/"), id="an access point"),
])  # fmt: skip
def test_a_place_is_taken_apart(bucket: str, prefix: str | None, place: tuple[str, str]) -> None:
    assert starting.place_of(bucket, prefix) == place


# --- with options ----------------------------------------------------------------------------------------------------


def test_it_writes_and_tries_a_source_and_loads_nothing(ingest: Shell, s3: S3) -> None:
    s3.put("landing/web-site/1.json", lines(record("ann", 0, "bought"), '{"_p":"bob","_t":1393344604000,"_n":"x"}'))
    s3.put("landing/web-site/a.csv")
    ran = ingest("init", "--bucket", f"s3://{s3.bucket}/landing/web-site", "--schedule", "300")
    assert ran.code == 0, ran.err
    out = ran.out.decode()
    assert "The prefix landing/web-site has no / at its end: landing/web-site/ is taken." in ran.err
    assert f"s3://{s3.bucket}/landing/web-site/: 1 file\n" in out
    assert "No rule takes 1 object, such as landing/web-site/a.csv" in out
    assert "1.json looks like kissmetrics" in out
    assert re.search(r"^1 +record +2014-02-25 16:10:03 +ann +bought$", out, re.MULTILINE)
    assert "time_in_milliseconds at /_t: It reads as 2014-02-25 16:10:04 UTC: send 1393344604." in out
    assert toml(ingest.folder) == [
        {"name": "web_site", "bucket": s3.bucket, "prefix": "landing/web-site/", "format": "kissmetrics",
         "schedule": 300}
    ]  # fmt: skip
    assert [path.name for path in ingest.folder.iterdir()] == ["ingest.toml"]
    assert ingest("poll").code == 1  # one line failed


def test_the_format_is_what_the_first_file_tells(ingest: Shell, s3: S3) -> None:
    s3.put("a/0.json", b"")
    s3.put("a/1.json", WOOPRA)
    told = ingest.json("init", "--bucket", f"s3://{s3.bucket}/a/")
    assert toml(ingest.folder) == [told["source"]]
    assert (told["source"]["format"], told["guessed_format"], told["matching"]) == ("woopra", "woopra", 2)
    assert told["judged"] == f"s3://{s3.bucket}/a/1.json"
    assert [(one["line"], one["item"], one["commands"][0]["event"]) for one in told["lines"]] == [
        (1, "/actions/0", "bought")
    ]
    assert ingest("poll").code == 0


def test_a_format_that_was_given_is_kept_and_its_refusal_is_shown(ingest: Shell, s3: S3) -> None:
    s3.put("1.json", WOOPRA)
    ran = ingest("init", "--bucket", s3.bucket, "--format", "vitally", "--name", "all")
    assert (ran.code, toml(ingest.folder)[0]["format"]) == (0, "vitally")
    assert "A load would reject the file, wrong_format" in ran.out.decode()


def test_a_folder_of_this_machine_is_a_source(ingest: Shell) -> None:
    ingest.file("drop/1.json", record("ann", 0, "x"))
    ran = ingest("init", "--bucket", "./drop")
    assert (ran.code, "no /" in ran.err) == (0, False)
    assert toml(ingest.folder)[0]["prefix"] == f"{ingest.folder}/drop/"
    assert ingest("poll").code == 0


def test_where_nothing_lies_the_source_is_written_all_the_same(ingest: Shell, s3: S3) -> None:
    ran = ingest("init", "--bucket", s3.bucket, "--prefix", "web/")
    assert (ran.code, ran.out.decode()) == (0, f"s3://{s3.bucket}/web/: 0 files\n")
    assert toml(ingest.folder) == [{"name": "web", "bucket": s3.bucket, "prefix": "web/"}]


def test_a_store_that_cannot_be_reached_is_said_and_the_settings_are_kept(ingest: Shell, s3: S3) -> None:
    ran = ingest("init", "--bucket", "s3://no-such-bucket/web/", "--json")
    assert ran.code == 2
    assert ran.json["reachable"] is False
    assert "there is no such bucket: correct its name, or create it" in ran.json["error"]
    assert ran.json["error"] in ran.err
    assert "`ingest doctor` tries it again" in ran.err
    assert toml(ingest.folder)[0]["bucket"] == "no-such-bucket"


def test_an_existing_file_is_never_overwritten(ingest: Shell) -> None:
    (ingest.folder / "ingest.toml").write_text("# mine", encoding="utf-8")
    ran = ingest("init", "--bucket", "acme")
    assert (ran.code, "`ingest init --add`" in ran.err) == (2, True)
    assert (ingest.folder / "ingest.toml").read_text(encoding="utf-8") == "# mine"


def test_nor_is_one_that_comes_while_it_is_tried(tmp_path: Path) -> None:
    path = tmp_path / "ingest.toml"
    path.write_text("# mine", encoding="utf-8")
    with pytest.raises(ConfigError, match="is there already"):
        starting.put(path, b"# other", instead=False)
    assert [one.read_text(encoding="utf-8") for one in tmp_path.iterdir()] == ["# mine"]


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ingest.toml"
    path.write_text("# mine", encoding="utf-8")

    def full(_: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(starting, "flush", full)
    with pytest.raises(ConfigError, match="No space left"):
        starting.put(path, b"# longer", instead=True)
    assert [one.read_text(encoding="utf-8") for one in tmp_path.iterdir()] == ["# mine"]


def test_a_second_source_is_added_and_the_first_keeps_its_words(ingest: Shell, s3: S3) -> None:
    path = ingest.folder / "ingest.toml"
    mine = '# mine\r\n[[source]]\nname = "one"\nbucket = "acme"\n[uploads]\nbucket = "acme"\nprefix = "up/"'
    path.write_bytes(mine.encode())
    path.chmod(0o640)
    ran = ingest("init", "--add", "--bucket", f"s3://{s3.bucket}/two/")
    assert ran.code == 0, ran.err
    assert path.read_bytes().startswith(mine.encode())
    assert path.stat().st_mode & 0o777 == 0o640
    assert list(load_settings({"INGEST_CONFIG": str(path)}).sources) == ["one", "two"]
    again = ingest("init", "--add", "--bucket", f"s3://{s3.bucket}/two/")
    assert (again.code, "its name is taken by another source" in again.err) == (2, True)
    assert len(toml(ingest.folder)) == 2


def test_to_an_empty_file_and_to_none_a_first_source_is_added(ingest: Shell, s3: S3) -> None:
    (ingest.folder / "empty.toml").touch()
    for name in ("empty.toml", "none.toml"):
        assert ingest("init", name, "--add", "--bucket", s3.bucket).code == 0
        assert "# More settings" in (ingest.folder / name).read_text(encoding="utf-8")


def test_without_a_terminal_it_says_what_to_give(ingest: Shell) -> None:
    ran = ingest("init")
    assert (ran.code, len(ran.err.splitlines())) == (2, 1)
    assert "ingest init --bucket s3://bucket/prefix/" in ran.err
    assert not [*ingest.folder.iterdir()]


@pytest.mark.parametrize("arguments", [
    pytest.param(("--bucket", "a b"), id="no bucket's name"),
    pytest.param(("--bucket", "s3://acme//x"), id="an odd prefix"),
    pytest.param(("--bucket", "s3://acme/a/", "--prefix", "b/"), id="two prefixes"),
    pytest.param(("--bucket", "acme", "--schedule", "sometimes"), id="a schedule"),
    pytest.param(("--bucket", "acme", "--name", "action"), id="a name that is taken"),
    pytest.param(("--bucket", "acme", "--endpoint-url", "minio"), id="an endpoint"),
    pytest.param(("--bucket", "s3://acme/completed_imports/"), id="where the program writes"),
    pytest.param(("no/such/folder.toml", "--bucket", "acme"), id="no folder for the file"),
])  # fmt: skip
def test_what_is_wrong_is_said_and_nothing_is_written(arguments: Sequence[str], ingest: Shell, s3: S3) -> None:
    ran = ingest("init", *arguments)
    assert ran.code == 2
    assert "Something went wrong" not in ran.err
    assert not [*ingest.folder.iterdir()]


def test_where_commands_would_look_elsewhere_the_way_is_shown(ingest: Shell, s3: S3) -> None:
    ran = ingest("init", "other.toml", "--bucket", s3.bucket)
    assert f"`INGEST_CONFIG={ingest.folder}/other.toml ingest doctor`" in ran.err
    assert [path.name for path in ingest.folder.iterdir()] == ["other.toml"]


# --- on a terminal ---------------------------------------------------------------------------------------------------


class Terminal:
    """`ingest` run on a real one: what it asks is waited for, then answered."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.shown = ""
        self._ours, theirs = pty.openpty()
        environ = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "120", "NO_COLOR": "1"}
        # What runs in the background passes on that Ctrl-C is to be ignored.
        command = ["env", "--default-signal=INT", sys.executable, "-m", "ingest", *arguments]
        self.process = subprocess.Popen(command, cwd=folder, env=environ, stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)

    def answer(self, question: str, text: str) -> None:
        asked = len(self.shown)
        while not re.search(rf"{re.escape(question)}[^\n]*: $", self.shown[asked:]):
            assert self._read(), f"{question!r} was not asked: {self.shown}"
        os.write(self._ours, f"{text}\n".encode())

    def end(self) -> int:
        while self._read():
            pass
        os.close(self._ours)
        return self.process.wait(30)

    def _read(self) -> bool:
        try:
            came = os.read(self._ours, 4096)
        except OSError:  # it has ended
            came = b""
        self.shown += came.decode().replace("\r", "")
        return bool(came)


def test_on_a_terminal_it_asks_and_asks_again(tmp_path: Path, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3")
    s3.put("landing/web/1.json", WOOPRA)
    terminal = Terminal(tmp_path, "init")
    terminal.answer("Where files are dropped", "gs://acme/web/")
    terminal.answer("Where files are dropped", f"s3://{s3.bucket}/landing/web")
    terminal.answer("What the source is called [web]", "one_off")
    terminal.answer("What the source is called [web]", "")
    terminal.answer("The address of the store", s3.endpoint)
    terminal.answer("[woopra]", "")
    assert terminal.end() == 0, terminal.shown
    assert "gs://acme/web/ is neither a path nor an s3:// URI" in terminal.shown
    assert "It has to be made of small letters" in terminal.shown
    assert toml(tmp_path) == [
        {"name": "web", "bucket": s3.bucket, "prefix": "landing/web/", "format": "woopra", "endpoint_url": s3.endpoint}
    ]


def test_on_a_terminal_a_store_that_does_not_answer_ends_the_questions(tmp_path: Path, s3: S3) -> None:
    terminal = Terminal(tmp_path, "init")
    terminal.answer("Where files are dropped", "s3://no-such-bucket/web/")
    terminal.answer("What the source is called", "")
    assert terminal.end() == 2, terminal.shown
    assert "there is no such bucket" in terminal.shown
    assert toml(tmp_path)[0]["bucket"] == "no-such-bucket"


def test_who_cannot_write_there_is_not_asked_first(tmp_path: Path, s3: S3) -> None:
    terminal = Terminal(tmp_path, "init", "no/such/folder.toml")
    assert terminal.end() == 2
    assert "There is no folder" in terminal.shown
    assert "dropped" not in terminal.shown


def test_ctrl_c_leaves_nothing(tmp_path: Path, s3: S3) -> None:
    s3.put("landing/web/1.json", WOOPRA)
    terminal = Terminal(tmp_path, "init")
    terminal.answer("Where files are dropped", f"s3://{s3.bucket}/landing/web/")
    terminal.answer("What the source is called", "")
    while "What they hold" not in terminal.shown:
        assert terminal._read()
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.end() == 130
    assert not [*tmp_path.iterdir()]


# --- completion ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_can_complete_commands(shell: str, tmp_path: Path) -> None:
    program = tmp_path / "ingest"
    program.write_text(f"#!{sys.executable}\nfrom ingest.__main__ import main\nmain()\n", encoding="utf-8")
    program.chmod(0o755)
    environ = os.environ | {"PYTHONPATH": str(ROOT)}

    def run(complete: str, **more: str) -> str:
        ran = subprocess.run(
            [program], env=environ | {"_INGEST_COMPLETE": complete} | more, capture_output=True, text=True, check=False
        )
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    script = run(f"{shell}_source")
    assert f"_INGEST_COMPLETE={shell}_complete" in script
    assert f"_INGEST_COMPLETE={shell}_source ingest" in (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    told = run(f"{shell}_complete", COMP_WORDS="ingest do", COMP_CWORD="do" if shell == "fish" else "1")
    assert "doctor" in told
