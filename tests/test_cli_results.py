"""What a command says of what it did, or would do: exit codes that a person chose, dry runs, summaries, questions."""

from pathlib import Path

import pytest

from tests.support import record
from tests.test_cli import BAD, GOOD, Shell, ingest

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
