"""The pages that are made from the program, so that they cannot say anything else: `python docs/generate.py`.

`docs/errors.md` comes from the schemas, `docs/reference/` from the settings and the command line, the picture of
`docs/performance.md` from its first table. A test holds each against what this makes.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path

import click

from ingest.cli import cli
from ingest.core.formats import FORMATS
from ingest.core.schema import Meaning, codes, load
from ingest.settings import (
    FIELDS,
    INTAKE_SETTINGS,
    SOURCE_SETTINGS,
    TOP_SETTINGS,
    UPLOADS_SETTINGS,
    VARIABLES,
    Allowed,
    Settings,
    Source,
)

_HERE = Path(__file__).parent
_MADE = "<!-- Made by docs/generate.py from the program: change that. -->\n"
_COLUMNS = 100


def pages() -> dict[Path, str]:
    """Every page by its place, as it has to be now."""
    return {
        _HERE / "errors.md": "\n".join(_errors()),
        _HERE / "reference" / "settings.md": "\n".join(_settings()),
        _HERE / "reference" / "commands.md": "\n".join(_commands()),
        _HERE / "pictures" / "performance.svg": "\n".join(
            _bars((_HERE / "performance.md").read_text(encoding="utf-8"))
        ),
    }


def _bars(page: str) -> Iterator[str]:
    """The CPU seconds of the first table of a page, side by side, in colours that light and dark pages show."""
    table = page[page.index("| --- |") :].partition("\n\n")[0]
    rows = re.findall(r"^\| ([^|]+) \| ([0-9.]+) \|", table, re.MULTILINE)
    most = max(float(seconds) for _, seconds in rows)
    size = f'viewBox="0 0 760 {24 * len(rows) + 8}" font-family="sans-serif" font-size="13"'
    yield f'<svg xmlns="http://www.w3.org/2000/svg" {size}>'
    for number, (what, seconds) in enumerate(rows):
        top, wide = 24 * number + 4, 380 * float(seconds) / most
        yield f'<text x="270" y="{top + 15}" text-anchor="end" fill="#808080">{what}</text>'
        yield f'<rect x="280" y="{top}" width="{wide:.0f}" height="20" fill="{"#e8a33d" if number else "#4a90d9"}"/>'
        yield f'<text x="{286 + wide:.0f}" y="{top + 15}" fill="#808080">{seconds} CPU s</text>'
    yield "</svg>\n"


def _errors() -> Iterator[str]:
    warnings = {code for format in FORMATS for code in load(format)["x-warnings"]}
    known = sorted({code for format in FORMATS for code in codes(format)})
    yield f"# What can be wrong with a line\n\n{_MADE}"
    yield (
        "Each code: what is wrong, and what to do. A line gets a code for each rule that it breaks. The rules are JSON"
        " Schemas in `schemas/`: validate with them where you write, and nothing fails here.\n"
    )
    yield "## Failures\n\nThe line is not loaded. It is kept until somebody fixes it and sends it again.\n"
    for code in known:
        if code not in warnings:
            yield from _code(code)
    yield "## Warnings\n\nThe line is loaded, and the warning is counted. `strict = true` makes each a failure.\n"
    for code in known:
        if code in warnings:
            yield from _code(code)


def _code(code: str) -> Iterator[str]:
    """A code, with its meaning in each format; formats that mean the same stand together."""
    meanings: dict[Meaning, list[str]] = {}
    for format in FORMATS:
        if code in codes(format):
            meanings.setdefault(codes(format)[code], []).append(format)
    yield f"### {code}\n"
    for (problem, remedy), formats in meanings.items():
        who = "" if len(formats) == len(FORMATS) else f"{', '.join(formats)}: "
        yield f"- {who}{problem} **{remedy}**"
    yield ""


def _settings() -> Iterator[str]:
    yield f"# Settings\n\n{_MADE}"
    yield (
        "They are read from `ingest.toml` and the environment. Every wrong or unknown one is named when a command"
        " starts, all at once. Durations are seconds, or texts such as `30m`, `24h`, `7d`.\n"
    )
    defaults = {field.name: field.default for field in fields(Source)}
    yield "## A source\n\nA `[[source]]` table each. Only `name` and `bucket` have to be there.\n"
    yield from _table(SOURCE_SETTINGS, defaults)
    defaults = {field.name: field.default for field in fields(Settings)}
    ours = {name: allowed for name, allowed in TOP_SETTINGS.items() if allowed.about}
    yield "## All sources\n\nAt the top of the file, before the first table.\n"
    yield from _table(ours, {name: defaults[FIELDS.get(name, name)] for name in ours})
    for name, table, title in (("uploads", UPLOADS_SETTINGS, "Uploads"), ("intake", INTAKE_SETTINGS, "HTTP intake")):
        yield f"## {title}\n\nIn the table `[{name}]`.\n"
        yield from _table(table, {each: defaults[f"{name}_{each}"] for each in table})
    yield "## The environment\n\nWhat is set in the environment wins over the file.\n"
    yield from _table({name: VARIABLES[name] for name in ("INGEST_CONFIG", "INGEST_WAREHOUSE")}, {})
    others = ", ".join(f"`{name}`" for name in VARIABLES if name not in ("INGEST_CONFIG", "INGEST_WAREHOUSE"))
    yield f"The settings of all sources as well: {others}.\n"
    yield "Access to S3 is set as boto3 has it: `AWS_PROFILE`, `AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL_S3`, a role.\n"


def _table(settings: Mapping[str, Allowed], defaults: Mapping[str, object]) -> Iterator[str]:
    yield "| setting | default | what it does | it is |"
    yield "| --- | --- | --- | --- |"
    for name, allowed in settings.items():
        is_a = "" if allowed.words == "anything" else allowed.words
        default = allowed.default or _shown(defaults.get(name))
        yield f"| `{name}` | {default} | {allowed.about} | {is_a} |".replace("  |", " |")
    yield ""


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, (int, float)):
        return f"{value:,.0f}"
    return f"`{value}`" if isinstance(value, str) else ""


def _commands() -> Iterator[str]:
    yield f"# Commands\n\n{_MADE}"
    yield (
        "What `ingest COMMAND -h` says. How a command ends (exit codes) is in"
        " [operations](../operations.md#how-a-command-ends).\n"
    )
    group = click.Context(cli, info_name="ingest", **cli.context_settings)
    for name, command in sorted(cli.commands.items()):
        context = click.Context(command, group, name, terminal_width=_COLUMNS)
        yield f"## ingest {name}\n\n```text\n{command.get_help(context)}\n```\n"


if __name__ == "__main__":
    for place, text in pages().items():
        place.parent.mkdir(exist_ok=True)
        place.write_text(text, encoding="utf-8")
