"""What pages read: right, of allowed sources only, there while a load holds the warehouse, and never half made."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.core.matching import natural
from ingest.errors import TransientError
from ingest.ports import Audit, Day, FilesWanted, Warehouse
from ingest.redrive import redrive
from ingest.settings import Source
from ingest.transfer import copy
from ingest.warehouse.engines.duckdb import published as duckdb_published
from ingest.warehouse.engines.duckdb.warehouse import DuckDBWarehouse
from tests import postgres
from tests.support import ROOT, World, record

NOTE = Audit(by="ann")
SORTS = get_args(FilesWanted.__annotations__["sort"])
BAD_TIME, NO_PERSON = '{"_p":"ann","_t":"soon","_n":"x"}', '{"_t":1393344603,"_n":"x"}'
BOTH = '{"_t":"soon","_n":"x"}'
MINE = ("one_off", "web")
ENGINES = ("duckdb", "postgres")


@pytest.fixture
def world(tmp_path: Path) -> World:
    folder = tmp_path / "it's here"
    folder.mkdir()
    sources = [Source(name="web", bucket="bucket"), Source(name="other", bucket="bucket", changed_file="replace")]
    return World(DuckDBWarehouse(folder / "w.duckdb"), sources)


@pytest.fixture(params=ENGINES)
def any_world(request: pytest.FixtureRequest, world: World) -> World:
    if request.param == "postgres":
        world.warehouse = postgres.warehouse(request.getfixturevalue("postgres_server").new())
    return world


@pytest.fixture(autouse=True)
def _every_copy_is_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy this machine is."""
    monkeypatch.setattr(duckdb_published, "_QUICK_SECONDS", 60.0)


def folder_of(world: World) -> Path:
    assert isinstance(world.warehouse, DuckDBWarehouse)
    return world.warehouse.path.parent


def left(world: World) -> set[str]:
    """What stands beside the warehouse."""
    return {path.name for path in folder_of(world).iterdir()}


COMPLETE = {"w.duckdb", "w.duckdb.lock", "w.duckdb.published", "w.duckdb.published.lock"}


def keys(world: World, **wanted: Any) -> list[str]:
    with world.warehouse.published() as published:
        return [row["key"] for row in published.files(FilesWanted(**{"sources": MINE} | wanted)).rows]


# --- what it tells ---------------------------------------------------------------------------------------------------


def test_a_warehouse_that_is_not_there_yet_has_nothing_to_show_and_is_not_made(world: World) -> None:
    with world.warehouse.published() as published:
        assert published.files(FilesWanted(sources=MINE)).total == 0
        assert published.file("f") is None
        assert not any(
            (
                published.days(FilesWanted(sources=MINE)), published.states(MINE), published.related("f"),
                published.history("f"), published.failure_groups(["f"]), published.glances(MINE),
                published.problems(FilesWanted(sources=MINE)), published.failed_lines(["f"]),
                list(published.open_lines("f")),
            )
        )  # fmt: skip
    assert left(world) == set()


def test_rows_are_those_of_the_ledger(any_world: World) -> None:
    any_world.bring("a.json", record("ann", 0, "x"), BAD_TIME, source="web")
    (ledger,) = any_world.warehouse.files({})
    with any_world.warehouse.published() as published:
        (row,) = published.files(FilesWanted(sources=MINE)).rows
        assert published.file(row["file_id"]) == row
        assert published.file(row["file_id"][:-1]) is None
        assert published.history(row["file_id"]) == any_world.warehouse.history(row["file_id"])
    assert row == {name: value for name, value in ledger.items() if name != "position"} | {
        "dealt_at": ledger["loaded_at"], "open_failures": 1, "to_fix": 1, "without_text": 0, "open_without_text": 0,
    }  # fmt: skip
    assert row["dealt_at"].tzinfo is not None


def test_a_file_that_waits_is_told_as_of_now_at_the_latest(any_world: World) -> None:
    file = any_world.put("a.json", record("ann", 0, "x"))
    any_world.store.broken["a.json"] = "it broke off"
    any_world.load(file)
    with any_world.warehouse.published() as published:
        (row,) = published.files(FilesWanted(sources=MINE, since=datetime.now(UTC).date() - timedelta(days=1))).rows
        assert row["state"] == "retrying"
        assert row["dealt_at"] <= published.as_of < row["next_try_at"]


@pytest.mark.parametrize("text", ["%", "_", "'", '"', "\\", "é", "ÜBER", "straße", "日本", "a'; DROP TABLE ledger; --"])
def test_a_text_is_what_it_says(any_world: World, text: str) -> None:
    any_world.bring(f"before {text.lower()} after.json", record("ann", 0, "x"))
    any_world.bring("plain.json", record("ann", 1, "x"))
    assert keys(any_world, text=text) == [f"before {text.lower()} after.json"]


def test_a_file_is_found_by_the_beginning_of_its_id(any_world: World) -> None:
    any_world.bring("zzz.json", record("ann", 0, "x"))
    file_id = any_world.bring("yyy.json", record("ann", 1, "x")).file_id
    assert keys(any_world, text=file_id[:12].upper()) == ["yyy.json"]
    assert keys(any_world, text=file_id[1:13]) == []


def test_days_and_states(any_world: World) -> None:
    any_world.bring("a.json", record("ann", 0, "x"), BAD_TIME, source="web")
    any_world.bring("b.json", record("ann", 0, "x"), record("ann", 1, "x"), source="web")
    undone = any_world.bring("c.json", record("ann", 0, "x"), source="web").file_id
    any_world.warehouse.undo([undone], NOTE)
    any_world.bring("d.json", record("ann", 0, "x"), source="other")
    with any_world.warehouse.published() as published:
        (day,) = published.days(FilesWanted(sources=("web",)))
        assert day == Day(day.day, "web", files=3, lines=3, failed=1, open=1)
        assert abs(day.day - datetime.now(UTC).date()) <= timedelta(days=1)
        assert published.states(("web",)) == [("web", "loaded", 2), ("web", "undone", 1)]
        assert published.states(()) == []


def test_problems_are_told_across_files_and_sources_most_first(any_world: World) -> None:
    first = any_world.bring("a.json", BAD_TIME, NO_PERSON, BOTH, source="web").file_id
    second = any_world.bring("b.json", record("ann", 0, "x"), NO_PERSON, source="other").file_id
    undone = any_world.bring("c.json", NO_PERSON, record("ann", 0, "x"), source="web").file_id
    any_world.bring("d.json", record("ann", 0, "x"), source="web")
    any_world.warehouse.undo([undone], NOTE)
    seven = '{"_p":"ann","_t":1393344603,"_n":7}'
    fixed = any_world.bring("e.json", record("ann", 0, "x"), seven, source="web").file_id
    redrive(any_world.pipeline, fixed, b'2\t{"_p":"ann","_t":1393344603,"_n":"x"}\n', NOTE)
    redrive(any_world.pipeline, first, b'1\t{"_p":"ann","_t":1393344603,"_n":"x"}\n', NOTE)
    with any_world.warehouse.published() as published:
        both = published.problems(FilesWanted(sources=("other", "web")))
        assert [(one.code, one.open, one.files, one.sources) for one in both] == [
            ("person_missing", 3, 2, ["other", "web"]), ("time_not_epoch_seconds", 1, 1, ["web"]),
        ]  # fmt: skip
        assert [(file["file_id"], file["open"]) for file in both[0].most] == [(first, 2), (second, 1)]
        assert both[0].formats == ["kissmetrics"]
        assert both[0].first_seen <= both[0].last_seen
        (of_other,) = published.problems(FilesWanted(sources=("other",)))
        assert (of_other.open, of_other.sources) == (1, ["other"]), "nothing of another source"
        assert len(published.problems(FilesWanted(sources=("other", "web")), files=1)[0].most) == 1
        told = {one.source: one for one in published.glances(("other", "web"))}
        assert (told["web"].open, told["web"].files, told["other"].open) == (2, 1, 1)
        assert published.glances(("other",)) == [told["other"]]
        files = published.files(FilesWanted(sources=("other", "web"), code="time_not_epoch_seconds"))
        assert [row["file_id"] for row in files.rows] == [first]


def test_related_files_are_told_by_what_they_are(any_world: World) -> None:
    wrong = any_world.bring("a.json", BAD_TIME, record("ann", 9, "w"), source="other", etag="1").file_id
    mended = b'1\t{"_p":"ann","_t":1393344603,"_n":"x"}\n'
    redriven = redrive(any_world.pipeline, wrong, mended, NOTE).result
    assert redriven is not None
    copy = any_world.bring("b.json", record("ann", 1, "y"), source="other").file_id
    duplicate = any_world.bring("c.json", record("ann", 1, "y"), source="other").file_id
    new = any_world.bring("a.json", record("ann", 2, "z"), source="other", etag="2").file_id
    version = any_world.bring("a.json", record("ann", 3, "z"), etag="3").file_id
    with any_world.warehouse.published() as published:

        def related(file_id: str) -> list[tuple[str, str]]:
            return [(row["relation"], row["file_id"]) for row in published.related(file_id)]

        assert related(wrong) == [("redrive", redriven.file_id), ("replaced_by", new), ("version", version)]
        assert related(redriven.file_id)[0] == ("original", wrong)
        assert "version" not in dict(related(redriven.file_id))
        assert related(copy) == [("duplicate", duplicate)]
        assert related(duplicate) == [("duplicate_of", copy)]
        assert ("replaces", wrong) in related(new)


def test_redrives_are_folded_under_their_file(any_world: World) -> None:
    wrong = any_world.bring("a.json", BAD_TIME, NO_PERSON, source="web").file_id
    other = any_world.bring("b.json", record("ann", 1, "y"), source="web").file_id
    redriven = []
    for line in (1, 2):
        mended = b'%d\t{"_p":"ann","_t":139334460%d,"_n":"x"}\n' % (line, line)
        told = redrive(any_world.pipeline, wrong, mended, NOTE).result
        assert told
        redriven.append(told.file_id)

    with any_world.warehouse.published() as published:

        def listed(**wanted: Any) -> list[tuple[str, list[str]]]:
            found = published.files(FilesWanted(sources=("web",), folded=True, sort="lines", **wanted))
            assert found.total == len(found.rows)
            return [(row["file_id"], [one["file_id"] for one in row["redrives"]]) for row in found.rows]

        mine = (wrong, redriven[::-1])
        assert listed() == [mine, (other, [])]
        assert listed(text="a.json") == listed(text=redriven[0][:12]) == listed(states=("rejected",)) == [mine]
        assert listed(states=("loaded",)) == [mine, (other, [])], "what was fixed of it is loaded"
        assert published.states(("web",)) == [("web", "loaded", 2), ("web", "rejected", 1)], "as many as are listed"
        assert published.files(FilesWanted(sources=("web",))).total == 4


# --- failed lines ----------------------------------------------------------------------------------------------------


def test_groups_count_each_line_once_in_each_rule_that_it_breaks(any_world: World) -> None:
    first = any_world.bring("a.json", BAD_TIME, NO_PERSON, BOTH, b'\xff\xfe{"_p"', source="web").file_id
    second = any_world.bring("b.json", record("ann", 0, "x"), NO_PERSON, source="web").file_id
    any_world.bring("c.json", BAD_TIME, NO_PERSON, source="other")
    redrive(any_world.pipeline, first, b'1\t{"_p":"ann","_t":1393344603,"_n":"x"}\n', NOTE)
    with any_world.warehouse.published() as published:
        groups = published.failure_groups([first, second])
        assert [(g.code, g.lines, g.open, g.first_line, g.more_places) for g in groups] == [
            ("person_missing", 3, 3, 2, 0), ("time_not_epoch_seconds", 2, 1, 1, 0), ("not_utf8", 1, 1, 4, 0),
        ]  # fmt: skip
        assert [(g.code, p.pointer, p.lines, p.open) for g in groups for p in g.places] == [
            ("person_missing", "/_p", 3, 3), ("time_not_epoch_seconds", "/_t", 2, 1), ("not_utf8", "", 1, 1),
        ]  # fmt: skip
        assert all(place.message for group in groups for place in group.places)
        assert published.failure_groups([]) == []

        def lines(**wanted: Any) -> list[tuple[int, bytes]]:
            return [(row["line"], row["raw"]) for row in published.failed_lines([second, first], **wanted)]

        everything = [(1, BAD_TIME.encode()), (2, NO_PERSON.encode()), (3, BOTH.encode()), (4, b'\xff\xfe{"_p"'),
                      (2, NO_PERSON.encode())]  # fmt: skip
        assert lines() == everything
        assert lines(offset=1, limit=2) == everything[1:3]
        assert lines(open_only=True) == everything[1:]
        assert lines(code="time_not_epoch_seconds") == [everything[0], everything[2]]
        assert lines(pointer="/_t", open_only=True) == [everything[2]]
        assert lines(code="person_missing", pointer="/_t") == []  # line 3 has the one and the other, not both in one
        assert lines(code="person_missing", pointer="/_p") == [everything[1], everything[2], everything[4]]
        assert lines(first_line=3) == everything[2:4]
        assert [row["line"] for row in published.open_lines(first)] == [2, 3, 4]
        with any_world.warehouse.failed_lines(first) as kept:
            assert published.failed_lines([first]) == list(kept)


def test_a_rule_that_is_broken_at_many_places_is_one_group(any_world: World) -> None:
    nested = [record("ann", n, "x", **{f"p{n:03}": [], "all": {}}) for n in range(30)]
    file_id = any_world.bring("a.json", *nested).file_id
    with any_world.warehouse.published() as published:
        (group,) = published.failure_groups([file_id], places=3)
    assert (group.code, group.lines, group.open, group.first_line) == ("nested_value", 30, 30, 1)
    assert [(place.pointer, place.lines) for place in group.places] == [("/all", 30), ("/p000", 1), ("/p001", 1)]
    assert group.more_places == 28


def test_long_open_lines_come_in_parts_and_in_order(any_world: World) -> None:
    long = ['{"_p":"ann","_t":"soon","a":"%s"}' % (str(n) * 900_000) for n in range(8)]
    file_id = any_world.bring("a.json", *long, "x" * (1 << 21)).file_id  # the last is cut, and cannot be mended
    with any_world.warehouse.published() as published:
        assert [row["raw"].decode() for row in published.open_lines(file_id)] == long


# --- many files ------------------------------------------------------------------------------------------------------

SOURCES, STATES, NAMES = ("web", "ios", "one_off"), ("loaded", "rejected", "retrying", "undone"), "aAbB%_'\"é日/1"


@pytest.fixture(scope="module", params=ENGINES)
def many(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """300 files of three sources with much in common, so that every sort has ties."""
    warehouse = DuckDBWarehouse(tmp_path_factory.mktemp("many") / "w.duckdb")
    with warehouse.writing() as connection:
        connection.execute(
            """
            INSERT INTO ledger BY NAME
            SELECT
                sha256('f' || i) AS file_id, i AS file_no, $sources[1 + i % 3] AS source, 'bucket' AS bucket,
                array_to_string([$names[1 + (hash(i * 7 + n) % 12)::BIGINT] FOR n IN range(1 + i % 4)], '') AS key,
                '' AS etag, TIMESTAMPTZ '2026-03-01 00:00:00+00' AS last_modified, hash(i) % 5 AS size_bytes,
                'kissmetrics' AS format, 'kissmetrics' AS people_space, $states[1 + (hash(i) % 4)::BIGINT] AS state,
                hash(i) % 4 AS lines, hash(i) % 4 AS items, hash(i) % 3 AS failed, 'run' || i % 5 AS run_id,
                CASE WHEN i % 7 > 0 THEN TIMESTAMPTZ '2026-02-27 23:00:00+00' + to_hours(i % 100) END AS loaded_at,
                i % 3 AS attempts, '' AS position
            FROM generate_series(1, 300) AS t(i)
            """,
            {"sources": list(SOURCES), "states": list(STATES), "names": NAMES},
        )
        keys = connection.execute("SELECT DISTINCT key FROM ledger").fetchall()
        positions = [(f"{0:017}|{natural(key)}|", key) for (key,) in keys]
        connection.executemany("UPDATE ledger SET position = ? WHERE key = ?", positions)
        connection.execute(
            "INSERT INTO failed_line_rows SELECT file_no, 1, '', 0, 1, '', '', TRUE, ['x'], '[]', NULL,"
            " CASE WHEN file_no % 2 = 0 THEN 'somebody' END, NULL FROM ledger WHERE failed > 0"
        )
    if request.param == "postgres":
        server = postgres.warehouse(request.getfixturevalue("postgres_server").new())
        copy(warehouse, server, lambda *_: None)
        return server
    return warehouse


def is_wanted(row: dict[str, Any], wanted: FilesWanted) -> bool:
    """`FilesWanted` once more, in words of Python."""
    day = row["dealt_at"].astimezone(UTC).date()
    text, has_open = wanted.text.lower(), row["failed"] > 0 and row["file_no"] % 2 == 1
    return (
        row["source"] in wanted.sources
        and (not wanted.states or row["state"] in wanted.states)
        and (wanted.since is None or day >= wanted.since)
        and (wanted.until is None or day <= wanted.until)
        and (text in row["key"].lower() or row["file_id"].startswith(text))
        and wanted.run_id in (None, row["run_id"])
        and (wanted.file_ids is None or row["file_id"] in wanted.file_ids)
        and (not (wanted.with_failures or wanted.code) or (has_open and row["state"] in ("loaded", "rejected")))
        and wanted.code in (None, "x")
    )


def value(row: dict[str, Any], sort: str) -> Any:
    return row["failed"] / row["items"] if sort == "failed_share" else row[sort]


some_wanted = st.builds(
    FilesWanted,
    sources=st.lists(st.sampled_from([*SOURCES, "nobody", "%"]), unique=True).map(tuple),
    states=st.lists(st.sampled_from(STATES), max_size=2, unique=True).map(tuple),
    since=st.none() | st.dates(date(2026, 2, 27), date(2026, 3, 4)),
    until=st.none() | st.dates(date(2026, 2, 27), date(2026, 3, 4)),
    text=st.text(NAMES, max_size=2),
    run_id=st.sampled_from([None, None, "run1", "run"]),
    file_ids=st.none(),
    with_failures=st.booleans(),
    code=st.sampled_from([None, None, "x", "y"]),
    sort=st.sampled_from(SORTS),
    descending=st.booleans(),
    page=st.just(1),
    per_page=st.sampled_from([1000]),
)


@settings(max_examples=40, deadline=None)
@given(wanted=some_wanted)
def test_what_is_wanted_is_told_and_nothing_of_another_source(many: Warehouse, wanted: FilesWanted) -> None:
    with many.published() as published:
        rows = published.files(FilesWanted(sources=SOURCES, per_page=1000)).rows
        expected = {row["file_id"]: row for row in rows if is_wanted(row, wanted)}
        page = published.files(wanted)
        assert len(rows) == 300
        assert {row["file_id"]: row for row in page.rows} == expected
        assert page.total == len(page.rows) == len(expected)
        days = published.days(wanted, last=1000)
        assert sum(day.files for day in days) == len(expected)
        assert {day.source for day in days} <= set(wanted.sources)
        states = published.states(wanted.sources)
        assert {source for source, _, _ in states} <= set(wanted.sources)
        assert sum(files for _, _, files in states) == sum(row["source"] in wanted.sources for row in rows)


@pytest.mark.parametrize("descending", [True, False])
@pytest.mark.parametrize("sort", SORTS)
def test_pages_hold_each_file_once_and_in_order(many: Warehouse, sort: Any, descending: bool) -> None:
    wanted: dict[str, Any] = {"sources": SOURCES, "sort": sort, "descending": descending, "per_page": 17}
    with many.published() as published:
        pages = [published.files(FilesWanted(**wanted, page=page)) for page in range(1, 20)]
    rows = [row for page in pages for row in page.rows]
    assert {page.total for page in pages} == {300}
    assert len({row["file_id"] for row in rows}) == len(rows) == 300
    told = [value(row, sort) for row in rows if sort != "failed_share" or row["items"]]
    if sort == "key":
        told = [natural(key).encode() for key in told]
    assert told == sorted(told, reverse=descending)


def test_named_files_and_the_last_days(many: Warehouse) -> None:
    with many.published() as published:
        rows = published.files(FilesWanted(sources=SOURCES, per_page=1000)).rows
        named = tuple(row["file_id"] for row in rows[::2])
        page = published.files(FilesWanted(sources=("web",), file_ids=named, per_page=1000))
        assert {row["file_id"] for row in page.rows} == {row["file_id"] for row in rows[::2] if row["source"] == "web"}
        assert published.files(FilesWanted(sources=SOURCES, file_ids=())).total == 0
        days = published.days(FilesWanted(sources=SOURCES))
        assert published.days(FilesWanted(sources=SOURCES), last=2) == [
            day for day in days if day.day in sorted({day.day for day in days})[-2:]
        ]
        assert len({day.day for day in days}) == 6


# --- fresh, or old while a load is writing ---------------------------------------------------------------------------


@contextmanager
def another(world: World, script: str) -> Iterator[subprocess.Popen[str]]:
    """A process that runs this with the `warehouse`; with `meet()` it says how far it has come, and waits."""
    begin = (
        "import sys; from pathlib import Path;"
        "from ingest.warehouse.engines.duckdb import published as duckdb_published;"
        "from ingest.warehouse.engines.duckdb.warehouse import DuckDBWarehouse; from ingest.ports import FilesWanted;"
        "warehouse = DuckDBWarehouse(Path(sys.argv[1])); duckdb_published._QUICK_SECONDS = 60.0\n"
        "def meet(): print('here', flush=True); sys.stdin.readline()\n"
    )
    command = [sys.executable, "-c", begin + script, str(folder_of(world) / "w.duckdb")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            yield process
        finally:
            process.kill()


def heard(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def go_on(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


LOAD = """
with warehouse.writing() as connection:
    connection.execute("UPDATE ledger SET state = 'undone'")
with warehouse.writing():
    meet()
"""


def in_background(world: World) -> None:
    """Wait for the copy that is being made."""
    duckdb_published._threads[folder_of(world) / "w.duckdb"].join()


def states(world: World) -> list[tuple[str, str, int]]:
    with world.warehouse.published() as published:
        return published.states(MINE)


def test_what_was_committed_is_on_the_next_page(world: World) -> None:
    for number in range(3):
        world.bring(f"{number}.json", record("ann", number, "x"))
        begin = datetime.now(UTC)
        assert states(world) == [("one_off", "loaded", number + 1)]
    file = world.warehouse.files({})[0]
    world.warehouse.undo([file["file_id"]], NOTE)
    with world.warehouse.published() as published:
        assert published.states(MINE) == [("one_off", "loaded", 2), ("one_off", "undone", 1)]
        assert published.as_of >= begin
    assert left(world) == COMPLETE


def test_a_copy_that_is_not_stale_is_not_made_anew_and_tells_that_it_is_of_now(world: World) -> None:
    world.bring("a.json", record("ann", 0, "x"))
    states(world)
    place = folder_of(world) / "w.duckdb.published"
    made = place.stat().st_ino
    begin = datetime.now(UTC)
    with world.warehouse.published() as published:
        assert published.as_of >= begin
    assert place.stat().st_ino == made
    assert datetime.fromtimestamp(place.stat().st_mtime, UTC) >= begin - timedelta(milliseconds=1)


def test_while_a_load_holds_the_warehouse_pages_show_what_was_and_later_what_is(world: World) -> None:
    world.bring("a.json", record("ann", 0, "x"))
    assert states(world) == [("one_off", "loaded", 1)]
    with another(world, LOAD) as load:
        assert heard(load) == "here"
        begin = datetime.now(UTC)
        for _ in range(3):
            with world.warehouse.published() as published:
                assert published.states(MINE) == [("one_off", "loaded", 1)]
                assert published.as_of < begin
        go_on(load)
        load.wait()
    in_background(world)
    assert states(world) == [("one_off", "undone", 1)]
    assert left(world) == COMPLETE


def test_a_copy_that_takes_long_is_made_behind_the_page(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duckdb_published, "_QUICK_SECONDS", 0.0)
    monkeypatch.setattr(duckdb_published, "_REST", 0)
    monkeypatch.setattr(duckdb_published, "_WAITED_SECONDS", 0.0)
    world.bring("a.json", record("ann", 0, "x"))
    assert states(world) == [("one_off", "loaded", 1)]
    world.bring("b.json", record("ann", 1, "x"))
    with world.warehouse.published() as published:
        in_background(world)
        assert published.states(MINE) == [("one_off", "loaded", 1)]  # a page has one moment, whatever came since
        assert states(world) == [("one_off", "loaded", 2)]


def test_the_first_visitor_waits_for_a_copy_that_comes_soon(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duckdb_published, "_QUICK_SECONDS", 0.0)
    monkeypatch.setattr(duckdb_published, "_REST", 0)
    monkeypatch.setattr(duckdb_published, "_WAITED_SECONDS", 60.0)
    for number in range(2):
        world.bring(f"{number}.json", record("ann", number, "x"))
        assert states(world) == [("one_off", "loaded", number + 1)]


def test_no_copy_yet_and_a_load_in_the_way_is_said(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duckdb_published, "_FIRST_SECONDS", 0)
    world.bring("a.json", record("ann", 0, "x"))
    with another(world, LOAD) as load:
        assert heard(load) == "here"
        with pytest.raises(TransientError, match=r"^Loads hold duckdb:///\S.*w\.duckdb, .* in a few seconds\.$"):
            states(world)
        go_on(load)
        load.wait()
    assert states(world) == [("one_off", "undone", 1)]


@pytest.mark.parametrize("step", ["_copy_tables", "_layout"])
def test_a_killed_publisher_leaves_nothing_to_the_next(world: World, step: str) -> None:
    world.bring("a.json", record("ann", 0, "x"))
    script = f"""
done = duckdb_published.{step}
def after(*arguments):
    told = done(*arguments)
    meet()
    return told
duckdb_published.{step} = after
with warehouse.published(): pass
"""
    with another(world, script) as publisher:
        assert heard(publisher) == "here"
        assert "w.duckdb.published.new" in left(world)
        publisher.send_signal(signal.SIGKILL)
        publisher.wait()
    assert states(world) == [("one_off", "loaded", 1)]
    assert left(world) == COMPLETE


def test_two_processes_at_once_show_the_same(world: World) -> None:
    world.bring("a.json", record("ann", 0, "x"))
    script = """
meet()
for _ in range(5):
    with warehouse.published() as published: print(published.states(["one_off"]), flush=True)
    with warehouse.writing() as connection: connection.execute("UPDATE ledger SET attempts = attempts + 1")
"""
    with another(world, script) as one, another(world, script) as two:
        assert heard(one) == heard(two) == "here"
        go_on(one)
        go_on(two)
        for process in (one, two):
            assert [heard(process) for _ in range(5)] == ["[('one_off', 'loaded', 1)]"] * 5
            assert process.wait() == 0
    with world.warehouse.published() as published:
        assert [row["attempts"] for row in published.files(FilesWanted(sources=MINE)).rows] == [11]
    assert left(world) == COMPLETE


@pytest.mark.parametrize("content", [b"", b"not a database", None])
def test_a_copy_that_cannot_be_read_is_made_anew(world: World, content: bytes | None) -> None:
    world.bring("a.json", record("ann", 0, "x"))
    place = folder_of(world) / "w.duckdb.published"
    if content is None:  # of another version of ours
        with duckdb.connect(str(place)) as connection:
            connection.execute(
                "CREATE TABLE made AS SELECT '' AS layout, '' AS stamp, 0.0 AS took_seconds, 0.0 AS made_at"
            )
    else:
        place.write_bytes(content)
    assert states(world) == [("one_off", "loaded", 1)]


def test_who_may_not_read_the_warehouse_may_not_read_its_copy(world: World) -> None:
    world.bring("a.json", record("ann", 0, "x"))
    (folder_of(world) / "w.duckdb").chmod(0o640)
    states(world)
    assert (folder_of(world) / "w.duckdb.published").stat().st_mode & 0o777 == 0o640


@pytest.mark.slow
def test_a_process_that_ends_while_it_makes_a_copy_ends_well(world: World) -> None:
    """A thread inside the engine would otherwise end the process with an abort."""
    world.bring("a.json", record("ann", 0, "x"))
    states(world)
    script = """
duckdb_published._QUICK_SECONDS = duckdb_published._REST = 0
statement = duckdb_published.statement
at_work = __import__("threading").Event()
def long(name):
    if name != "publish_ledger": return statement(name)
    at_work.set()
    return "SELECT count(*) FROM range(9999999) AS a, range(9999999) AS b WHERE a.range = -b.range AND $as_of <> now()"
with warehouse.writing() as connection: connection.execute("UPDATE ledger SET attempts = 7")
duckdb_published._layout()
duckdb_published.statement = long
with warehouse.published(): at_work.wait()
"""
    with another(world, script) as process:
        assert process.wait() == 0
    assert states(world) == [("one_off", "loaded", 1)]
    assert left(world) == COMPLETE


# --- files with more failed lines than pages hold --------------------------------------------------------------------


def test_of_a_file_with_much_text_pages_hold_the_first_open_lines(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duckdb_published, "_TEXTS_BYTES", 3_500)  # by their own lengths three, with their failures two
    bad = [f'{{"_p":"ann","_t":"soon","x":"{"y" * 500}{number}","a":[],"b":[],"c":[]}}' for number in range(6)]
    large = world.bring("large.json", *bad, NO_PERSON, source="web").file_id
    small = world.bring("small.json", BAD_TIME, source="web").file_id
    texts = [line.encode() for line in bad]
    with world.warehouse.published() as published:
        row, other = published.file(large), published.file(small)
        assert row
        assert other
        assert (row["open_failures"], row["without_text"], row["open_without_text"]) == (7, 5, 5)
        assert (other["open_failures"], other["without_text"], other["open_without_text"]) == (1, 0, 0)
        listed = published.failed_lines([large])
        assert [line["raw"] for line in listed] == [*texts[:2], *[None] * 5]
        assert [line["line"] for line in listed] == [1, 2, 3, 4, 5, 6, 7]
        assert [line["codes"] for line in listed] == [["time_not_epoch_seconds", "nested_value"]] * 6 + [
            ["person_missing"]
        ]
        with world.warehouse.failed_lines(large) as kept:
            assert listed[:2] == list(kept)[:2]
        groups = published.failure_groups([large])
        assert [(group.code, group.lines, group.open) for group in groups] == [
            ("nested_value", 6, 6), ("time_not_epoch_seconds", 6, 6), ("person_missing", 1, 1),
        ]  # fmt: skip
        assert [[(place.pointer, place.lines) for place in group.places] for group in groups] == [
            [("/a", 2), ("/b", 2), ("/c", 2)], [("/_t", 2)], [],
        ]  # fmt: skip
        assert [line["raw"] for line in published.open_lines(large)] == texts[:2]
        assert published.open_among(large, [(2, ""), (5, ""), (8, ""), (1, "/x")]) == {(2, ""): True, (5, ""): False}
        assert published.open_among(large, []) == {}
        assert [line["raw"] for line in published.failed_lines([small])] == [BAD_TIME.encode()]
    redrive(world.pipeline, large, b'1\t{"_p":"ann","_t":1393344603,"_n":"x"}\n', NOTE)
    with world.warehouse.published() as published:
        assert [line["raw"] for line in published.failed_lines([large])] == [None, *texts[1:3], *[None] * 4]


OLD = """
with warehouse.writing() as connection:
    for file_no, line in ((1, 3), (1, 4), (2, 3), (2, 4)):
        connection.execute(
            "INSERT INTO failed_line_rows SELECT $file_no, $line, '', 0, 5, 'a line', '', TRUE, ['nested_value'],"
            " '[' || repeat('{\\"code\\":\\"nested_value\\",\\"pointer\\":\\"/x\\",\\"message\\":\\"x\\"},', 400000)"
            " || '{\\"code\\":\\"nested_value\\",\\"pointer\\":\\"/x\\",\\"message\\":\\"x\\"}]', NULL, NULL, NULL",
            {"file_no": file_no, "line": line},
        )
"""


@pytest.mark.slow
def test_what_a_former_version_kept_does_not_stop_the_pages_of_all(world: World) -> None:
    """It kept 20 MB of failures for a line of 1 MB."""
    for number in range(2):
        world.bring(f"{number}.json", record("ann", number, "x"), BAD_TIME, source="web")
    with another(world, OLD) as filling:
        assert filling.wait() == 0
    script = """
with warehouse.published() as published:
    for row in published.files(FilesWanted(sources=["web"])).rows:
        texts = [line["raw"] is not None for line in published.failed_lines([row["file_id"]])]
        print(row["open_failures"], texts, len(published.failure_groups([row["file_id"]])))
print(int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) >> 10)
"""
    with another(world, script) as reader:
        assert [heard(reader), heard(reader)] == ["3 [True, False, False] 2"] * 2
        assert int(heard(reader)) < 400  # MB


@pytest.mark.slow
def test_long_lines_of_many_files_stop_neither_loads_nor_pages(world: World) -> None:
    """Packed, each has 33 KB. The engine holds thousands of rows together: from the fifth on no load was committed."""
    long = '{"_p":"ann","_t":"soon","a":"%s"}' % ("x" * 1_000_000)
    for number in range(5):
        world.bring(f"{number}.json", f"no json {number}", *[long] * 40, source="web")
    script = """
with warehouse.published() as published:
    rows = published.files(FilesWanted(sources=["web"])).rows
    print([(row["without_text"], len(list(published.open_lines(row["file_id"])))) for row in rows])
print(int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) >> 10)
"""
    with another(world, script) as reader:
        assert heard(reader) == str([(32, 9)] * 5)
        assert int(heard(reader)) < 600  # MB
