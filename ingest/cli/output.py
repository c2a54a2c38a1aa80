"""What a terminal shows: JSON on stdout, tables for people, progress and sentences on stderr."""

import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from shutil import get_terminal_size
from tempfile import SpooledTemporaryFile
from typing import IO, TYPE_CHECKING, Any, Protocol, TypeVar

import click
import orjson

from ingest.core.source import LOCAL_BUCKET
from ingest.text import count, inert, visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, ProgressColumn

    from ingest.core.schema import Meaning

Row = Sequence[object]
T = TypeVar("T")
MOST_ROWS = 50  # a row each; of more files a summary is shown
_PADDED_AT_MOST = 200  # columns, in a pipe or a file: a value may be a megabyte, and its neighbours are not
_RULE_AT_MOST = 100  # columns, in a pipe or a file
_FOLDED_LEAST = 24  # columns that are left for what is folded
_SHOWN_IN_PIPES = 1_000  # characters of a failed line, in a pipe or a file
_SAID = 20
_HELD_BYTES = 1 << 20
_MANY_FILES = 50  # they take long to load, however small
_COUNTED_FROM = 1_000  # objects: as many as one request lists


def say(sentence: str) -> None:
    """One sentence on standard error; never part of the output."""
    click.echo(visible(sentence), err=True)


def say_some(sentences: Sequence[str]) -> None:
    """The first ones, each of a file, and how many more there are."""
    for sentence in sentences[:_SAID]:
        say(sentence)
    if more := len(sentences[_SAID:]):
        say(f"… and {more:,} more (--json has all of them)")


class InertFormatter(logging.Formatter):
    """Lines of a log, which may hold what a producer wrote or a client asked for."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(map(visible, super().format(record).split("\n")))


def write_json(document: object) -> None:
    write_bytes(_json(document) + b"\n")
    sys.stdout.buffer.flush()


def json_rows(rows: Iterable[object], head: Mapping[str, object] | None = None, name: str = "") -> IO[bytes]:
    """The same of an array, for `write_waiting`: on disk until all is there, so that nobody gets half a document.

    With a `head` the array is its last member, called `name`.
    """
    waiting = SpooledTemporaryFile(_HELD_BYTES)  # noqa: SIM115 - for whoever writes it
    if head is not None:
        waiting.write(_json(dict(head)).removesuffix(b"\n}") + b',\n  "%b": ' % name.encode())
    ends = b"[]"
    for row in rows:
        waiting.write((b"[\n  " if ends == b"[]" else b",\n  ") + _json(row).replace(b"\n", b"\n  "))
        ends = b"\n]"
    waiting.write(ends + b"\n}" * (head is not None) + b"\n")
    waiting.seek(0)
    return waiting


def csv_rows(names: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> IO[bytes]:
    """Rows as RFC 4180 has them, for `write_waiting`: the names first; NULL is nothing, an empty text is two quotes."""
    waiting = SpooledTemporaryFile(_HELD_BYTES)  # noqa: SIM115 - for whoever writes it
    for cells in chain([names], (row.values() for row in rows)):
        waiting.write((",".join(map(_csv_cell, cells)) + "\r\n").encode(errors="backslashreplace"))
    waiting.seek(0)
    return waiting


def _csv_cell(cell: object) -> str:
    if cell is None:
        return ""
    text = cell if isinstance(cell, str) else str(cell) if isinstance(cell, float) else orjson.dumps(cell).decode()
    return '"' + text.replace('"', '""') + '"' if not text or any(sign in text for sign in '",\r\n') else text


def write_waiting(waiting: IO[bytes]) -> None:
    """What `json_rows` or `csv_rows` gave, however slowly it is taken."""
    with waiting:
        for line in waiting:
            write_bytes(line)
    sys.stdout.buffer.flush()


def write_bytes(json: bytes) -> None:
    """A line of JSON text, or what was sent for it: exactly, but to a terminal, which must obey nothing in it."""
    text = inert(json.decode(errors="backslashreplace")).encode() if sys.stdout.isatty() else json
    sys.stdout.buffer.write(text)


def _json(document: object) -> bytes:
    try:
        return orjson.dumps(document, option=orjson.OPT_INDENT_2)
    except TypeError:
        return orjson.dumps(_as_text(document), option=orjson.OPT_INDENT_2)


def _as_text(value: Any) -> Any:
    """A name that is not UTF-8, as the shell gives it, is no text: such bytes are written as escapes."""
    match value:
        case str():
            return value.encode(errors="backslashreplace").decode()
        case dict():
            return {_as_text(name): _as_text(one) for name, one in value.items()}
        case list() | tuple():
            return [_as_text(one) for one in value]
    return value


def write_table(title: str, columns: Sequence[str], rows: Iterable[Row], *, folded: bool = True) -> None:
    """A table; numbers to the right, control characters of producers made visible.

    Where the terminal is narrow the widest columns are folded, the others never. What has more columns than fit, or
    wide ones that are not to be `folded`, is written as one `name  value` a line. In a pipe or file a row is one line.
    """
    rows = [list(row) for row in rows]
    if not sys.stdout.isatty():
        click.echo(visible(title))
        _print_whole(columns, rows)
        return
    from rich.console import Console
    from rich.text import Text

    console = Console()
    console.print(Text(visible(title), "bold"), soft_wrap=True)
    widest = ([len(name), 4, *(0 if folded else len(_shown(row[n])) for row in rows)] for n, name in enumerate(columns))
    if len(columns) > 1 and sum(max(widths) + 2 for widths in widest) - 2 > console.width:
        for number, row in enumerate(rows, 1):
            _print(console, (f"row {number:,}", ""), list(zip(columns, row, strict=True)))
    elif rows:
        _print(console, columns, rows)


def _print_whole(columns: Sequence[str], rows: Sequence[Row]) -> None:
    """Each row a line. A value that is longer than any column is made pushes the rest of its line to the right."""
    from rich.cells import cell_len

    if not rows:
        return
    is_number = _number_columns(rows)
    lines = [list(map(visible, columns)), *(list(map(_shown, row)) for row in rows)]
    widths = [min(max(map(cell_len, cells)), _PADDED_AT_MOST) for cells in zip(*lines, strict=True)]
    for number, line in enumerate(lines):
        blanks = [" " * (width - cell_len(cell)) for cell, width in zip(line, widths, strict=True)]
        cells = [b + c if right else c + b for c, b, right in zip(line, blanks, is_number, strict=True)]
        click.echo("  ".join(cells).rstrip())
        if not number:
            click.echo("─" * min(sum(widths) + 2 * len(widths) - 2, _RULE_AT_MOST))
    click.echo()


def _number_columns(rows: Sequence[Row]) -> list[bool]:
    return [
        all(isinstance(cell, (int, float)) and not isinstance(cell, bool) for cell in cells)
        for cells in zip(*rows, strict=True)
    ]


def _print(console: "Console", columns: Sequence[str], rows: Sequence[Row]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, header_style="bold", padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    widths = [max(len(name), *(len(_shown(row[place])) for row in rows)) for place, name in enumerate(columns)]
    room = max(console.width - _FOLDED_LEAST, console.width * 2 // 3)
    for place, (name, numbers) in enumerate(zip(columns, _number_columns(rows), strict=True)):
        whole = sum(width + 2 for width in widths if width <= widths[place]) <= room  # with all that are narrower
        table.add_column(Text(visible(name)), justify="right" if numbers else "left", overflow="fold", no_wrap=whole)
    for row in rows:
        table.add_row(*(Text(_shown(cell)) for cell in row))
    with console.capture() as captured:
        console.print(table)
    # The spaces that fill up the last column are copied along from a terminal, and noise in a log.
    click.echo("\n".join(line.rstrip() for line in captured.get().rstrip().split("\n")) + "\n")


def shown_line(line: Mapping[str, Any], meanings: Mapping[str, "Meaning"]) -> Iterator[str]:
    """A failed line, and below it the rules that it breaks, with what only this line can say of them."""
    yield shortened(visible(f"line {line['line']}{line['item']}  {line['raw']}"), get_terminal_size().columns)
    for failure in line["failures"]:
        where = f" at {visible(failure['pointer'])}" if failure["pointer"] else ""
        detail = failure["message"]
        for known in meanings.get(failure["code"], ()):
            detail = detail.replace(known, "")
        yield f"  {failure['code']}{where}{': ' * bool(detail.strip())}{' '.join(visible(detail).split())}"
        if failure.get("more"):
            yield f"  {failure['code']} at {count(failure['more'], 'more place')}"


def _shown(cell: object) -> str:
    if cell is None:
        return ""
    if isinstance(cell, int) and not isinstance(cell, bool):
        return f"{cell:,}"
    return visible(str(cell))


class Moved(Protocol):
    """To be called with the bytes that were read since, and the files that are done."""

    def __call__(self, size_bytes: int, files: int = 0) -> None: ...


@contextmanager
def _bar(*columns: "ProgressColumn | str") -> Iterator["Progress"]:
    from rich.console import Console
    from rich.progress import Progress

    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        yield shown


@contextmanager
def progress(label: str, total_bytes: int, files: int = 1) -> Iterator[Moved]:
    """A bar on a terminal, where it is worth one; nothing elsewhere."""
    if not sys.stderr.isatty() or (total_bytes < 1 << 20 and files < _MANY_FILES):
        yield lambda size_bytes, files=0: None  # noqa: ARG005 - nobody watches
        return
    from rich.progress import BarColumn, DownloadColumn, TimeRemainingColumn

    of_many = [f"{{task.fields[done]:,}} of {files:,} files"] * (files > 1)
    with _bar("{task.description}", BarColumn(), DownloadColumn(), *of_many, TimeRemainingColumn()) as bar:
        task = bar.add_task(label, total=total_bytes, done=0)
        done = 0

        def moved(size_bytes: int, files: int = 0) -> None:
            nonlocal done
            done += files
            bar.update(task, advance=size_bytes, done=done)

        yield moved


def counted(label: str, listed: Iterator[T]) -> Iterator[T]:
    """The same, counted on a terminal as they come, where there are many."""
    if not sys.stderr.isatty():
        yield from listed
        return
    yield from islice(listed, _COUNTED_FROM)
    for first in listed:
        from rich.progress import SpinnerColumn, TextColumn

        with _bar(SpinnerColumn(), TextColumn("{task.description}", markup=False), "{task.completed:,}") as shown:
            task = shown.add_task(visible(label), total=None, completed=_COUNTED_FROM)
            for one in chain([first], listed):
                shown.update(task, advance=1)
                yield one


@contextmanager
def table_progress() -> Iterator[Callable[[str, int], None]]:
    """What was done of each table, on a terminal."""
    if not sys.stderr.isatty():
        yield lambda _name, _rows: None
        return
    from rich.progress import SpinnerColumn, TaskID

    with _bar(SpinnerColumn(), "{task.description}", "{task.completed:,} rows") as shown:
        tasks: dict[str, TaskID] = {}

        def advance(name: str, rows: int) -> None:
            if name not in tasks:
                tasks[name] = shown.add_task(name, total=None)
            shown.update(tasks[name], advance=rows)

        yield advance


def shortened(text: str, length: int) -> str:
    """`text`, cut where it would fill the screen; in a pipe or a file it may be longer."""
    length = length if sys.stdout.isatty() else _SHOWN_IN_PIPES
    return text if len(text) <= length else text[: length - 1] + "…"


def total(row: Mapping[str, Any]) -> str:
    """`1 record, 2 failed`: of a file, what failed always, the others where there are any."""
    one = {"sets": "set", "aliases": "alias", "records": "record"}
    some = [name for name in ("records", "sets", "aliases", "failed", "blank") if row[name] or name == "failed"]
    return ", ".join(f"{row[name]:,} {one.get(name, name) if row[name] == 1 else name}" for name in some)


def places(rows: Sequence[Mapping[str, Any]]) -> tuple[str, list[str]]:
    """Where all of these files are, and what each is called there; a file in this folder goes without it."""
    here = f"{Path.cwd()}/"
    full = [
        row["key"].removeprefix(here) if row["bucket"] == LOCAL_BUCKET else f"s3://{row['bucket']}/{row['key']}"
        for row in rows
    ]
    folder = full[0].rpartition("/")[0] + "/" if full and "/" in full[0] else ""
    while folder and not all(name.startswith(folder) for name in full):
        folder = folder[:-1].rpartition("/")[0] + "/"
        folder = "" if folder in ("/", "s3://") else folder
    return folder, [name.removeprefix(folder) for name in full]


def ended(code: int, *problems: str) -> int:
    """The exit code, after the document of `--json` that says why there is no other."""
    if "--json" in sys.argv:
        told: dict[str, Any] = {"error": "\n".join(problems)}
        write_json(told | ({"errors": problems} if len(problems) > 1 else {}))
    return code
