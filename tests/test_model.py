"""Whatever is done to files, and in whatever order: the warehouse is what a slow and obvious model of SPEC 4 says.

The model knows what each line of a small alphabet means, holds files in dictionaries and adds them up at each look. It
has no SQL and nothing of ours. What SPEC leaves open is not compared, and the moves that lead there are not made.
"""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import duckdb
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from ingest import actions
from ingest.core.source import SourceFile
from ingest.errors import IngestError, TransientError
from ingest.ports import Audit, FileResult, Warehouse
from ingest.redrive import Outcome, redrive
from ingest.settings import Source
from tests import postgres
from tests.memory_engine import MemoryWarehouse
from tests.support import START, World, alias, lines, put, record
from tests.test_exactly_once import Steps, warehouse_at
from tests.test_postgres import Steps as ServerSteps

# --- the alphabet ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fact:
    """What a command says, as far as it is the same fact: SPEC 4, `command_id`."""

    kind: str
    person: str  # its key
    at: float
    event: str | None = None
    other: str | None = None  # key of the alias
    properties: tuple[tuple[str, object], ...] = ()

    @property
    def identity(self) -> object:
        """An alias orders its two keys."""
        pair = tuple(sorted((self.person, self.other))) if self.other else (self.person,)
        return self.kind, pair, self.at, self.event, self.properties


@dataclass(frozen=True)
class Meaning:
    """A line and what is to come of it."""

    text: bytes
    facts: tuple[Fact, ...] = ()
    codes: tuple[str, ...] = ()  # it fails, with these
    flattened: tuple[Fact, ...] = ()  # it does not where nested = "flatten"
    mended: str = ""  # the line that it should have been

    def accepted(self, flatten: bool) -> tuple[Fact, ...]:
        return self.flattened if flatten and self.flattened else self.facts

    def fails(self, flatten: bool) -> bool:
        return bool(self.codes) and not (flatten and self.flattened)


def _text(line: dict[str, object]) -> bytes:
    return lines(line).removesuffix(b"\n")


def _record(person: str, at: float, event: str, **properties: object) -> Fact:
    return Fact("record", person, at, event, properties=tuple(sorted(properties.items())))


def _set(person: str, at: float, **properties: object) -> Fact:
    return Fact("set", person, at, properties=tuple(sorted(properties.items())))


def _alias(person: str, other: str, at: float = 0) -> Fact:
    return Fact("alias", person, at, other=other)


ALPHABET: dict[str, Meaning] = {
    "blank": Meaning(b""),
    "ann x": Meaning(_text(record("ann", 0, "x", a=1)), (_record("ann", 0, "x", a=1),)),
    "Ann X": Meaning(_text(record(" Ann", 0, "X ", a=1)), (_record("ann", 0, "x", a=1),)),  # the same fact
    "bob x": Meaning(_text(record("bob", 0, "x")), (_record("bob", 0, "x"),)),
    "dan y": Meaning(_text(record("dan", 3, "y", plan="free")), (_record("dan", 3, "y", plan="free"),)),
    "anonymous x": Meaning(_text(record("anonymous", 1, "x")), (_record("anonymous", 1, "x"),)),
    "ann pro": Meaning(_text(put("ann", 3, plan="pro")), (_set("ann", 3, plan="pro"),)),
    "bob free": Meaning(_text(put("bob", 3, plan="free", b=2)), (_set("bob", 3, plan="free", b=2),)),
    "cat basic": Meaning(_text(put("cat", 4, Plan="basic")), (_set("cat", 4, Plan="basic"),)),
    "ann=bob": Meaning(_text(alias("ann", "bob")), (_alias("ann", "bob"),)),
    "BOB=ann": Meaning(_text(alias("BOB", "ann")), (_alias("bob", "ann"),)),  # the same fact
    "bob=cat": Meaning(_text(alias("bob", "cat")), (_alias("bob", "cat"),)),
    "dan=cat": Meaning(_text(alias("dan", "cat", 7)), (_alias("dan", "cat", 7),)),
    "ann=anonymous": Meaning(_text(alias("ann", "anonymous")), (_alias("ann", "anonymous"),)),
    "anonymous=dan": Meaning(_text(alias("Anonymous", "dan")), (_alias("anonymous", "dan"),)),
    "cat=cat": Meaning(_text(alias("cat", "cat")), (_alias("cat", "cat"),)),
    "eve=ann, x": Meaning(
        _text({"_p": "eve", "_t": START, "_p2": "ann", "_n": "x"}), (_alias("eve", "ann"), _record("eve", 0, "x"))
    ),
    "not json": Meaning(b"oh, no", codes=("not_json",), mended="bob x"),
    "no time": Meaning(b'{"_p":"ann","_n":"x"}', codes=("time_missing",), mended="ann x"),
    "no alias": Meaning(_text({"_p": "dan", "_t": START, "_p2": True}), codes=("alias_not_text",), mended="dan=cat"),
    "nested": Meaning(
        _text(record("dan", 5, "n", o={"a": 1})), codes=("nested_value",),
        flattened=(_record("dan", 5, "n", **{"o.a": 1}),), mended="dan y",
    ),
    "not json either": Meaning(b"no, oh", codes=("not_json",), mended="cat basic"),
}  # fmt: skip
BY_TEXT = {meaning.text: name for name, meaning in ALPHABET.items()}
IGNORED = "anonymous"

Place = int  # a line's number: in this format an item is its line


# --- the model -------------------------------------------------------------------------------------------------------


@dataclass
class Object:
    """What the landing holds under a key."""

    file_id: str
    content: tuple[str, ...]
    arrived: float


@dataclass
class Row:
    """One file in the ledger, and what it brought."""

    file_id: str
    source: str
    key: str
    content: tuple[str, ...]
    arrived: float
    state: str = "pending"
    entered: int = 0  # the how manieth to be dealt with
    duplicates: int = 0
    duplicate_of: str | None = None
    replaced_by: str | None = None
    redrive_of: str | None = None
    commands: list[tuple[Place, int, Fact]] = field(default_factory=list)
    failed: dict[Place, str | None] = field(default_factory=dict)  # by whom it was mended
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def open_lines(self) -> list[Place]:
        return [place for place, by in self.failed.items() if by is None]


@dataclass
class Model:
    """A landing, a ledger, and what follows from the two."""

    sources: dict[str, Source]
    landing: dict[tuple[str, str], Object] = field(default_factory=dict)
    ledger: dict[str, Row] = field(default_factory=dict)
    unreadable: set[str] = field(default_factory=set)
    flatten: bool = False  # today's rule on nested values
    history: list[tuple[str, str]] = field(default_factory=list)  # file_id, action: what SPEC names as an action
    entered: int = 0
    loaded_before: int = 0  # what `entered` was before the load that is being counted

    # --- what is where

    def file(self, source: str, key: str) -> Row:
        """The current object under a key, as if nobody had met it."""
        there = self.landing[source, key]
        return Row(there.file_id, source, key, there.content, there.arrived)

    def again(self, row: Row) -> Row:
        """The same file, put anew: it came when it came first, whenever its bytes were sent again."""
        return replace(self.file(row.source, row.key), arrived=row.arrived)

    def is_current(self, row: Row) -> bool:
        there = self.landing.get((row.source, row.key))
        return there is not None and there.file_id == row.file_id

    def pending(self, source: str) -> list[str]:
        """Keys, in their order. Of an unversioned key, bytes that were replaced are a change once they are back."""
        found = []
        for (of, key), there in sorted(self.landing.items()):
            row = self.ledger.get(there.file_id)
            if of == source and (row is None or row.state == "replaced"):
                found.append(key)
        return found

    def open(self) -> list[Row]:
        return [row for row in self.ledger.values() if row.state in ("loaded", "rejected") and row.open_lines]

    def redrives(self, row: Row) -> list[Row]:
        """In the order in which they came. Those that are gone do not count."""
        ours = [one for one in self.ledger.values() if one.redrive_of == row.file_id and one.state == "loaded"]
        return sorted(ours, key=lambda one: one.entered)

    # --- what is done

    def load(self, files: Sequence[Row], intent: str) -> None:
        """Files as they are now, in the order in which they are taken; what is settled stays."""
        reopened = {"new": set(), "again": {"undone", "ignored"}, "release": {"held"}}
        taken: list[Row] = []
        for file in files:
            known = self.ledger.get(file.file_id)
            if intent != "force" and known and known.state not in reopened[intent] | {"replaced", "retrying"}:
                continue
            if not self.is_current(file):
                continue  # gone
            if file.key in self.unreadable:
                if known is None or known.state == "retrying":
                    self._enter(file, "retrying")
                continue
            taken.append(file)
            if intent in ("force", "release"):
                self.history.append((file.file_id, intent))
        for file in taken:
            self._decide(file, intent)
        for file in sorted(taken, key=lambda one: (one.arrived, one.key)):
            if file.state == "loaded":
                self._count_duplicates(file)

    def _enter(self, file: Row, state: str) -> None:
        self.entered += 1
        file.state, file.entered = state, self.entered
        self.ledger[file.file_id] = file

    def _decide(self, file: Row, intent: str) -> None:
        source = self.sources[file.source]
        former = self.ledger.get(file.file_id)
        others = [row for row in self.ledger.values() if row.file_id != file.file_id and row.redrive_of is None]
        versions = [row for row in others if (row.source, row.key) == (file.source, file.key)]
        # Nothing of these is in the warehouse, so that there is nothing that could have changed.
        versions = [row for row in versions if row.state not in ("undone", "ignored", "retrying")]
        newest = max(versions, key=lambda row: row.entered, default=None)
        changed = newest is not None and newest.content != file.content
        holds = changed and intent in ("new", "again") and source.changed_file == "hold"  # whatever is in it
        self._judge(file)
        failed = len(file.failed)
        most = source.max_failed_lines
        if intent != "force" and not holds and failed and (not file.commands or (most is not None and failed > most)):
            file.commands = []
            self._enter(file, "rejected")
            return
        copies = [
            row for row in others
            if row.source == file.source and row.key != file.key and row.content == file.content
            and row.state == "loaded"
        ]  # fmt: skip
        if intent != "force" and source.same_bytes == "skip" and copies:
            state = "duplicate"
            file.duplicate_of = min(copies, key=lambda row: row.entered).file_id
        elif holds:
            state = "held"
        else:
            state = "loaded"
        if state != "loaded":
            file.commands, file.failed = [], {}
        else:
            self._keep_mended(file, former if intent == "force" else None, versions)
        self._enter(file, state)

    def _replace(self, versions: Sequence[Row], by: Row) -> None:
        """With all that redrives brought."""
        for row in versions:
            redrives = self.redrives(row)
            self._leave([row] * (row.state == "loaded"), "replaced", by.file_id)
            self._go(redrives, "replaced", by.file_id)

    def _go(self, redrives: Sequence[Row], state: str, by: str | None = None) -> None:
        """Redrives leave, and what they mended is open, wherever it stands."""
        self._leave(redrives, state, by)
        ids = {one.file_id for one in redrives}
        for one in self.ledger.values():
            one.failed = {place: None if mended in ids else mended for place, mended in one.failed.items()}

    def _keep_mended(self, file: Row, former: Row | None, versions: Sequence[Row]) -> None:
        """A line that fails as before stays mended. No line is there twice: as the file has it, and mended."""
        replaces = self.sources[file.source].changed_file == "replace"
        replaced = [row for row in versions if replaces and row.state == "loaded"]
        # A redrive may hold all of a rejected file.
        if former and former.state == "rejected":
            self._go(self.redrives(former), "undone")
        for row in versions:
            if replaces and row.state == "rejected":
                self._go(self.redrives(row), "replaced", file.file_id)
        mended = [
            ((place, row.content[place - 1]), by)
            for row in (*sorted(versions, key=lambda one: one.entered), *filter(None, [former]))
            for place, by in row.failed.items()
            if by
        ]
        by_line = dict(mended)
        file.failed = {place: by_line.get((place, file.content[place - 1])) for place in file.failed}
        stale = {by for (place, _), by in mended if not file.failed.get(place)}
        if former:
            self._go([one for one in self.redrives(former) if one.file_id in stale], "undone")
            gone = {by for by in stale if self.ledger[by].state == "undone"}
            file.failed = {place: None if by in gone else by for place, by in file.failed.items()}
        inherited = [one for row in replaced for one in self.redrives(row)]
        self._leave(replaced, "replaced", file.file_id)
        for one in inherited:
            if one.file_id in {by for _, by in mended} - stale:
                one.redrive_of = file.file_id
            else:
                self._go([one], "replaced", file.file_id)
                file.failed = {place: None if by == one.file_id else by for place, by in file.failed.items()}

    def _judge(self, file: Row) -> None:
        file.commands, file.failed = [], {}
        for place, name in enumerate(file.content, 1):
            meaning = ALPHABET[name]
            if meaning.fails(self.flatten):
                file.failed[place] = None
            file.commands += [(place, n, fact) for n, fact in enumerate(meaning.accepted(self.flatten))]
        self._count(file, len(file.content))

    def _count(self, file: Row, physical: int) -> None:
        kinds = [fact.kind for _, _, fact in file.commands]
        blank = file.content.count("blank") if file.redrive_of is None else 0
        file.counts = {
            "lines": physical, "blank": blank, "items": physical - blank, "failed": len(file.failed),
            "records": kinds.count("record"), "sets": kinds.count("set"), "aliases": kinds.count("alias"),
        }  # fmt: skip

    def _count_duplicates(self, file: Row) -> None:
        """Of the facts that others brought, or that the file itself says twice. Files of one load in their order."""
        before = {
            fact.identity
            for row in self.ledger.values()
            for _, _, fact in row.commands
            if row is not file and not self._follows(row, file)
        }
        file.duplicates = 0
        for _, _, fact in file.commands:
            file.duplicates += fact.identity in before
            before.add(fact.identity)

    def _follows(self, row: Row, file: Row) -> bool:
        """Within the load that is being counted."""
        return row.entered > self.loaded_before and (row.arrived, row.key) > (file.arrived, file.key)

    def _leave(self, rows: Iterable[Row], state: str, by: str | None = None) -> None:
        for row in rows:
            row.state, row.replaced_by = state, by
            row.commands, row.failed = [], {}
            self.history.append((row.file_id, {"undone": "undo", "replaced": "replace"}[state]))

    def undo(self, row: Row) -> None:
        if row.state not in ("loaded", "rejected"):
            return
        gone = [row, *self.redrives(row)]
        original = self.ledger.get(row.redrive_of or "")
        if original and original.state == "rejected" and self.redrives(original)[0] is row:
            gone = self.redrives(original)  # the first holds the rest of the file, without which the others are nothing
        self._leave(gone, "undone")
        ids = {one.file_id for one in gone}
        for one in self.ledger.values():
            one.failed = {place: None if by in ids else by for place, by in one.failed.items()}

    def is_redriven_whole(self, row: Row) -> bool:
        """After that, only lines of it are missing."""
        return row.state == "rejected" and not self.redrives(row)

    def versions(self, row: Row) -> list[Row]:
        """The others under its key."""
        rows = [one for one in self.ledger.values() if (one.source, one.key) == (row.source, row.key)]
        return [one for one in rows if one.redrive_of is None and one.file_id != row.file_id]

    def right(self, mended: dict[Place, str]) -> dict[Place, str]:
        """A blank line mends nothing."""
        return {
            place: name for place, name in mended.items()
            if name != "blank" and not ALPHABET[name].fails(self.flatten)
        }  # fmt: skip

    def mended(self, row: Row, right: dict[Place, str]) -> dict[Place, str]:
        """All of a rejected file, with these lines in their places."""
        return {place: right.get(place, name) for place, name in enumerate(row.content, 1)}

    def redrive(self, row: Row, right: dict[Place, str], file_id: str) -> None:
        """Mended lines that are right, as the file that they are. Each line of a rejected one is there, or open."""
        whole = self.is_redriven_whole(row)
        content = self.mended(row, right) if whole else right
        file = Row(file_id, row.source, row.key, tuple(content.values()), row.arrived, redrive_of=row.file_id)
        if whole and self.sources[row.source].changed_file == "replace":
            self._replace(self.versions(row), file)
        for place, name in content.items():
            if not ALPHABET[name].fails(self.flatten):
                facts = ALPHABET[name].accepted(self.flatten)
                file.commands += [(place, n, fact) for n, fact in enumerate(facts)]
                if place in row.open_lines:
                    row.failed[place] = file_id
            else:
                row.failed.setdefault(place, None)  # it may have been right when the file was rejected
        row.counts["failed"] = len(row.failed)
        self._count(file, len(right))
        self.loaded_before = self.entered
        self.history.append((row.file_id, "redrive"))
        self._enter(file, "loaded")
        self._count_duplicates(file)

    def wrong(self, row: Row, right: dict[Place, str]) -> set[Place]:
        """Of all of a rejected file."""
        return {place for place, name in self.mended(row, right).items() if ALPHABET[name].fails(self.flatten)}

    def is_within_limits(self, row: Row, right: dict[Place, str]) -> bool:
        """Whether a rejected file is loaded with these lines in their places."""
        wrong, most = self.wrong(row, right), self.sources[row.source].max_failed_lines
        lines = {place for place, name in self.mended(row, right).items() if name != "blank"}
        return not wrong or (wrong != lines and (most is None or len(wrong) <= most))

    # --- what is seen

    def seen(self) -> dict[str, Any]:
        rows = [
            (row.arrived, row.key, place, n, row.file_id, fact)
            for row in self.ledger.values() for place, n, fact in row.commands
        ]  # fmt: skip
        facts: dict[object, tuple[float, str, int, int, str, Fact]] = {}
        for one in sorted(rows, key=lambda each: each[:4]):
            facts.setdefault(one[5].identity, one)
        persons = components([fact for *_, fact in rows])
        return {
            "ledger": sorted(map(_ledger_row, self.ledger.values()), key=repr),
            "commands": sorted(
                ((file_id, place, *_shown(fact), fact.other) for _, _, place, _, file_id, fact in rows), key=repr
            ),
            "events": sorted(
                (
                    (persons[fact.person], place, *_shown(fact)) for _, _, place, _, _, fact in facts.values()
                    if fact.kind == "record"
                ), key=repr,
            ),
            "identities": persons,
            "people": _people([(one[:4], one[5]) for one in rows], persons),
            "failed": sorted(
                (
                    (row.file_id, place, ALPHABET[row.content[place - 1]].codes, by)
                    for row in self.ledger.values() if row.state != "ignored"
                    for place, by in row.failed.items()
                ), key=repr,
            ),
            "history": sorted(self.history),
        }  # fmt: skip


def _ledger_row(row: Row) -> tuple[object, ...]:
    counted = tuple(row.counts.items()) if row.state in COUNTED else ()
    links = (row.duplicate_of, row.replaced_by, row.redrive_of)
    return row.file_id, row.state, *links, counted, row.duplicates if row.state == "loaded" else None


REMEMBERED = ("undo", "replace", "force", "release", "ignore", "retry", "redrive")
COUNTED = ("loaded", "rejected")  # SPEC says nothing of the numbers of files that are not in the warehouse


def _shown(fact: Fact) -> tuple[object, ...]:
    return fact.kind, fact.person, fact.at, fact.event, fact.properties


def components(facts: Iterable[Fact]) -> dict[str, str]:
    """Of each key the smallest that aliases lead to."""
    persons = {key: key for fact in facts for key in (fact.person, fact.other) if key}
    pairs = [(fact.person, fact.other) for fact in facts if fact.other and IGNORED not in (fact.person, fact.other)]
    for _ in persons:
        for one, other in pairs:
            persons[one] = persons[other] = min(persons[one], persons[other])
    return persons


def _people(facts: list[tuple[Any, Fact]], persons: dict[str, str]) -> dict[str, object]:
    people: dict[str, object] = {}
    for person in set(persons.values()):
        ours = sorted(
            ((fact.at, position, fact) for position, fact in facts if persons[fact.person] == person),
            key=lambda one: one[:2],
        )
        properties: dict[str, tuple[str, object]] = {}
        for _, _, fact in ours:
            properties |= {name.lower(): (name, value) for name, value in fact.properties}
        times = [at for at, _, _ in ours]
        seen = (times[0], times[-1]) if times else (None, None)
        named = sorted(key for key, of in persons.items() if of == person)
        people[person] = (named, *seen, dict(properties.values()))
    return people


def warehouse_shows(path: Path) -> dict[str, Any]:
    """The same of the warehouse, over a connection of somebody else's."""
    with duckdb.connect(path, read_only=True, config={"threads": 1}) as connection:  # quicker for so few rows

        def fetch(table: str) -> list[dict[str, Any]]:
            rows: list[dict[str, Any]] = connection.sql(f"SELECT * FROM {table}").to_arrow_table().to_pylist()
            return rows

        return engine_shows(fetch)


def engine_shows(fetch: Callable[[str], list[dict[str, Any]]]) -> dict[str, Any]:
    """All of it, of an engine that has the views."""
    keys = {row["identity"]: row["identity_key"] for row in fetch("identities")}
    return tables_show(fetch) | {
        "people": {
            row["person_id"]: (
                sorted(keys[name] for name in row["identities"]),
                _since_start(row["first_seen"]), _since_start(row["last_seen"]), json.loads(row["properties"]),
            )
            for row in fetch("people")
        },
    }  # fmt: skip


def tables_show(fetch: Callable[[str], list[dict[str, Any]]]) -> dict[str, Any]:
    """What does not ask for an engine's views of properties."""

    def shown(row: dict[str, Any]) -> tuple[object, ...]:
        properties = tuple(sorted(json.loads(row["properties"]).items()))
        return row["kind"], row["person_key"], _since_start(row["occurred_at"]), row["event_key"], properties

    names = ["lines", "blank", "items", "failed", "records", "sets", "aliases"]
    commands = fetch("commands")
    person_key = {row["person"]: row["person_key"] for row in commands}
    ledger = fetch("ledger")
    state = {row["file_id"]: row["state"] for row in ledger}
    return {
        "ledger": sorted(
            (
                (
                    row["file_id"], row["state"], row["duplicate_of"], row["replaced_by"], row["redrive_of"],
                    tuple((name, row[name]) for name in names) if row["state"] in COUNTED else (),
                    row["duplicates"] if row["state"] == "loaded" else None,
                )
                for row in ledger
            ), key=repr,
        ),
        "commands": sorted(
            ((row["file_id"], row["line"], *shown(row), row["alias_key"]) for row in commands), key=repr
        ),
        "events": sorted(
            (
                (
                    row["person_id"], row["line"],
                    *shown(row | {"kind": "record", "person_key": person_key[row["person"]]}),
                )
                for row in fetch("events")
            ), key=repr,
        ),
        "identities": {row["identity_key"]: row["person_id"] for row in fetch("identities")},
        "failed": sorted(
            (
                (row["file_id"], row["line"], tuple(row["codes"]), row["redriven_by"])
                for row in fetch("failed_lines") if state[row["file_id"]] != "ignored"
            ), key=repr,
        ),
        "history": sorted(
            (row["file_id"], row["action"]) for row in fetch("history") if row["action"] in REMEMBERED
        ),
    }  # fmt: skip


def _since_start(at: Any) -> float | None:
    return None if at is None else at.timestamp() - START


# --- the moves -------------------------------------------------------------------------------------------------------

SOURCES = (
    Source(name="versions", bucket="bucket", prefix="versions/"),
    Source(name="replaces", bucket="bucket", prefix="replaces/", changed_file="replace", same_bytes="load",
           max_failed_lines=1),
    Source(name="holds", bucket="bucket", prefix="holds/", changed_file="hold", same_bytes="load"),
    Source(name="limits", bucket="bucket", prefix="limits/", max_failed_lines=1),
)  # fmt: skip
KEYS = {source.name: tuple(f"{source.prefix}{n}.json" for n in (1, 2, 3)) for source in SOURCES}
NOTE = Audit("model", "because")

START_WITH = {
    "versions/1": ("ann x", "nested", "dan=cat", "not json"),
    "versions/2": ("Ann X", "ann pro", "bob x", "BOB=ann"),
    "replaces/1": ("ann x", "bob=cat", "bob free", "no time"),  # joins two who are several each
    "replaces/2": ("bob free",),
    "replaces/3": ("ann x", "no time"),
    "holds/1": ("bob x", "nested", "no alias"),
    "holds/2": ("ann=anonymous", "anonymous=dan"),
    "limits/1": ("no time", "nested", "no alias", "cat basic"),  # rejected, while what is nested is right
    "limits/2": ("not json either", "dan y", "not json", "eve=ann, x"),  # rejected
}
THEN = {
    "versions/3": START_WITH["versions/2"],  # a copy
    "limits/3": START_WITH["versions/2"],  # none: of another source
    "replaces/2": ("not json", "dan=cat", "nested"),  # rejected, so that what was there stays
    "replaces/3": ("dan y",),
    "holds/1": ("ann pro", "bob=cat"),  # held
}
FLATTENED = "limits"  # what is nested is right when the first files of this source come, and wrong from then on
MENDED = [("versions/1", [2, 4]), ("replaces/1", [4]), ("holds/1", [3]), ("limits/2", [1]), ("limits/2", [3])]  # lines
UNDONE = "holds/1"  # what was redriven of it

names_of_sources = st.sampled_from([source.name for source in SOURCES])
bodies = st.lists(st.sampled_from(list(ALPHABET)), min_size=1, max_size=4).map(tuple)
any_of = st.integers(0, 1 << 16)


class Life(RuleBasedStateMachine):
    """A world and its model, and whatever may happen to both."""

    steps = 0  # of all runs
    made: dict[str, int] = {}  # noqa: RUF012 - shared on purpose: what was done how often, over all runs
    folder: Path
    begun: "Life | None" = None  # where each goes on from

    def __init__(self) -> None:
        super().__init__()
        self.world = World(self.warehouse(), SOURCES)
        self.model = Model({source.name: source for source in SOURCES})
        self.sent: dict[object, str] = {}  # file_id of what was redriven
        if self.begun:
            before = self.begun.world
            self.world = replace(before, warehouse=self.world.warehouse, store=deepcopy(before.store))
            self.model, self.sent = deepcopy(self.begun.model), dict(self.begun.sent)

    def warehouse(self) -> Warehouse:
        self.path = self.folder / "life.duckdb"
        if self.begun:
            shutil.copy(self.begun.path, self.path)
        return warehouse_at(self.path)

    def shows(self) -> dict[str, Any]:
        return warehouse_shows(self.path)

    def disturbed(self, step: int, after: bool) -> AbstractContextManager[object]:
        """Until its end, whoever does something with the warehouse is stopped at this step."""
        return Steps(step, KeyboardInterrupt(), after).taken()

    def teardown(self) -> None:
        self.path.unlink()

    def agree(self, move: str, *, acted: bool = True) -> None:
        Life.steps += 1
        Life.made[move] = Life.made.get(move, 0) + acted
        expected, found = self.model.seen(), self.shows()
        for view in found:
            assert found[view] == expected[view], f"{view} after {move}"

    def chosen(self, number: int, rows: Sequence[Row]) -> Row:
        return rows[number % len(rows)]

    def preferred(self, *states: str) -> list[Row]:
        """Every file of the ledger; most of the time one in one of these states."""
        everybody = list(self.model.ledger.values())
        return everybody + 4 * [row for row in everybody if row.state in states]

    def entangled(self) -> list[Row]:
        """The files with redrives, and those redrives."""
        return [row for one in self.model.ledger.values() if (its := self.model.redrives(one)) for row in (one, *its)]

    def rows(self, files: Iterable[Row]) -> list[dict[str, Any]]:
        return [self.world.warehouse.find_file(file.file_id) for file in files]

    # --- the landing

    def begin(self) -> None:
        """What many a move needs: lines that failed, mended ones, a copy, a held and some rejected files."""
        for files in (START_WITH, THEN):
            for key, content in files.items():
                self._put(key.partition("/")[0], f"{key}.json", content)
            for source in dict.fromkeys(key.partition("/")[0] for key in files):
                self._rules_change(files is START_WITH and source == FLATTENED)
                self._load(self.world.pipeline.discover(source).pending, "new")
        for key, places in MENDED:
            row = next(row for row in self.model.ledger.values() if row.key == f"{key}.json")
            mended = {place: ALPHABET[row.content[place - 1]].mended for place in places}
            self._redrive(row, mended, fixed(mended))
            if key == UNDONE:
                self._undo(self.model.redrives(row))

    @rule(source=names_of_sources, key=st.integers(0, 2), content=bodies, poll=st.booleans())
    def put(self, source: str, key: int, content: tuple[str, ...], poll: bool) -> None:
        self._put(source, KEYS[source][key], content)
        if poll:
            self._poll(source)

    @rule(number=any_of, content=bodies)
    def put_another_version(self, number: int, content: tuple[str, ...]) -> None:
        """Of what is in the warehouse, itself or mended. What replaces others leads to most."""
        there = [row for row in self.model.ledger.values() if row.state == "loaded"]
        there += 2 * [row for row in there if row.source == "replaces"]
        if there:
            row = self.chosen(number, there)
            self._put(row.source, row.key, content)
            self._poll(row.source)

    @rule(number=any_of, key=st.none() | st.integers(0, 2))
    def put_what_was_there_before(self, number: int, key: int | None) -> None:
        """A, B, A; and copies."""
        row = self.chosen(number, [row for row in self.preferred("replaced") if row.redrive_of is None])
        self._put_again(row, row.key if key is None else KEYS[row.source][key])

    def _put_again(self, row: Row, key: str) -> None:
        self._put(row.source, key, row.content)
        self._poll(row.source)

    def _put(self, source: str, key: str, content: tuple[str, ...]) -> None:
        body = b"".join(ALPHABET[name].text + b"\n" for name in content)
        file = self.world.put(key, body=body, source=source)
        self.model.landing[source, key] = Object(file.file_id, content, file.last_modified.timestamp())

    # --- loads

    @rule(source=names_of_sources)
    def poll(self, source: str) -> None:
        self._poll(source)

    def _poll(self, source: str) -> None:
        pending = self.model.pending(source)
        found = self.world.pipeline.discover(source).pending
        assert [file.key for file in found] == pending
        self._load(found, "new")
        self.agree("poll", acted=bool(pending))

    def _load(self, files: list[SourceFile], intent: Any) -> list[FileResult]:
        results = self.world.pipeline.load(files, intent=intent, note=NOTE)
        self._model_load([self.model.file(file.source, file.key) for file in files], intent)
        for file, result in zip(files, results, strict=True):
            row = self.model.ledger[file.file_id]
            assert (result.file_id, result.state) == (row.file_id, row.state)
        return results

    def _model_load(self, files: Sequence[Row], intent: str) -> None:
        self.model.loaded_before = self.model.entered
        self.model.load(files, intent)

    @rule(number=any_of)
    @precondition(lambda self: self.model.landing)
    def load_by_name(self, number: int) -> None:
        row = self.chosen(number, [row for row in self.preferred("undone", "ignored") if not row.redrive_of])
        source, key = row.source, row.key
        address = f"s3://bucket/{key}"
        known = self.model.ledger.get(self.model.landing[source, key].file_id)
        if known and known.state == "retrying":
            return
        self._load(self.world.pipeline.locate(address, source), "again")
        self.agree("load by name")

    @rule(source=names_of_sources, content=bodies)
    def cannot_be_read(self, source: str, content: tuple[str, ...]) -> None:
        """Then it waits, holds up nobody, and is taken by a person's word once it can be read."""
        key = KEYS[source][0]
        self._put(source, key, content)
        known = self.model.ledger.get(self.model.landing[source, key].file_id)
        if known is not None:
            self.agree("put")
            return
        self.world.store.broken[key] = "It broke off."
        self.model.unreadable.add(key)
        self._poll(source)
        self.world.store.broken.clear()
        self.model.unreadable.clear()
        assert self.world.pipeline.discover(source).pending == []
        file = self.model.file(source, key)
        (result,) = actions.act(self.world.pipeline, "retry", self.rows([file]), [], NOTE)
        self.model.history.append((file.file_id, "retry"))
        self._model_load([file], "new")
        assert result.state == self.model.ledger[file.file_id].state
        self.agree("retry")

    @rule(number=any_of, flatten=st.booleans())
    def force(self, number: int, flatten: bool) -> None:
        everybody = list(self.model.ledger.values()) + 4 * [row for row in self.entangled() if not row.redrive_of]
        row = self.chosen(number, everybody + 2 * [row for row in everybody if self.model.is_current(row)])
        self._force(row, flatten)

    def _force(self, row: Row, flatten: bool) -> None:
        self._rules_change(flatten)
        (result,) = actions.act(self.world.pipeline, "force", self.rows([row]), [], NOTE)
        acts = row.redrive_of is None and self.model.is_current(row)
        if row.redrive_of:
            assert result.error
        elif acts:
            assert result.state == "loaded"
            self._model_load([self.model.again(row)], "force")
        self.agree("force", acted=acts)

    @rule(number=any_of)
    @precondition(lambda self: any(row.state == "held" for row in self.model.ledger.values()))
    def release(self, number: int) -> None:
        row = self.chosen(number, [row for row in self.model.ledger.values() if row.state == "held"])
        actions.act(self.world.pipeline, "release", self.rows([row]), [], NOTE)
        self._model_load([Row(row.file_id, row.source, row.key, row.content, row.arrived)], "release")
        self.agree("release", acted=self.model.is_current(row))

    # --- actions

    @rule(numbers=st.lists(any_of, min_size=1, max_size=3))
    @precondition(lambda self: self.model.ledger)
    def undo(self, numbers: list[int]) -> None:
        everybody = self.preferred("loaded", "rejected") + 6 * self.entangled()
        rows = list({row.file_id: row for row in (self.chosen(number, everybody) for number in numbers)}.values())
        self._undo(rows)

    def _undo(self, rows: Sequence[Row]) -> None:
        done = {row.file_id: row.state in ("loaded", "rejected") for row in rows}
        results = actions.act(self.world.pipeline, "undo", self.rows(rows), [], NOTE)
        for row, result in zip(rows, results, strict=True):
            if row.state in ("loaded", "rejected"):
                copies = {
                    one.file_id for one in self.model.ledger.values()
                    if one.state == "duplicate" and one.duplicate_of == row.file_id
                }  # fmt: skip
                assert (result.state, result.error, set(result.duplicates)) == ("undone", None, copies)
            else:
                assert result.error
            self.model.undo(row)
        self.agree("undo", acted=any(done.values()))

    @rule(number=any_of)
    @precondition(lambda self: self.model.ledger)
    def ignore(self, number: int) -> None:
        row = self.chosen(number, [row for row in self.model.ledger.values() if row.redrive_of is None])
        if row.state == "replaced" or self.model.redrives(row):
            return
        (result,) = actions.act(self.world.pipeline, "ignore", self.rows([row]), [], NOTE)
        takes = row.state in ("held", "rejected", "duplicate", "undone")
        assert bool(result.error) != takes
        if takes:
            row.state, row.commands, row.failed = "ignored", [], {}
            self.model.history.append((row.file_id, "ignore"))
        self.agree("ignore", acted=takes)

    @rule(number=any_of)
    @precondition(lambda self: self.model.landing)
    def ignore_what_is_pending(self, number: int) -> None:
        pending = [(source, key) for source in KEYS for key in self.model.pending(source)]
        pending = [(s, key) for s, key in pending if not any(row.key == key for row in self.model.ledger.values())]
        if not pending:
            return
        source, key = pending[number % len(pending)]
        rows, new = actions.chosen(self.world.pipeline, [f"s3://bucket/{key}"], "ignore")
        actions.act(self.world.pipeline, "ignore", rows, new, NOTE)
        file = self.model.file(source, key)
        self.model._enter(file, "ignored")
        self.model.history.append((file.file_id, "ignore"))
        self.agree("ignore a pending one")

    # --- mended lines

    def _rules_change(self, flatten: bool) -> None:
        nested: Any = "flatten" if flatten else "fail"
        self.world.sources = tuple(
            Source(**{name: getattr(one, name) for name in one.__dataclass_fields__} | {"nested": nested})
            for one in SOURCES
        )
        self.model.flatten = flatten

    @rule(
        number=any_of,
        how=st.lists(st.sampled_from(["right", "right", "wrong", "blank", "left out"]), min_size=4, max_size=4),
    )
    @precondition(lambda self: self.model.open())
    def redrive_mended(self, number: int, how: list[str]) -> None:
        row = self.chosen(number, self.model.open())
        mended: dict[Place, str] = {}
        for place in row.failed:
            if how[place - 1] == "right":
                mended[place] = ALPHABET[row.content[place - 1]].mended
            elif how[place - 1] != "left out":
                mended[place] = {"wrong": "not json either", "blank": "blank"}[how[place - 1]]
        self._redrive(row, mended, fixed(mended))
        if number % 2:
            self._redrive(row, mended, fixed(mended))  # changes nothing

    @rule(number=any_of, flatten=st.booleans())
    @precondition(lambda self: self.model.open())
    def redrive_by_the_rules_of_today(self, number: int, flatten: bool) -> None:
        self._rules_change(flatten)
        row = self.chosen(number, self.model.open())
        self._redrive(row, {place: row.content[place - 1] for place in row.open_lines}, None)

    def _redrive_last(self, row: Row) -> None:
        place = row.open_lines[-1]
        mended = {place: ALPHABET[row.content[place - 1]].mended}
        self._redrive(row, mended, fixed(mended))

    def _redrive_all(self, row: Row) -> None:
        """Then what is open after that, and all of it again."""
        for _ in range(2):
            mended = {place: ALPHABET[row.content[place - 1]].mended for place in row.open_lines}
            self._redrive(row, mended, fixed(mended))
        if redrives := self.model.redrives(row):
            self._undo(redrives[:1])
            self._redrive(row, mended, fixed(mended))

    def _redrive(self, row: Row, mended: dict[Place, str], text: bytes | None) -> None:
        wanted = {place: name for place, name in mended.items() if place in row.open_lines}
        right = self.model.right(wanted)
        whole = self.model.is_redriven_whole(row)
        if text == b"":  # an empty file is never what somebody means
            with pytest.raises(IngestError):
                redrive(self.world.pipeline, row.file_id, text, NOTE)
            self.agree("redrive", acted=False)
            return
        if whole and not self.model.is_current(row):
            with suppress(IngestError):
                assert redrive(self.world.pipeline, row.file_id, text, NOTE).result is None
            self.agree("redrive", acted=False)
            return
        outcome = redrive(self.world.pipeline, row.file_id, text, NOTE)
        still_wrong = wanted.keys() - right.keys()
        if whole:
            wrong, loads = self.model.wrong(row, right), self.model.is_within_limits(row, right)
            still_wrong = wrong if loads else wrong | (still_wrong if text is not None else set())
        else:
            loads = bool(right)
        assert (outcome.result is not None) == loads
        assert outcome.already == (0 if text is None else len(mended) - len(wanted))
        assert sorted(one["line"] for one in outcome.refused) == sorted(still_wrong)
        before = len(row.open_lines)
        if outcome.result:
            assert outcome.result.state == "loaded"
            self._is_its_own_file(row, {} if whole and text is None else right, outcome)
            self.model.redrive(row, right, outcome.result.file_id)
            if whole:  # SPEC does not say how its lines are counted
                redriven = self.model.ledger[outcome.result.file_id]
                (entry,) = self.rows([redriven])
                redriven.counts |= {name: entry[name] for name in ("lines", "blank", "items")}
        assert outcome.open == len(row.open_lines)
        assert outcome.fixed == len(
            [place for place, by in row.failed.items() if outcome.result and by == outcome.result.file_id]
        )
        assert loads or outcome.open == before
        self.agree("redrive", acted=loads)

    def _is_its_own_file(self, row: Row, mended: dict[Place, str], outcome: Outcome) -> None:
        """The same mended lines are the same file, others another."""
        assert outcome.result
        what = (row.file_id, tuple(sorted(mended.items())))
        assert self.sent.setdefault(what, outcome.result.file_id) == outcome.result.file_id
        assert list(self.sent.values()).count(outcome.result.file_id) == 1

    # --- crashes

    @rule(what=st.sampled_from(["poll", "undo", "force"]), number=any_of, content=bodies, step=st.integers(1, 60),
          after=st.booleans())  # fmt: skip
    def crash(self, what: str, number: int, content: tuple[str, ...], step: int, after: bool) -> None:
        if what == "poll":
            source = SOURCES[number % len(SOURCES)].name
            self._put(source, KEYS[source][number % 2], content)
            files = self.world.pipeline.discover(source).pending
            modelled = [self.model.file(source, file.key) for file in files]
            self._crash(lambda: self.world.pipeline.load(files), lambda: self._model_load(modelled, "new"), step, after)
            self._poll(source)
            return
        row = self.chosen(number, self.preferred("loaded", "rejected"))
        if what == "undo":
            self._crash(
                lambda: self.world.warehouse.undo([row.file_id], NOTE),
                lambda: self.model.undo(self.model.ledger[row.file_id]), step, after,
            )  # fmt: skip
        elif row.redrive_of is None and self.model.is_current(row):
            rows = self.rows([row])
            again = self.model.again(row)
            self._crash(
                lambda: actions.act(self.world.pipeline, "force", rows, [], NOTE),
                lambda: self._model_load([again], "force"), step, after,
            )  # fmt: skip

    def _crash(self, act: Callable[[], object], modelled: Callable[[], None], step: int, after: bool) -> None:
        """It is as it was, or done."""
        before = deepcopy(self.model)
        with self.disturbed(step, after), suppress(KeyboardInterrupt, TransientError):
            act()
        found = self.shows()
        modelled()
        if any(found[view] != self.model.seen()[view] for view in found):
            assert all(found[view] == before.seen()[view] for view in found)
            self.model = before
        self.agree("crash")


class PostgresLife(Life):
    """The same on a server: each life has a database of its own."""

    server: postgres.Server
    url: str

    def warehouse(self) -> Warehouse:
        self.url = self.server.new(self.begun.url if isinstance(self.begun, PostgresLife) else None)
        return postgres.warehouse(self.url)

    def shows(self) -> dict[str, Any]:
        with postgres.warehouse(self.url).reading() as session:
            return engine_shows(lambda table: session.fetch(f"SELECT * FROM {table}"))

    def disturbed(self, step: int, after: bool) -> AbstractContextManager[object]:
        return ServerSteps(step, KeyboardInterrupt(), after).taken()

    def teardown(self) -> None:
        self.server.drop(self.url)


class MemoryLife(Life):
    """The same on dictionaries, where thousands of lives take the time of one."""

    def warehouse(self) -> Warehouse:
        begun = self.begun.world.warehouse if self.begun else None
        self.memory = MemoryWarehouse(begun.tables if isinstance(begun, MemoryWarehouse) else None)
        return cast("Warehouse", self.memory)  # as much of it as is asked for here

    def shows(self) -> dict[str, Any]:
        return tables_show(self.memory.rows)

    @contextmanager
    def disturbed(self, step: int, after: bool) -> Iterator[None]:  # noqa: ARG002 - the commit has two steps of its own
        self.memory.steps, self.memory.fail_at, self.memory.error = [], step, KeyboardInterrupt()
        yield
        self.memory.fail_at = 0

    def teardown(self) -> None:
        pass


def move_once(begun: Life) -> None:
    """What chance seldom comes upon: a file with redrives undone or put anew, one line mended, and A, B, A."""
    entangled = {row.file_id for row in begun.entangled()}
    for file in begun.model.ledger.values():
        moves: list[Callable[[Life, Row], None]] = []
        if file.file_id in entangled:
            moves.append(lambda life, row: life._undo([row]))
        if file.file_id in entangled and file.redrive_of is None:
            moves.append(lambda life, row: life._force(row, flatten=True))
        if file in begun.model.open():
            moves.append(lambda life, row: life._redrive_last(row))
            moves.append(lambda life, row: life._redrive_all(row))
        if file.state == "replaced":
            moves.append(lambda life, row: life._put_again(row, row.key))
        for move in moves:
            life = type(begun)()
            move(life, life.model.ledger[file.file_id])
            life.teardown()


def fixed(mended: dict[Place, str]) -> bytes:
    """Any order will do."""
    return b"".join(b"%d\t%b\n" % (place, ALPHABET[name].text) for place, name in reversed(mended.items()))


def run(folder: Path, examples: int, steps: int, *, same_each_time: bool, of: type[Life] = Life) -> None:
    Life.folder, Life.begun, Life.steps, Life.made = folder / "begin", None, 0, {}
    Life.folder.mkdir()
    begun = of()
    if of is Life:  # a copy has the tables from the beginning
        with begun.world.warehouse.writing():  # type: ignore[attr-defined]
            pass
    begun.begin()
    Life.folder, Life.begun = folder, begun
    move_once(begun)
    phases = [Phase.explicit, Phase.reuse, Phase.generate, *[Phase.shrink] * (not same_each_time)]
    run_state_machine_as_test(
        of,
        settings=settings(
            max_examples=examples, stateful_step_count=steps, deadline=None, derandomize=same_each_time,
            database=None, suppress_health_check=list(HealthCheck), phases=phases,
        ),
    )  # fmt: skip
    print(f"{Life.steps} steps: {', '.join(f'{count} {move}' for move, count in sorted(Life.made.items()))}")
    assert Life.steps > examples


@pytest.mark.slow
def test_the_warehouse_is_what_the_model_says(tmp_path: Path) -> None:
    run(tmp_path, 6, 5, same_each_time=True)


@pytest.mark.slow
def test_a_server_is_what_the_model_says(tmp_path: Path, postgres_server: postgres.Server) -> None:
    PostgresLife.server = postgres_server
    run(tmp_path, 6, 5, same_each_time=True, of=PostgresLife)


def test_what_is_planned_is_what_the_model_says(tmp_path: Path) -> None:
    """Without a database: by hand, thousands."""
    run(tmp_path, 40, 8, same_each_time=True, of=MemoryLife)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_warehouse_is_what_the_model_says_for_long(tmp_path: Path) -> None:
    run(tmp_path, 25, 16, same_each_time=True)  # by hand, 150 × 30 and never the same: three quarters of an hour
