"""What SPEC 4 promises, of what is committed: row by row as it changes, all of it at any time, and once all is calm."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ingest.core.lifecycle import KEEPS_LINES, LONGEST_DELAY
from ingest.core.source import SourceFile
from ingest.pipeline import Pipeline
from ingest.plans.changes import LedgerRow
from ingest.settings import Source
from tests.memory_engine import Tables
from tests.simulator.world import NOTE, SOURCES, WORD_OF, Clock

# The diagram of decision 2: what each state may become, and what of it `history` tells of that (none: the ledger does).
LOADS = {"loaded": "", "rejected": "", "held": "", "duplicate": "", "retrying": ""}
AGAIN = {"loaded": "load force release", "rejected": "load release", "held": "load", "duplicate": "load release"}
AFTER = {
    "pending": {**LOADS, "ignored": "ignore", "replaced": "replace"},
    "retrying": {**LOADS, "ignored": "ignore", "replaced": "gone replace"},
    "loaded": {"loaded": "force", "undone": "undo", "replaced": "replace"},
    "rejected": {"loaded": "force", "undone": "undo", "ignored": "ignore"},
    "held": {**AGAIN, "ignored": "ignore", "replaced": "gone"},
    "duplicate": {"loaded": "force", "ignored": "ignore"},
    "undone": {**AGAIN, "ignored": "ignore"},
    "ignored": AGAIN,
    "replaced": {**AGAIN, "retrying": "load force release", "replaced": "replace"},
}


@dataclass
class Promises:
    """They are kept at each commit. `tell` hears what is committed."""

    tell: Callable[[str], None]
    fixes: dict[str, str] = field(default_factory=dict)  # of each redrive the word of the file that it was sent for

    def committed(self, before: Tables, after: Tables) -> None:
        told: dict[str, set[str]] = {}
        for line in after.history[len(before.history) :]:
            told.setdefault(line["file_id"], set()).add(line["action"])
        assert before.ledger.keys() <= after.ledger.keys(), "a file left the ledger"
        for file_id, row in after.ledger.items():
            if (old := before.ledger.get(file_id)) is not row:
                self.tell(
                    f"commits {named(row)}{f', it was {old.state}' if old else ''} {sorted(told.get(file_id, ()))}"
                )
                self.moved(old, row, told.get(file_id, set()), before, after)
        self.is_whole(after)

    def moved(self, old: LedgerRow | None, row: LedgerRow, told: set[str], before: Tables, after: Tables) -> None:
        """One row that changed: along an arrow of the diagram, and told of."""
        source = SOURCES[row.source]
        was = old.state if old else "pending"
        is_entered = old is None or old.file_no != row.file_no
        if old and old.archived_to:
            assert row.archived_to == old.archived_to, "where its object went stays"
            assert "archived" not in told, "it is told once"
        if not is_entered and row.state == was:
            return
        assert row.state in AFTER[was], f"{was} became {row.state}"
        arrow = AFTER[was][row.state].split()
        assert not arrow or not told.isdisjoint(arrow), f"{was} became {row.state}, and history tells {sorted(told)}"
        if row.state == "retrying":
            assert row.next_try_at, "it is tried again"
            assert row.next_try_at <= Clock.moment + LONGEST_DELAY, "it is put off, and not for long"
            assert row.attempts == (old.attempts if old else 0) + 1, "attempts are counted"
            return
        assert row.loaded_at or not is_entered, "when it was dealt with"
        others = [one for one in before.ledger.values() if one.key == row.key and one.redrive_of is None
                  and one.file_id != row.file_id and one.sha256]  # fmt: skip
        if row.state == "replaced" and row.replaced_by:
            by = after.ledger[row.replaced_by]
            is_redriven = any(one.redrive_of == by.file_id and one.state == "loaded" for one in after.ledger.values())
            assert by.state in ("loaded", "duplicate") or is_redriven, "what is there stays until another is"
            assert source.changed_file == "replace"
        if row.redrive_of and not old:
            self.fixes[row.file_id] = WORD_OF[str(after.ledger[row.redrive_of].sha256)]
        if not is_entered or row.redrive_of or row.state not in ("loaded", "rejected", "held", "duplicate"):
            return
        if row.state == "duplicate":
            of = after.ledger[str(row.duplicate_of)]
            is_known = any(one.sha256 == row.sha256 for one in others)
            assert of.sha256 == row.sha256, "a duplicate has the bytes of another"
            assert of.state == "loaded" or is_known, "what it is a copy of is there"
        if row.state == "held":
            assert source.changed_file == "hold", "only what is to be held is"
            assert others
        if others and (newest := max(others, key=lambda one: one.file_no)).state == row.state == "loaded":
            assert "force" in told or newest.sha256 != row.sha256, "the same bytes are no change"
        if row.state == "rejected":
            assert not is_good(row)
        if row.state == "loaded" and "force" not in told:
            assert is_good(row), "what is over the limits is not loaded"
            if source.changed_file == "hold" and "release" not in told:
                assert not [one for one in others if one.state == "loaded" and one.sha256 != row.sha256], "it is held"

    def is_whole(self, tables: Tables) -> None:
        """What must hold at any time."""
        ledger = tables.ledger
        keeps = {row.file_no for row in ledger.values() if row.state in KEEPS_LINES}
        loaded = {row.file_no for row in ledger.values() if row.state == "loaded"}
        assert tables.commands.keys() == loaded, "commands are those of loaded files"
        ignored = {row.file_no for row in ledger.values() if row.state == "ignored"}
        assert tables.failed.keys() <= keeps | ignored, "failed lines are those of loaded and rejected files"
        forced = {line["file_id"] for line in tables.history if line["action"] == "force"}
        there = Counter[tuple[str, str]]()
        bytes_there: dict[tuple[str, str | None], str] = {}
        redrives: dict[str, list[LedgerRow]] = {}
        for row in ledger.values():
            if row.redrive_of and row.state == "loaded":
                redrives.setdefault(row.redrive_of, []).append(row)
        assert all(ledger[of].state in KEEPS_LINES for of in redrives), "a redrive leans on its file"
        for row in ledger.values():
            if row.file_no not in keeps or row.redrive_of:
                continue
            word, ours = WORD_OF[str(row.sha256)], redrives.get(row.file_id, ())
            own = [command["line"] for command in tables.commands.get(row.file_no, ())]
            brought = [(command["line"], one.file_id) for one in ours for command in tables.commands[one.file_no]]
            failed = {line: by["redriven_by"] for (line, _), by in tables.failed.get(row.file_no, {}).items()}
            assert len(failed) == row.failed, "the ledger counts failed lines"
            accepted = Counter(own) + Counter(line for line, _ in brought)
            assert max(accepted.values(), default=1) == 1, f"a line of {named(row)} is accepted twice"
            assert all(word[line - 1] not in "xy-" for line in own), "a wrong line is accepted"
            assert all(failed.get(line, by) == by for line, by in brought), "a line is fixed by what holds it"
            assert not any(by is None and line in accepted for line, by in failed.items()), "it is open, and accepted"
            for line, by in failed.items():
                if by:
                    holds = ledger[by]
                    assert holds.state == "loaded", f"line {line} of {named(row)} is fixed by nothing"
                    assert line in {command["line"] for command in tables.commands[holds.file_no]}
                    assert self.fixes[by][line - 1] == word[line - 1], "it stays fixed as long as it is the same"
            if row.state == "loaded" or ours:
                there[row.source, row.key] += 1
                all_lines = {place for place, letter in enumerate(word, 1) if letter != "-"}
                assert accepted.keys() | failed.keys() == all_lines, f"a line of {named(row)} is nowhere"
            if row.state == "loaded":
                assert len(own) == row.records + row.sets + row.aliases, "the ledger counts commands"
                if row.source in ("beside", "instead", "skip") and row.file_id not in forced:
                    first = bytes_there.setdefault((row.source, row.sha256), row.key)
                    assert first == row.key, f"the same bytes are loaded as {first} and {row.key}"
        assert all(n == 1 for (source, _), n in there.items() if source == "instead"), "two versions where one replaces"

    def is_calm(self, pipeline: Pipeline, tables: Tables, source: Source, listed: Sequence[SourceFile]) -> None:
        """Of a source when nothing fails any more, and all were polled. `listed` are its objects, recognised."""
        acted = {line["file_id"] for line in tables.history if line["action"] in ("undo", "ignore", "force", "replace")}
        found = pipeline.discover(source.name, NOTE)
        assert (found.pending, found.gone, found.problems) == ([], [], ()), "something is left to do"
        there = {file.file_id for file in listed}
        for row in tables.ledger.values():
            if row.source == source.name:
                assert row.state != "retrying", "it can be read"
                assert row.state != "held" or row.version_id or row.file_id in there, "its object is gone"
        for file in listed:
            row = tables.ledger[file.file_id]
            by = tables.ledger.get(row.replaced_by or "")  # a person may force, or fix, an older version
            assert row.state != "replaced" or (by and (by.redrive_of or by.file_id in acted)), "its object is there"
            if row.file_id in acted:
                continue
            assert row.state in ("loaded", "duplicate", "held") if is_good(row) else row.state != "loaded"
            if row.state == "duplicate":
                of = tables.ledger[str(row.duplicate_of)]
                is_there = of.state == "loaded" or any(one.redrive_of == of.file_id for one in tables.ledger.values())
                assert is_there or of.file_id in acted, "a copy of nothing"


def is_good(row: LedgerRow) -> bool:
    """Whether a file is within its limits, as it was judged."""
    most = SOURCES[row.source].max_failed_lines
    return not row.failed or (row.failed < row.items and (most is None or row.failed <= most))


def named(row: LedgerRow) -> str:
    return f"{row.key}@{row.etag[:8]} ({row.file_id[:6]}, {row.state})"
