"""Commands that judge and load nothing: `check`, `sources`."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from ingest.cli.base import (
    GIVEN,
    cli,
    exit_code,
    fail_on_option,
    format_option,
    json_option,
    no_sources,
    opened_pipeline,
    show_codes,
    show_failures,
    source_option,
)
from ingest.cli.output import progress, say, total, write_json, write_table
from ingest.core.source import LOCAL_BUCKET
from ingest.errors import IngestError
from ingest.text import count, visible
from ingest.unforeseen import said

if TYPE_CHECKING:
    from ingest.settings import Source


@cli.command()
@click.argument("path", type=GIVEN)
@format_option
@source_option
@fail_on_option
@json_option
def check(path: str, format: str | None, source: str | None, fail_on: str, as_json: bool) -> int:
    """Judge a file and load nothing.

    PATH: a file, s3://bucket/key, or - for standard input. Needs no warehouse.
    """
    from ingest.report import check_report

    with opened_pipeline(warehouse=False) as pipeline:
        files = pipeline.locate(path, source, format, notice=say, archived=False)
        if len(files) > 1:
            raise IngestError(f"{path} holds {count(len(files), 'file')}. Check them one at a time.")
        with progress("judging", files[0].size_bytes) as moved, pipeline.judged(files, progress=moved) as staging:
            if staging.files[0].outcome in ("retrying", "gone"):
                raise IngestError(staging.files[0].error)
            report = check_report(staging)
    if as_json:
        write_json(report)
    else:
        _show_check(path, report)
    return exit_code(fail_on, failed=bool(report["failed"]), rejected=bool(report["rejected"]))


def _show_check(path: str, report: dict[str, Any]) -> None:
    click.echo(f"{visible(path)}: {count(report['lines'], 'line')}: {total(report)}")
    if not report["lines"]:
        click.echo("The file is empty: a load would enter it in the ledger, and no row.")
    if report["first_time"]:
        click.echo(f"{count(report['persons'], 'person')}, {report['first_time']} to {report['last_time']}")
    if report["rejected"]:
        click.echo(visible(f"A load would reject the file: {report['rejected']}"))
    click.echo()
    if report["events"]:
        more = len(report["events"]) - 20
        title = f"Events, without {more:,} that are less frequent" if more > 0 else "Events"
        write_table(title, ("event", "records"), list(report["events"].items())[:20])
    show_codes(report["format"], "Accepted with a warning", report["warnings"].items())
    show_failures(report["format"], report["failures"])


@cli.command()
@click.argument("name", required=False, type=GIVEN)
@json_option
def sources(name: str | None, as_json: bool) -> int:
    """Try each source: access, which files match, how one does."""
    from ingest.report import file_summary

    found: list[dict[str, Any]] = []
    with opened_pipeline() as pipeline:
        if not pipeline.settings.sources:
            raise no_sources(pipeline.settings)
        for source in [pipeline.source(name)] if name else pipeline.settings.sources.values():
            rights: dict[str, Any] = {"list": False, "read": None}
            entry: dict[str, Any] = {
                "name": source.name, "bucket": source.bucket, "prefix": source.prefix, "format": source.format,
                "schedule": source.schedule, "reachable": False, "error": None, "rights": rights | _wanted(source),
                "judged": [],
            }  # fmt: skip
            found.append(entry)
            try:
                discovery = pipeline.discover(source.name)
                is_skipped = not pipeline.takes_what_is_there(source.name)
                entry |= {
                    "reachable": True, "matching": discovery.matching, "pending": len(discovery.pending),
                    "skipped_by_first_poll": len(discovery.pending) if is_skipped else 0,
                    "ignored": discovery.ignored, "ignored_names": discovery.ignored_names,
                    "problems": discovery.problems, "notices": [*discovery.notices, *_no_slash(source)],
                }  # fmt: skip
                entry["rights"]["list"] = True
                smallest = sorted(discovery.pending, key=lambda file: file.size_bytes)[:1]
                entry["judged"] = [file_summary(result) for result in pipeline.would_load(smallest)]
                for judged in entry["judged"]:
                    entry["rights"]["read"] = judged["state"] not in ("retrying", "gone")
            except Exception as error:  # noqa: BLE001 - one source that is out of order does not hold up the others
                entry["error"] = said(error)
    if as_json:
        write_json({"sources": found})
    else:
        for entry in found:
            _show_source(entry)
    unread = any(judged["state"] == "retrying" for entry in found for judged in entry.get("judged", ()))
    well = all(entry["reachable"] and not (entry["error"] or entry["problems"]) for entry in found)
    return 0 if well and not unread else 2


def _no_slash(source: "Source") -> Iterator[str]:
    """What a prefix takes that was meant as a folder."""
    if source.bucket != LOCAL_BUCKET and source.prefix and not source.prefix.endswith("/"):
        one = source.prefix
        yield f"The prefix {one} ends in no slash: {one}2/a.json is taken, too. Write {one}/ if a folder is meant."


def _wanted(source: "Source") -> dict[str, Any]:
    """What the source's settings need besides reading. Only writing and deleting would show whether it is there."""
    rights = (("write", "s3:PutObject", source.writes_below()), ("delete", "s3:DeleteObject", source.deletes_below()))
    is_local = source.bucket == LOCAL_BUCKET
    return {
        right: {
            "tried": False, "needs": f"to {right}" if is_local else action,
            "below": prefixes if is_local else [f"s3://{source.bucket}/{one}" for one in prefixes],
        }
        for right, action, prefixes in rights if prefixes
    }  # fmt: skip


def _show_source(entry: dict[str, Any]) -> None:
    is_local = entry["bucket"] == LOCAL_BUCKET
    address = entry["prefix"] if is_local else f"s3://{entry['bucket']}/{entry['prefix']}"
    click.echo(visible(f"{entry['name']}: {address} ({entry['format']}, {entry['schedule']})"))
    if not entry["reachable"]:
        click.echo(visible(f"  list: no. {entry['error']}") + "\n")
        return
    click.echo(f"  list: yes. {count(entry['matching'], 'file')}, of which {entry['pending']:,} pending")
    for sentence in (*entry["problems"], *entry["notices"], *filter(None, [entry["error"]])):
        click.echo(visible(f"  {sentence}"))
    if entry["skipped_by_first_poll"]:
        click.echo('  The first poll loads none of these and enters them as ignored: existing_files is "skip".')
    if entry["ignored"]:
        names = ", ".join(entry["ignored_names"][:3])
        click.echo(visible(f"  no rule takes {count(entry['ignored'], 'object')}, such as {names}"))
    if not entry["judged"]:
        click.echo("  read: not tried, since nothing is pending")
    for judged in entry["judged"]:
        if judged["state"] in ("retrying", "gone"):
            named = "" if judged["key"] in judged["error"] else f"{judged['key']}: "
            click.echo(visible(f"  read: no. {named}{judged['error']}"))
        else:
            click.echo(visible(f"  read: yes. {judged['key']}: {count(judged['lines'], 'line')}: {total(judged)}"))
        if judged["state"] == "rejected":
            click.echo(visible(f"  a load would reject it: {judged['error']}"))
    for name in ("write", "delete"):
        if wanted := entry["rights"].get(name):
            below = " and ".join(wanted["below"])
            needs = f"Needs {wanted['needs']} below {below}"
            click.echo(visible(f"  {name}: not tried, since nothing is written here. {needs}"))
    click.echo()
