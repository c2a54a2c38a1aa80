"""Notices, sent to a real mail server and a real webhook on this machine."""

import gzip
import json
import re
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from html import unescape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from structlog.testing import capture_logs

from ingest.errors import TransientError
from ingest.ports import Audit
from ingest.redrive import redrive
from tests.airflow.conftest import Job

ANN: dict[str, Any] = {"_p": "ann", "_t": 1_700_000_000, "_n": "Signed Up"}
WRONG = '{"_p": "secret-person", "_t": "secret-time"}'


@dataclass
class Mailbox:
    """What a mail server got. `refuses`: it answers every recipient with an error."""

    port: int = 0
    mails: list[EmailMessage] = field(default_factory=list)
    refuses: bool = False

    def receive(self, stream: Any, reply: Any) -> None:
        reply("220 here")
        while line := stream.readline().decode().strip():
            match line[:4].upper():
                case "DATA":
                    reply("354 go on")
                    body = b""
                    while (piece := stream.readline()) != b".\r\n":
                        body += piece.removeprefix(b".")
                    self.mails.append(message_from_bytes(body, policy=policy.default))
                    reply("250 kept")
                case "QUIT":
                    reply("221 bye")
                    return
                case "RCPT" if self.refuses:
                    reply("550 nobody here")
                case _:
                    reply("250 fine")

    @property
    def texts(self) -> list[str]:
        """What a person reads of each mail."""
        parts = [next(mail.iter_parts()).get_content() for mail in self.mails]
        return [unescape(re.sub("<[^>]*>", "", part)) for part in parts]


@pytest.fixture
def mailbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mailbox]:
    box = Mailbox()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            box.receive(self.rfile, lambda text: self.wfile.write(f"{text}\r\n".encode()))

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        box.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        connect(monkeypatch, "ops_mail", mail_connection(box.port))
        yield box
        server.shutdown()


@dataclass
class Hook:
    """What a webhook got."""

    url: str = ""
    status: int = 200
    posts: list[tuple[str, dict[str, str], dict[str, Any]]] = field(default_factory=list)  # path, headers, body


@pytest.fixture
def hook() -> Iterator[Hook]:
    made = Hook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            made.posts.append((self.path, dict(self.headers), body))
            self.send_response(made.status)
            if made.status == 302:
                self.send_header("Location", made.url)
            self.end_headers()

        def do_GET(self) -> None:  # what a redirect leads to: it looks as if all were well
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        made.url = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield made
        server.shutdown()


def mail_connection(port: int, **extra: Any) -> dict[str, Any]:
    told = {"to": ["ops@acme.example", "eve@acme.example"], "from_email": "landfall@acme.example"}
    plain = {"disable_ssl": True, "disable_tls": True}
    return {"conn_type": "smtp", "host": "127.0.0.1", "port": port, "extra": told | plain | extra}


def connect(monkeypatch: pytest.MonkeyPatch, name: str, connection: dict[str, Any]) -> None:
    monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}", json.dumps(connection))


def sentences(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(record.getMessage() for record in caplog.records if record.name == "ingest.airflow.notify")


def tell_again(job: Job, run_id: str) -> None:
    """What a cleared verdict does."""
    from ingest.airflow import notify

    job.ask(lambda pipeline: notify.tell_of_run(pipeline, run_id, "website"))


# --- runs ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_tells_once_of_all_its_files_that_need_a_look(job: Job, mailbox: Mailbox) -> None:
    job.configure(notify=["smtp:ops_mail"], max_failed_lines=1)
    job.put("1.json", ANN, WRONG)
    job.put("2.json", WRONG, WRONG, {**ANN, "_n": "Came"})
    job.s3.put("landing/3.json.gz", gzip.compress(b'{"_p": "x", "_t": 1700000000, "_n": "y"}\n' * 1000)[:-20])
    job.put("4.json", {**ANN, "_n": "Left"})

    ran = job.run()

    (mail,) = mailbox.mails
    (text,) = mailbox.texts
    assert mail["To"] == "ops@acme.example, eve@acme.example"
    assert mail["Subject"] == "Landfall: website: 3 failed lines in 2 files, 1 file rejected, 1 file retrying"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert f"s3://{job.s3.bucket}/landing/1.json (" in text
    assert "1 line of 2 failed" in text
    assert "rejected. 2 of 3 lines failed; max_failed_lines is 1." in text
    assert "landing/3.json.gz" in text
    assert "4.json" not in text
    assert "time_not_epoch_seconds: 3 lines. " in text
    assert "ingest failures " in text
    assert ran.run_id in text
    assert "secret" not in text

    tell_again(job, ran.run_id)
    job.put("5.json", {**ANN, "_n": "Paid"})
    job.run()
    assert len(mailbox.mails) == 1

    job.put("6.json", WRONG)
    job.run()
    assert ["6.json" in text for text in mailbox.texts] == [False, True]
    assert "1.json" not in mailbox.texts[1]


@pytest.mark.slow
def test_nobody_is_sent_to_a_file_that_has_no_open_line(job: Job, mailbox: Mailbox) -> None:
    """Failed lines of a copy are those of the file that is loaded, those of a changed object may be fixed already."""
    job.configure(notify=["smtp:ops_mail"])
    job.put("1.json", ANN, WRONG)
    job.put("2.json", ANN, WRONG)
    ran = job.run()
    assert (ran.returned["verdict"]["failed_lines"], ran.returned["verdict"]["states"]) == (
        1,
        {"loaded": 1, "duplicate": 1},
    )
    assert ("1.json" in mailbox.texts[0], "2.json" in mailbox.texts[0]) == (True, False)

    (row,) = [row for row in job.ledger() if row["state"] == "loaded"]
    fixed = b"2\t" + json.dumps(ANN | {"_n": "fixed"}).encode()
    job.ask(lambda pipeline: redrive(pipeline, row["file_id"], fixed, Audit("ann")))
    job.s3.put(
        "landing/1.json",
        gzip.compress(job.s3.client.get_object(Bucket=job.s3.bucket, Key="landing/1.json")["Body"].read()),
    )
    ran = job.run()
    assert (ran.returned["verdict"]["failed_lines"], ran.returned["verdict"]["states"]) == (0, {"loaded": 1})
    assert len(mailbox.mails) == 1


def test_nobody_is_told_where_nobody_asked(job: Job, mailbox: Mailbox) -> None:
    job.put("1.json", WRONG, ANN)

    assert job.run().state == "success"
    assert mailbox.mails == []


def test_a_file_whose_task_died_is_told_of(job: Job, mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch) -> None:
    from ingest.airflow import dags, steps

    def die(*_: Any, **__: Any) -> Any:
        raise OSError("the worker is gone")

    job.configure(notify=["smtp:ops_mail"])
    job.put("1.json", ANN)
    monkeypatch.setattr(steps, "load", die)
    monkeypatch.setitem(dags.COMMON["default_args"], "retries", 0)

    ran = job.run()

    assert "landing/1.json: not loaded, its task died." in mailbox.texts[0]
    assert mailbox.mails[0]["Subject"] == "Landfall: website: 1 file not loaded"
    assert "lost" not in ran.returned["verdict"]


@pytest.mark.slow
def test_many_files_are_one_notice_of_readable_length(job: Job, mailbox: Mailbox) -> None:
    job.configure(notify=["smtp:ops_mail"])
    for number in range(30):
        job.put(f"{number}.json", {**ANN, "_t": number}, {**ANN, "_n": f"{number}"})

    job.run()

    (text,) = mailbox.texts
    assert mailbox.mails[0]["Subject"] == "Landfall: website: 30 failed lines in 30 files"
    assert text.count("s3://") == 20
    assert "and 10 more: see the ledger" in text


def test_a_key_cannot_forge_a_line_or_a_header_or_a_link(job: Job, mailbox: Mailbox, hook: Hook) -> None:
    from ingest.airflow import notify

    connection = pytest.MonkeyPatch()
    connect(connection, "ops", {"conn_type": "slackwebhook", "host": hook.url, "password": "T0/B0/x"})
    evil = "a\r\nBcc: all@acme.example\r\n\r\n<!channel> <https://evil.example|Log in> \x1b[31m\u202e&.json"
    item = notify.Item("website", "1", f"{evil}: rejected.")
    job.configure(notify=["smtp:ops_mail", "slack:ops"])

    job.ask(lambda pipeline: notify._tell(pipeline, [item], "run", lambda _: ("1 file", [])))
    connection.undo()

    (mail,) = mailbox.mails
    assert mail["Bcc"] is None
    assert "&lt;https://evil.example|Log in&gt;" in next(mail.iter_parts()).get_content()
    assert mailbox.texts[0].splitlines()[0].endswith("\\x1b[31m\\u202e&.json: rejected.")
    ((path, _, body),) = hook.posts
    assert path == "/T0/B0/x"
    assert "&lt;!channel&gt; &lt;https://evil.example|Log in&gt;" in body["text"]
    assert "<" not in body["text"]
    assert (body["mrkdwn"], body["link_names"]) == (False, False)


# --- servers that fail -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_refused_notice_fails_no_run_and_is_sent_when_the_task_runs_again(
    job: Job, mailbox: Mailbox, caplog: pytest.LogCaptureFixture
) -> None:
    job.configure(notify=["smtp:ops_mail"])
    job.put("1.json", ANN, WRONG)
    mailbox.refuses = True

    ran = job.run()

    assert (ran.state, mailbox.mails) == ("success", [])
    mailbox.refuses = False
    tell_again(job, ran.run_id)
    assert "No notice was sent to smtp:ops_mail: " in sentences(caplog)
    tell_again(job, ran.run_id)
    assert len(mailbox.mails) == 1


@pytest.mark.slow
def test_one_recipient_that_fails_keeps_no_notice_from_another(
    job: Job, mailbox: Mailbox, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(monkeypatch, "ops", {"conn_type": "http", "host": hook.url})
    hook.status = 500
    job.configure(notify=["http:ops", "smtp:ops_mail"])
    job.put("1.json", ANN, WRONG)

    ran = job.run()
    hook.status = 200
    tell_again(job, ran.run_id)
    tell_again(job, ran.run_id)

    assert ran.state == "success"
    assert (len(mailbox.mails), len(hook.posts)) == (1, 2)


@pytest.mark.parametrize(
    ("recipient", "connection", "sentence"),
    [
        pytest.param("smtp:nobody", {}, "Airflow has no connection 'nobody'", id="no connection"),
        pytest.param("smtp:x", {"conn_type": "smtp", "host": "h"}, "`to` and `from_email`", id="mail to nobody"),
        pytest.param("smtp:x", mail_connection(1), "cannot be reached", id="no mail server"),
        pytest.param("https:x", {"conn_type": "https", "host": "file:///etc/passwd"}, "(InvalidSchema)", id="a file"),
        pytest.param("slack:x", {"conn_type": "http", "host": "http://127.0.0.1:1"}, "cannot be", id="no webhook"),
    ],
)
def test_what_is_wrong_with_a_recipient_is_one_sentence(
    job: Job,
    recipient: str,
    connection: dict[str, Any],
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    from ingest.airflow import notify

    connect(monkeypatch, "x", connection or {"conn_type": "http"})
    job.configure(notify=[recipient])

    with caplog.at_level("INFO"):
        item = notify.Item("website", "1", "a")
        job.ask(lambda pipeline: notify._tell(pipeline, [item], "run", lambda _: ("1 file", [])))

    told = sentences(caplog)
    assert sentence in told
    assert "\n" not in told


@pytest.mark.parametrize("level", ["INFO", "DEBUG"])
def test_a_secret_address_is_not_told(
    job: Job, hook: Hook, level: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from airflow.sdk.log import redact

    from ingest.airflow import notify

    job.configure(notify=["slack:ops"])
    places = [
        (200, {"host": hook.url, "password": "T0/hush"}),
        (404, {"host": hook.url, "password": "T0/hush"}),
        (302, {"host": f"{hook.url}/T1/hush"}),
        (None, {"host": "http://127.0.0.1:1/T2/hush"}),
        (None, {"password": "file:///T3/hush"}),
    ]
    with caplog.at_level(level), capture_logs() as of_hooks:
        for status, place in places:
            hook.status = status or 200
            connect(monkeypatch, "ops", {"conn_type": "slackwebhook", **place})
            item = notify.Item("website", "1", "a")
            job.ask(lambda pipeline, item=item: notify._tell(pipeline, [item], "run", lambda _: ("1 file", [])))  # type: ignore[misc]
            if status == 200:
                job.ask(lambda pipeline: pipeline.warehouse.not_notified(["1"], notify._note("slack:ops", "", "run")))

    said = f"{caplog.text}{of_hooks}"
    assert sentences(caplog).count("No notice was sent") == 4
    # What a library says of its own at DEBUG is masked by Airflow, which has to know the secret.
    assert ("hush" in said) == (level == "DEBUG")
    assert "hush" not in redact(said)
    assert len(hook.posts) == 3


@pytest.mark.parametrize("recipient", ["smtp:ops", "http:ops"])
def test_a_server_that_does_not_answer_is_asked_once(
    recipient: str, airflow_db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.providers.http.hooks import http  # noqa: F401 - it takes its time

    from ingest.airflow import notify

    monkeypatch.setattr(notify, "_SECONDS", 1)
    monkeypatch.setattr(notify._ImpatientSmtpHook, "timeout", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        connection = mail_connection(silent.getsockname()[1], timeout=30)
        if recipient == "http:ops":
            connection |= {"conn_type": "http", "extra": {"timeout": 30}}
        connect(monkeypatch, "ops", connection)
        began = time.monotonic()
        with pytest.raises(Exception, match=r"ReadTimeout|Unable to connect"):
            notify.send(recipient, "Subject", "body")

    assert 0.9 < time.monotonic() - began < 3


@pytest.mark.parametrize(
    ("kind", "conn_type"), [("slack", "http"), ("slack", "slackwebhook"), ("https", "http"), ("http", "https")]
)
def test_no_secret_goes_out_in_the_clear_unless_the_connection_says_so(
    kind: str, conn_type: str, hook: Hook, airflow_db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ingest.airflow import notify

    _, host, port = hook.url.replace("//", "").split(":")
    plain = {"conn_type": conn_type, "host": host, "port": int(port), "password": "T0/B0/x"}
    connect(monkeypatch, "ops", plain)
    with pytest.raises(TransientError, match="SSLError"):
        notify.send(f"{kind}:ops", "Subject", "body")

    connect(monkeypatch, "ops", plain | {"schema": "http"})
    notify.send(f"{kind}:ops", "Subject", "body")
    assert len(hook.posts) == 1


@pytest.mark.parametrize(
    ("extra", "encryption"),
    [
        pytest.param({}, (True, False), id="TLS from the beginning"),
        pytest.param({"disable_ssl": True}, (False, True), id="STARTTLS"),
        pytest.param({"disable_ssl": True, "disable_tls": True}, (False, False), id="none"),
    ],
)
def test_mail_is_encrypted_once(extra: dict[str, Any], encryption: tuple[bool, bool]) -> None:
    from airflow.sdk import Connection

    from ingest.airflow.notify import _ImpatientSmtpHook

    hook = _ImpatientSmtpHook()
    hook.smtp_connection = Connection(conn_id="ops", conn_type="smtp", extra=json.dumps(extra))
    assert (hook.use_ssl, hook.smtp_starttls) == encryption


@pytest.mark.parametrize(
    ("kind", "connection", "path"),
    [
        pytest.param("http", {"conn_type": "http", "host": "{host}", "port": "{port}"}, "/", id="host and port"),
        pytest.param("http", {"conn_type": "http", "host": "{url}/a/b"}, "/a/b", id="an address"),
        pytest.param("https", {"conn_type": "http", "host": "{url}", "extra": {"endpoint": "/x"}}, "/x", id="endpoint"),
        pytest.param("http", "http://ann:pw@{host}:{port}/?endpoint=a%2Fx", "/a/x", id="a URI with a login"),
        pytest.param("slack", {"conn_type": "slackwebhook", "password": "{url}/s"}, "/s", id="all of it a secret"),
        pytest.param("slack", {"conn_type": "http", "host": "{url}/s/", "password": "/T0/x"}, "/s/T0/x", id="its end"),
    ],
)
def test_addresses_of_webhooks(hook: Hook, kind: str, connection: Any, path: str, airflow_db: None) -> None:
    from ingest.airflow import notify

    _, host, port = hook.url.replace("//", "").split(":")
    text = json.dumps(connection) if isinstance(connection, dict) else connection
    for name, value in {"{host}": host, '"{port}"': port, "{port}": port, "{url}": hook.url}.items():
        text = text.replace(name, value)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_OPS", text)
        notify.send(f"{kind}:ops", "Subject", "body")

    ((found, headers, body),) = hook.posts
    assert (found or "/", body["text"]) == (path, "Subject\nbody")
    assert headers["Content-Type"] == "application/json"
    assert headers.get("Authorization") == ("Basic YW5uOnB3" if "ann" in text else None)


# --- reconcile -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_source_that_is_overdue_is_one_notice_and_a_red_run(job: Job, mailbox: Mailbox) -> None:
    job.configure(notify=["smtp:ops_mail"], expect_every="24h")

    assert job.run("ingest_reconcile").state == "failed"
    assert job.run("ingest_reconcile").state == "failed"

    (text,) = mailbox.texts
    assert "website: overdue. No file has come yet; one is expected every 24 h." in text
    assert mailbox.mails[0]["Subject"] == "Landfall: website: 1 thing to look at"

    job.put("1.json", ANN)
    job.run()
    assert job.run("ingest_reconcile").state == "success"


@pytest.mark.slow
def test_reconcile_does_not_repeat_what_a_run_has_told(job: Job, mailbox: Mailbox) -> None:
    job.configure(notify=["smtp:ops_mail"], max_failed_lines=0)
    job.put("1.json", WRONG)
    job.run()
    assert len(mailbox.mails) == 1

    ran = job.run("ingest_reconcile")

    assert (ran.state, len(mailbox.mails)) == ("failed", 1)
    assert "rejected" in ran.returned["reconcile"]["differences"][0]
