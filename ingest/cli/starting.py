"""Commands to start with: `init` writes a first source and tries it, `doctor` checks that everything is right."""

import os
import shlex
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from shutil import get_terminal_size
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import click

from ingest.cli.base import GIVEN, cli, json_option, show_failures
from ingest.cli.output import say, shortened, write_json, write_table
from ingest.core.formats import FORMATS
from ingest.core.source import LOCAL_BUCKET
from ingest.errors import ConfigError
from ingest.text import count, visible

if TYPE_CHECKING:
    from ingest.doctor import Check
    from ingest.starting import Trial

_MARKS = {"ok": ("ok", "green"), "warning": ("! ", "yellow"), "problem": ("!!", "red"), "skipped": ("- ", None)}


@cli.command()
@click.argument("file", required=False, type=GIVEN)
@click.option("--bucket", type=GIVEN, help="Where files are dropped: a bucket, s3://bucket/prefix/, or a folder.")
@click.option("--prefix", type=GIVEN, help="Only what lies below it is taken.")
@click.option("--name", type=GIVEN, help="The name of the source; default: that of its folder.")
@click.option("--pattern", type=GIVEN, help="Which names are taken; default: *.json and *.json.gz.")
@click.option(
    "--format", type=click.Choice(FORMATS), help="The format of the files; default: what the first file looks like."
)
@click.option("--schedule", type=GIVEN, help="When Airflow polls; default: @hourly.")
@click.option("--endpoint-url", type=GIVEN, help="The address of a store that is not AWS.")
@click.option("--profile", type=GIVEN, help="The AWS profile of this source.")
@click.option("--requester-pays", is_flag=True, help="You agree to pay for reading.")
@click.option("--add", is_flag=True, help="Add the source to the file that is there.")
@json_option
def init(file: str | None, as_json: bool, add: bool, **given: Any) -> int:
    """Write a first ingest.toml, and try it.

    FILE: default is what INGEST_CONFIG names, else ingest.toml here. On a terminal it asks for what it needs, unless
    --bucket is given. It shows what lies there, and how the first lines are judged. Nothing is loaded.
    """
    from ingest.settings import CONFIG_NAME
    from ingest.starting import former_content, judge, look, put, settings_of, source_text
    from ingest.wiring import open_pipeline

    path = Path(file or os.environ.get("INGEST_CONFIG") or CONFIG_NAME).absolute()
    former = former_content(path, add=add)
    is_asked = given["bucket"] is None and sys.stdin.isatty()
    values = _values(_asked(given) if is_asked else given)

    def content() -> bytes:
        return former + b"\n" * bool(former) + source_text(values, is_first=not former).encode()

    settings = settings_of(content())
    source = settings.sources[values["name"]]
    with open_pipeline(settings) as pipeline:
        trial = look(pipeline, source)
        if not as_json:
            _show_landing(values, trial)
        format = given["format"] or trial.guessed
        if is_asked and not given["format"] and not trial.error:
            usual = format or source.format
            format = click.prompt("What they hold", type=click.Choice(FORMATS), default=usual, err=True)
        judge(pipeline, trial, format or source.format)
    if format:
        values = _in_order(values | {"format": format})
    put(path, content(), instead=add and path.exists())
    if as_json:
        write_json(_document(path, values, trial))
    else:
        _show_lines(trial)
    done = f"{path} {'has one source more' if former else 'is written'}"
    if trial.error:
        say(f"ingest: {done}, and could not be tried. {trial.error}")
        say(f"Correct that: a setting in the file, or keys and access. {_command(path, 'doctor')} tries it again.")
        return 2
    say(f"{done}. Next: {_command(path, 'doctor')}, then {_command(path, 'poll')}.")
    return 0


def _asked(given: Mapping[str, Any]) -> dict[str, Any]:
    from ingest.starting import name_for, place_of

    def place(text: str) -> tuple[str, str]:
        try:
            bucket, prefix = place_of(text.strip(), given["prefix"])
            return _read("bucket", bucket), prefix
        except ConfigError as error:
            raise click.UsageError(str(error)) from error

    what = "Where files are dropped (s3://bucket/prefix/, or a folder)"
    bucket, prefix = click.prompt(what, value_proc=place, err=True)
    name = given["name"] or click.prompt(
        "What the source is called", default=name_for(bucket, prefix), value_proc=lambda text: _read("name", text),
        err=True,
    )  # fmt: skip
    endpoint = given["endpoint_url"]
    if not (endpoint or bucket == LOCAL_BUCKET or {"AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"} & os.environ.keys()):
        endpoint = click.prompt(
            "The address of the store (Enter: AWS, or boto3's own settings)", default="", show_default=False,
            value_proc=lambda text: _read("endpoint_url", text), err=True,
        )  # fmt: skip
    return {**given, "bucket": bucket, "prefix": prefix, "name": name, "endpoint_url": endpoint}


def _read(setting: str, text: str) -> Any:
    """A value that a person typed; a wrong one is asked for again."""
    from ingest.settings import SOURCE_SETTINGS

    try:
        return SOURCE_SETTINGS[setting].read(text.strip())
    except ValueError as error:
        raise click.UsageError(f"It has to be {SOURCE_SETTINGS[setting].words}.") from error


def _values(given: Mapping[str, Any]) -> dict[str, Any]:
    from ingest.starting import name_for, place_of, with_slash

    if given["bucket"] is None:
        raise ConfigError(
            "Say where files are dropped: `ingest init --bucket s3://bucket/prefix/`, and --name, --format,"
            " --schedule, --endpoint-url or --profile if need be. On a terminal `ingest init` asks."
        )
    bucket, prefix = place_of(given["bucket"], given["prefix"])
    if prefix != with_slash(prefix) and bucket != LOCAL_BUCKET:
        say(f"The prefix {prefix} has no / at its end: {with_slash(prefix)} is taken.")
    prefix = with_slash(prefix)
    schedule = given["schedule"]
    return _in_order({
        **given, "name": given["name"] or name_for(bucket, prefix), "bucket": bucket, "prefix": prefix,
        "schedule": int(schedule) if schedule and schedule.isdecimal() else schedule,
    })  # fmt: skip


def _in_order(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that there are, as they are documented one after the other."""
    from ingest.settings import SOURCE_SETTINGS

    return {name: values[name] for name in SOURCE_SETTINGS if values.get(name)}


def _document(path: Path, values: Mapping[str, Any], trial: "Trial") -> dict[str, Any]:
    from ingest.report import plain

    selection, lines = trial.selection, trial.lines
    return {
        "file": str(path), "source": values, "reachable": trial.is_listed, "error": trial.error,
        "matching": selection.taken, "ignored": selection.ignored, "ignored_names": selection.ignored_names,
        "is_all": trial.is_listed and not trial.is_cut,
        "guessed_format": trial.guessed, "judged": trial.first and trial.first.uri,
        "refusal": lines and lines.refusal and lines.refusal._asdict(),
        "lines": [
            {
                "line": line.number, "item": seen.path, "failures": seen.failures,
                "commands": [
                    plain(row | {"properties": row["properties"].decode()}, {"properties"}) for row in seen.rows
                ],
            }
            for line in (lines.lines if lines else ())
            for seen in line.items
        ],
    }  # fmt: skip


def _show_landing(values: Mapping[str, Any], trial: "Trial") -> None:
    if not trial.is_listed:
        return
    prefix, selection = values.get("prefix", ""), trial.selection
    place = prefix if values["bucket"] == LOCAL_BUCKET else f"s3://{values['bucket']}/{prefix}"
    click.echo(visible(f"{place}: {'more than ' * trial.is_cut}{count(selection.taken, 'file')}"))
    if selection.ignored:
        names = ", ".join(selection.ignored_names[:3])
        click.echo(visible(f"No rule takes {count(selection.ignored, 'object')}, such as {names}"))
    if trial.first and trial.guessed:
        click.echo(visible(f"{trial.first.uri.removeprefix(place)} looks like {trial.guessed}"))


def _show_lines(trial: "Trial") -> None:
    lines = trial.lines
    if not lines:
        return
    click.echo()
    if lines.refusal:
        click.echo(visible(f"A load would reject the file, {lines.refusal.code}: {lines.refusal.message}"))
        return
    judged = [(line, seen) for line in lines.lines for seen in line.items]
    rows = [_command_row(f"{line.number}{seen.path}", row) for line, seen in judged for row in seen.rows]
    write_table(f"Its first lines, as {trial.format}", ("line", "becomes", "at", "person", "what"), rows)
    failed = [
        {
            "line": line.number, "item": seen.path, "raw": line.raw.decode(errors="replace"),
            "codes": [failure["code"] for failure in seen.failures], "failures": seen.failures,
        }
        for line, seen in judged if seen.failures
    ]  # fmt: skip
    show_failures(trial.format, failed)


def _command_row(place: str, row: Mapping[str, Any]) -> tuple[object, ...]:
    detail = {"record": row["event"], "alias": row["alias"]}.get(row["kind"]) or row["properties"].decode()
    at = f"{row['occurred_at']:%Y-%m-%d %H:%M:%S}"
    return place, row["kind"], at, shortened(row["person"], 40), shortened(detail, 40)


def _command(path: Path, name: str) -> str:
    """A command to run now, with the variable that leads it to the file where it would look elsewhere."""
    from ingest.settings import CONFIG_NAME

    usual = Path(os.environ.get("INGEST_CONFIG") or CONFIG_NAME).absolute()
    return f"`{'' if path == usual else f'INGEST_CONFIG={shlex.quote(str(path))} '}ingest {name}`"


@cli.command()
@json_option
def doctor(as_json: bool) -> int:
    """Check that everything is right, and say what to do.

    Settings, credentials, rights, clock, disk, warehouse, Airflow: each is tried, and nothing is changed. Exit code 1
    if there is a problem; warnings do not count.
    """
    from ingest.doctor import examine

    checks = examine(os.environ)
    if as_json:
        write_json({"checks": [asdict(check) for check in checks]})
    else:
        _show_checks(checks)
    return int(any(check.state == "problem" for check in checks))


def _show_checks(checks: Sequence["Check"]) -> None:
    """A line each; on a terminal in colour, and folded below the message."""
    wide = max(len(check.name) for check in checks) + 2
    columns = get_terminal_size().columns if sys.stdout.isatty() else 0
    for check in checks:
        mark, colour = _MARKS[check.state]
        told = visible(f"{check.message}: {check.remedy}" if check.remedy else check.message)
        folded = wrap(told, max(columns - wide - 5, 30), break_on_hyphens=False) if columns else [told]
        click.echo(f"{click.style(mark, fg=colour)}  {visible(check.name):{wide}}{folded[0]}")
        for line in folded[1:]:
            click.echo(f"{'':{wide + 4}}{line}")
    states = Counter(check.state for check in checks)
    found = [count(states[state], state) for state in ("problem", "warning") if states[state]]
    click.echo(f"\n{', '.join(found)}." if found else "\nAll is well.")
