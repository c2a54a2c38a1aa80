"""Histories of a small world, each drawn from one number: the same number gives the same history, step by step.

World:   a store in which objects come, change, break and vanish; a clock that moves when it is told to; an engine in
         memory. Loaders poll and people act, several at a time: at each look at the store, each read of the engine and
         each commit, another one may go on. So a commit may find that somebody was quicker, fail before it is done or
         after it, and whoever was at work may be gone at any step.
Real:    pipeline, actions, redrive, `Warehouse` and plans. Bodies are judged once, and then known.
Checked: at every commit what SPEC 4 promises; and once all is calm, that what should be loaded is.
"""

import random
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from typing import Any, cast

from greenlet import getcurrent, greenlet

from ingest import actions
from ingest.core.lifecycle import ACTIONS, KEEPS_LINES, LONGEST_DELAY, TAKES, Action
from ingest.core.source import SourceFile
from ingest.errors import IngestError
from ingest.plans.changes import LedgerRow, NotWrittenError
from ingest.ports import Audit, Mark, Warehouse
from ingest.redrive import redrive
from tests.simulator.promises import Promises, named
from tests.simulator.world import (
    BEGIN,
    LINES,
    NOTE,
    SOURCES,
    WORDS,
    Clock,
    Engine,
    Judged,
    Store,
    bytes_of,
    scratch,
    settings_of,
    simulated,
)

TURNS = 40  # of a history; in each somebody begins, goes on or is gone, or the world changes
AT_ONCE = 3  # loaders and people


class Gone(BaseException):
    """A process is killed."""


class History:
    """One world, from its begin until all is calm."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.trace: list[str] = []
        self.store = Store()
        self.store.step = self.step
        self.promises = Promises(self.tell)
        self.engine = Engine(self.step, self.promises.committed)
        warehouse = cast("Warehouse", self.engine)  # as much of it as is asked for here
        self.pipelines = {
            nested: Judged(settings_of(nested), lambda _: self.store, warehouse) for nested in ("fail", "flatten")
        }
        self.nested = "fail"
        # Few, so that they meet: a key comes back to its bytes, and those come under other keys.
        self.sources = self.chance.sample([*SOURCES.values()], 2)
        self.keys = [f"{source.prefix}{name}.json" for source in self.sources for name in "12"]
        self.words = self.chance.sample(WORDS, 5)
        self.actors: list[greenlet] = []
        self.names: dict[greenlet, str] = {}
        self.is_calm = False
        self.puts = 0
        Clock.moment = BEGIN

    @property
    def pipeline(self) -> Judged:
        return self.pipelines[self.nested]

    def tell(self, what: str) -> None:
        self.trace.append(f"{Clock.moment - BEGIN} {self.names.get(getcurrent(), 'world')}: {what}")

    def run(self) -> None:
        for key in self.keys:
            self.put(key, self.chance.choice(self.words))
        for _ in range(TURNS):
            self.turn()
        while self.actors:
            self.go_on(self.actors[0])
        self.calm()

    def turn(self) -> None:
        draw = self.chance.random()
        if draw < 0.35:
            self.world_moves()
        elif self.actors and draw < 0.37:
            self.go_on(self.chance.choice(self.actors), Gone())
        elif self.actors and (draw < 0.75 or len(self.actors) == AT_ONCE):
            self.go_on(self.chance.choice(self.actors))
        else:
            self.begin()

    # --- who is at work

    def begin(self) -> None:
        what, task = self.a_poll() if self.chance.random() < 0.45 else self.a_deed()
        actor = greenlet(lambda: self.work(task))
        self.names[actor] = f"actor {len(self.names) + 1}"
        self.actors.append(actor)
        self.tell(f"{self.names[actor]} begins: {what}")
        self.go_on(actor)

    def go_on(self, actor: greenlet, error: BaseException | None = None) -> None:
        if error and actor:
            actor.throw(error)
        else:
            actor.switch()
        if actor.dead:
            self.actors.remove(actor)

    def work(self, task: Callable[[], object]) -> None:
        try:
            told = task()
            self.tell(f"ends: {told}")
        except Gone:
            self.tell("is killed")
        except IngestError as error:
            self.tell(f"ends: {type(error).__name__}: {str(error).replace(str(scratch()), '')}")

    def step(self, name: str) -> None:
        """Whoever is at work looks at the world or changes it: others may go on, or it fails."""
        if self.is_calm or getcurrent().parent is None:
            return
        draw = self.chance.random()
        if draw < 0.002:
            self.tell(f"is at {name}")
            raise Gone
        if draw < 0.01 and name not in ("list", "read"):
            self.tell(f"the engine fails at {name}")
            is_for_all = name == "after the commit" or draw < 0.005
            raise NotWrittenError(
                "It failed.",
                reason="it failed",
                is_disk=draw < 0.006,
                is_for_all=is_for_all,
                is_of_the_world=draw < 0.008,
            )
        if draw < (0.6 if name == "before the commit" else 0.12):
            cast("greenlet", getcurrent().parent).switch()

    # --- what they do

    def a_poll(self) -> tuple[str, Callable[[], object]]:
        source = self.chance.choice(self.sources).name
        return f"poll {source}", lambda: self.poll(source)

    def poll(self, source: str) -> object:
        pipeline = self.pipeline
        pipeline.begin_poll(source)
        found = pipeline.discover(source, NOTE)
        return self.shown(pipeline.load(found.pending, note=Audit("ingest")))

    def shown(self, results: Sequence[Any]) -> str:
        return ", ".join(f"{one.key} {one.state}{' !' if one.error else ''}" for one in results) or "nothing"

    def a_deed(self) -> tuple[str, Callable[[], object]]:
        tables = self.engine.tables
        rows = list(tables.ledger.values())
        if not rows or self.chance.random() < 0.1:
            there = [file for file, _ in self.store.objects.values() if file.key in self.keys]
            if not there:
                return self.a_poll()
            file = self.chance.choice(there)
            if self.chance.random() < 0.2:
                return f"ignore {file.uri}", lambda: self.act("ignore", [file.uri])
            return f"load {file.uri}", lambda: self.load_by_name(file.uri)
        fixable = [one for one in rows if one.state in KEEPS_LINES and tables.failed.get(one.file_no)]
        if fixable and self.chance.random() < 0.5:
            failed = self.chance.choice(fixable)
            sent = self.fixed(failed) if self.chance.random() < 0.75 else ""
            text = b"".join(b"%b\t%b" % (one[:1].encode(), LINES[one[1]]) for one in sent.split()) or None
            return f"redrive {named(failed)} {sent}", lambda: self.redrive(failed, text)
        if self.chance.random() < 0.1:
            row = self.chance.choice(rows)
            return f"archive {named(row)}", lambda: self.archive(row)
        action = self.chance.choice(ACTIONS)
        may_be = [one for one in rows if one.state in TAKES[action]]
        some = may_be if may_be and self.chance.random() < 0.9 else rows
        ids = [self.chance.choice(some).file_id for _ in range(self.chance.choice((1, 1, 2)))]
        told = " ".join(named(tables.ledger[one]) for one in ids)
        return f"{action} {told}", lambda: self.act(action, ids)

    def act(self, action: Action, names: Sequence[str]) -> object:
        rows, new = actions.chosen(self.pipeline, names, action)
        return self.shown(actions.act(self.pipeline, action, rows, new, NOTE))

    def load_by_name(self, uri: str) -> object:
        pipeline = self.pipeline
        return self.shown(pipeline.load(pipeline.locate(uri), intent="again", note=replace(NOTE, is_named=True)))

    def redrive(self, row: LedgerRow, text: bytes | None) -> object:
        outcome = redrive(self.pipeline, row.file_id, text, NOTE)
        return f"{outcome.fixed} fixed, {outcome.open} open, {outcome.error}"

    def fixed(self, row: LedgerRow) -> str:
        """Some failed lines, most of them right: each its number and a letter."""
        failed = [line for line, _ in self.engine.tables.failed[row.file_no] if self.chance.random() < 0.8]
        return " ".join(f"{line}{self.chance.choice('ffffgg-x')}" for line in failed)

    def archive(self, row: LedgerRow) -> object:
        """As it is done after a load, in its three steps."""
        if row.state not in ("loaded", "duplicate") or row.redrive_of:
            return "nothing"
        key = self.store.copy(row.file, [f"completed_imports/{row.key}", f"completed_imports/{row.file_id}"], "")
        self.engine.mark([Mark(row.file_id, archived_to=key)], NOTE)
        self.store.remove(self.store.objects.get((row.bucket, row.key), (row.file, b""))[0], "")
        self.engine.mark([Mark(row.file_id, deleted_at=Clock.moment)], NOTE)
        return "done"

    # --- what happens beside them

    def world_moves(self) -> None:
        draw = self.chance.random()
        key = self.chance.choice(self.keys)
        there = ("bucket", key) in self.store.objects
        if draw < 0.6:
            self.put(key, self.chance.choice(self.words))
        elif draw < 0.7 and there:
            del self.store.objects["bucket", key]
            self.tell(f"{key} vanishes")
        elif draw < 0.76 and there:  # versions are switched on, or off: the same object, seen with other eyes
            file, body = self.store.objects["bucket", key]
            file = self.store.put(replace(file, version_id=None if file.version_id else f"v{self.puts}"), body)
            self.tell(f"{key} is seen as {file.version_id}")
        elif draw < 0.84:
            if self.store.broken.pop(key, None) is None:
                self.store.broken[key] = "It broke off."
            self.tell(f"{key} {'breaks' if key in self.store.broken else 'can be read'}")
        elif draw < 0.9:
            self.nested = "flatten" if self.nested == "fail" else "fail"
            self.tell(f"nested values: {self.nested}")
        else:
            Clock.moment += timedelta(seconds=self.chance.choice((1, 61, 3600, 86_400)))
            self.tell("it is later")

    def put(self, key: str, word: str) -> None:
        """The same bytes may come in other parts, whose ETag is another."""
        self.puts += 1
        body = bytes_of(word)
        etag = sha256(body).hexdigest()[:16] + self.chance.choice(("", "", "-2"))
        at = Clock.moment + timedelta(microseconds=self.puts)
        now, _ = self.store.objects.get(("bucket", key), (None, b""))
        version = f"v{self.puts}" if now and now.version_id else None
        file = SourceFile(
            bucket="bucket", key=key, etag=etag, last_modified=at, size_bytes=len(body), version_id=version
        )
        self.store.put(file, body)
        self.tell(f"{key}@{etag[:8]}{etag[16:]} comes: {word}")

    def calm(self) -> None:
        """Nothing fails any more, and all who load do so again, until there is nothing to do."""
        self.is_calm = True
        self.store.broken.clear()
        for _ in range(3):
            Clock.moment += 2 * LONGEST_DELAY
            for source in self.sources:
                self.tell(f"poll {source.name}: {self.poll(source.name)}")
        tables = self.engine.tables
        for source in self.sources:
            listed = [file.for_source(source.name, "kissmetrics") for file in self.store.list("bucket", source.prefix)]
            self.promises.is_calm(self.pipeline, tables, source, self.engine.recognise(listed))
        assert self.engine.tables is tables, "there was nothing to do"


def trace_of(seed: int) -> list[str]:
    """What happens, line by line. The error of a history that fails carries it."""
    with simulated():
        history = History(seed)
        try:
            history.run()
        except Exception as error:
            error.add_note("\n".join([*history.trace, f"seed {seed} fails: {type(error).__name__}: {error}"]))
            raise
        finally:
            for actor in history.actors:
                actor.throw()
    return history.trace


def failure_of(seed: int) -> str | None:
    """What is printed of a history that goes wrong: where that was seen, and what had happened."""
    try:
        trace_of(seed)
    except Exception as error:
        return "".join(traceback.format_exception(error))
    return None
