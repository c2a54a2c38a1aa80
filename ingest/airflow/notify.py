"""Tells people by mail or webhook, through Airflow's connections: `notify = ["smtp:ops_mail", "slack:ops"]`.

In:      what a run did to its files, or what reconcile found.
Out:     at most one notice a run and recipient, of what that recipient was not told of before; `history` remembers it.
Decides: what is worth a notice, and its words: plain text, keys made visible, no lines and no values of producers.
Never:   fails a run. A notice that cannot be sent is a warning in the log, and is sent if the task is run again.

Airflow's hooks send it, so a connection holds what they read, and besides:
smtp          extra: `to`, an address or several; without `from_email` the login is the sender.
slack         an incoming webhook: its whole address as host or password, or the part that is secret as password.
http, https   extra: `endpoint`, what follows the host; `headers`, which may stand in the extra by themselves, too.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from smtplib import SMTPAuthenticationError
from typing import TYPE_CHECKING, Any, Final

from airflow.providers.smtp.hooks.smtp import SmtpHook
from airflow.sdk import Connection
from airflow.sdk.exceptions import AirflowException, AirflowNotFoundException
from airflow.sdk.log import mask_secret

from ingest.airflow import tables
from ingest.core.lifecycle import KEEPS_LINES
from ingest.core.source import SourceFile
from ingest.errors import ConfigError, IngestError, TransientError
from ingest.ports import Audit
from ingest.text import count, visible

if TYPE_CHECKING:
    from ingest.pipeline import Pipeline
    from ingest.reconcile import Difference

log = logging.getLogger(__name__)

TOLD_STATES: Final = ("rejected", "held", "retrying")
_SECONDS: Final = 20  # a server that does not answer must not hold up a run
_TEXT_AT_MOST: Final = 300  # characters of a sentence


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to be told."""

    source: str  # empty: of every source
    about: str  # a file_id, or what stands for it: told once to each recipient
    sentence: str
    kind: str = ""  # several things may be told of one file: each once


def tell_of_run(pipeline: "Pipeline", run_id: str, source: str | None, lost: Sequence[Mapping[str, str]] = ()) -> None:
    """Tell of the files of a run that need a look; `lost`: {file_id, source, file} of those whose task died.

    `source` tells apart the runs of scheduled DAGs that began in the same moment; None: a run that takes any.
    """
    try:
        where = {"run_id": run_id} | ({"source": source} if source else {})
        found = [row | {"failed": _to_fix(pipeline, row)} for row in pipeline.warehouse.files(where)]
        by_file = {row["file_id"]: row for row in reversed(found) if row["failed"] or row["state"] in TOLD_STATES}
        items = [Item(row["source"], file_id, _sentence(row)) for file_id, row in by_file.items()]
        died = [one for one in lost if one["file_id"] not in by_file]
        items += [Item(one["source"], one["file_id"], f"{one['file']}: not loaded, its task died.") for one in died]
        _tell(pipeline, items, run_id, lambda told: _run_notice(pipeline, told, by_file))
    except Exception:  # data that was loaded stays loaded, whatever happens here
        log.warning("A notice of this run could not be sent.", exc_info=True)


def tell_of_differences(pipeline: "Pipeline", differences: "Iterable[Difference]", run_id: str) -> None:
    """Tell of what reconcile found; what the run of a file has told of it already is not told again."""
    try:
        items = [_difference(one, run_id) for one in differences]
        _tell(pipeline, items, run_id, lambda told: (f"{count(len(told), 'thing')} to look at", []))
    except Exception:  # the run itself is red, and says it all
        log.warning("A notice of the differences could not be sent.", exc_info=True)


def _to_fix(pipeline: "Pipeline", row: Mapping[str, Any]) -> int:
    """How many lines of a file failed; 0 where none of them can be fixed there, or all are."""
    if not row["failed"] or row["state"] not in KEEPS_LINES:
        return 0
    with pipeline.warehouse.failed_lines(row["file_id"]) as lines:
        return int(row["failed"]) if any(line["redriven_by"] is None for line in lines) else 0


def _sentence(row: Mapping[str, Any]) -> str:
    file = f"{SourceFile.of_row(row).uri} ({row['file_id'][:8]})"
    failed = f"{count(row['failed'], 'line')} of {row['items']:,} failed" if row["failed"] else ""
    if row["state"] in TOLD_STATES:
        return f"{file}: {row['state']}. {row['error'] or failed}"
    return f"{file}: {row['state']}, {failed}."


def _difference(one: "Difference", run_id: str) -> Item:
    if one.what in TOLD_STATES:
        return Item(one.source, one.file_id or "", one.sentence)
    # What is of no file is told by each run that finds it; that nothing ever came, once.
    about = one.file_id or (one.source if one.what == "overdue" else f"{one.source} {run_id}")
    return Item(one.source, about, one.sentence, one.what)


def _run_notice(
    pipeline: "Pipeline", told: Sequence[Item], by_file: Mapping[str, Mapping[str, Any]]
) -> tuple[str, list[str]]:
    """The subject, and what stands below the files: why lines failed, and how to fix them."""
    rows = [by_file[item.about] for item in told if item.about in by_file]
    failed = [row for row in rows if row["failed"]]
    states = Counter(row["state"] for row in rows if row["state"] in TOLD_STATES)
    states["not loaded"] = len(told) - len(rows)
    parts = [f"{count(number, 'file')} {state}" for state, number in states.items() if number]
    if not failed:
        return ", ".join(parts), []
    lines = sum(row["failed"] for row in failed)
    subject = ", ".join([f"{count(lines, 'failed line')} in {count(len(failed), 'file')}", *parts])
    named = [{"file_id": r["file_id"], "file": SourceFile.of_row(r).uri, "format": r["format"]} for r in failed]
    why = [f"{row['code']}: {count(row['lines'], 'line')}. {row['remedy'] or ''}" for row in
           tables.failed_lines_by_code(pipeline, named)]  # fmt: skip
    fix = f"To see and fix them: ingest failures {failed[0]['file_id'][:8]} --lines"
    return subject, ["", *why, fix]


def _tell(
    pipeline: "Pipeline", items: Sequence[Item], run_id: str, notice: Callable[[Sequence[Item]], tuple[str, list[str]]]
) -> None:
    """One notice to each recipient of the items that are new to it."""
    recipients = {name: source.notify for name, source in pipeline.settings.sources.items()}
    everybody = list(dict.fromkeys(recipient for notify in recipients.values() for recipient in notify))
    recipients[""] = tuple(everybody)
    for recipient in everybody:
        told: list[Item] = []
        for kind in dict.fromkeys(item.kind for item in items):
            mine = [one for one in items if one.kind == kind and recipient in recipients.get(one.source, ())]
            told += _new(pipeline, mine, _note(recipient, kind, run_id))
        if not told:
            continue
        try:
            subject, below = notice(told)
            names = sorted({item.source for item in told} - {""})
            subject = f"Landfall: {f'{names[0]}: ' if len(names) == 1 else ''}{subject}"
            sentences = tables.named([_inert(item.sentence) for item in told])
            text = "\n".join([sentences, *map(_inert, below), "", f"Run: {visible(run_id)}"])
            send(recipient, subject, text)
            log.info("notified %s: %s", recipient, subject)
        except Exception as error:  # noqa: BLE001 - whatever it is, it may not fail the run
            for kind in dict.fromkeys(item.kind for item in told):
                ids = [item.about for item in told if item.kind == kind]
                pipeline.warehouse.not_notified(ids, _note(recipient, kind, run_id))
            log.warning("No notice was sent to %s: %s Clear this task to send it again.", recipient, _why(error))


def _new(pipeline: "Pipeline", items: Sequence[Item], note: Audit) -> list[Item]:
    # Written down before it is sent: a task that dies between the two sends nothing, instead of twice.
    new = set(pipeline.warehouse.notify_once([item.about for item in items], note)) if items else ()
    return [item for item in items if item.about in new]


def _note(recipient: str, kind: str, run_id: str) -> Audit:
    return Audit("ingest", f"{recipient} {kind}".strip(), run_id)


def _inert(text: str) -> str:
    """One line, in which a producer's key can neither begin another nor hide what follows it."""
    return tables.shorten(visible(" ".join(text.split())), _TEXT_AT_MOST)


def _why(error: Exception) -> str:
    match error:
        case IngestError():
            return str(error)
        case SMTPAuthenticationError():
            return "The mail server refused the login: see the connection's login and password."
        case OSError() | AirflowException():
            return f"Its server cannot be reached or refused the notice ({error})."
        case _:  # never the text: it may hold the address, which is a secret of a webhook
            return f"It failed with {type(error).__name__}: see the fields of the connection."


# --- ways to people --------------------------------------------------------------------------------------------------


def send(recipient: str, subject: str, text: str) -> None:
    """Send a notice to `type:connection`.

    Raises:
        ConfigError: the connection is missing, lacks something, or its server refused.
        OSError, TransientError, AirflowException: the server cannot be reached, or refused.
    """
    kind, _, name = recipient.partition(":")
    try:
        connection = Connection.get(name)
    except AirflowNotFoundException:
        raise ConfigError(f"notify: Airflow has no connection {name!r}. Add it, or correct ingest.toml.") from None
    if kind == "smtp":
        _mail(connection, subject, text)
    else:
        _post(kind, connection, subject, text)


class _ImpatientSmtpHook(SmtpHook):
    """Airflow's own would try a server that does not answer six times, for 30 s each."""

    smtp_retry_limit = 0
    timeout = _SECONDS

    @property
    def smtp_starttls(self) -> bool:  # Airflow's asks for it within TLS, too, where servers refuse it
        return not self.use_ssl and bool(super().smtp_starttls)


def _mail(connection: Any, subject: str, text: str) -> None:
    extra: Mapping[str, Any] = connection.extra_dejson
    sender = extra.get("from_email") or connection.login
    if not (connection.host and extra.get("to") and sender):
        needs = "needs a host, and in its extra `to` and `from_email`."
        raise ConfigError(f"notify: the connection {connection.conn_id!r} {needs}")
    with _ImpatientSmtpHook(smtp_conn_id=connection.conn_id) as hook:
        content = f'<pre style="white-space: pre-wrap">{escape(text)}</pre>'
        headers = {"Auto-Submitted": "auto-generated"}  # no out-of-office answers
        told = {"to": extra["to"], "subject": subject, "html_content": content, "from_email": sender}
        hook.send_email_smtp(**told, custom_headers=headers)


def _post(kind: str, connection: Any, subject: str, text: str) -> None:
    from airflow.providers.http.hooks.http import HttpHook  # here, since it takes half a second

    text = f"{subject}\n{text}"
    body: dict[str, object] = {"text": text}
    if kind == "slack":  # the signs that make links and call everybody
        body = {"text": escape(text, quote=False), "mrkdwn": False, "link_names": False, "unfurl_links": False}
    hook = HttpHook(http_conn_id=connection.conn_id)
    with hook.get_conn() as session:  # not `hook.run`: it logs addresses and what servers answer
        endpoint = session.headers.pop("endpoint", "")  # Airflow takes each extra for a header
        session.headers.update(session.headers.pop("headers", {}))
        complete = connection.schema or "://" in (connection.host or "")
        if not complete and (kind, connection.conn_type) != ("http", "http"):
            hook.base_url = hook.base_url.replace("http", "https", 1)  # Airflow's default would show the secret
        rest = (kind == "slack" and connection.password) or endpoint
        address = rest if "://" in rest else hook.url_from_endpoint(rest.lstrip("/"))
        mask_secret(address.partition("://")[2].partition("/")[2])  # urllib3 logs it where the level is DEBUG
        try:
            # One that moved must be corrected: followed, the POST would become a GET that looks as if it were sent.
            response = session.post(address, json=body, timeout=_SECONDS, allow_redirects=False, stream=True)
        except OSError as error:  # never the text, nor the chain: they hold the address
            why = type(error).__name__
            raise TransientError(f"Its server cannot be reached, or a field is wrong ({why}).") from None
        if response.status_code >= 300:
            raise ConfigError(f"Its server answered {response.status_code}: see the connection's address and password.")
