"""What pages show of a warehouse on a server: its tables as they are, all from one moment. Nobody waits for anybody."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import orjson
import pyarrow as pa

from ingest.ports import (
    Day,
    FailureGroup,
    FailurePlace,
    FilesPage,
    FilesWanted,
    Glance,
    Problem,
)
from ingest.warehouse.engines.common.published import filters
from ingest.warehouse.engines.postgres.session import PostgresServer, PostgresSession

_LINES_LOOKED_AT = 20_000  # for the places where they break a rule: a page cannot wait for a million
_TO_FIX = (
    "{l}.state IN ('loaded', 'rejected') AND {l}.failed > 0"
    " AND {l}.file_no IN (SELECT file_no FROM failure_counts WHERE code = %s AND open > 0)"
)
# A file that waits for another attempt has no time of its own: it counts when it is due, never later than now.
_DEALT_AT = (
    "coalesce({l}.loaded_at, CASE WHEN {l}.next_try_at IS NOT NULL THEN least({l}.next_try_at, $as_of) END,"
    " {l}.last_modified)"
)
_CONDITIONS = {
    "sources": "{l}.source = ANY($sources)",
    "states": "{l}.state = ANY($states)",
    "since": f"{_DEALT_AT} >= $since",
    "until": f"{_DEALT_AT} < $until",
    "text": "strpos(lower({l}.key{how}), lower($text{how})) > 0",
    "id_begins": "(strpos(lower({l}.key), lower($id_begins)) > 0 OR starts_with({l}.file_id, lower($id_begins)))",
    "run_id": "{l}.run_id = $run_id",
    "sha256": "{l}.sha256 = $sha256",
    "file_ids": "{l}.file_id = ANY($file_ids)",
    "with_failures": _TO_FIX % "''",
    "code": _TO_FIX % "$code",
}
_ANY_LETTER = ' COLLATE "und-x-icu"'  # knows the case of more letters than ASCII's, and takes longer
_PLACES = {
    "dealt_at": "coalesce(l.loaded_at, l.next_try_at, l.last_modified)",  # as the index has it
    "failed_share": "l.failed::double precision / nullif(l.items, 0)",
    "key": "left(substr(l.position, 19), 600) {way}, substr(l.position, 19)",  # behind the arrival: in natural order
}


@dataclass(frozen=True, slots=True)
class PostgresPublished:
    """Implements `ingest.ports.ReadModel` on one session."""

    session: PostgresSession
    as_of: datetime

    def files(self, wanted: FilesWanted) -> FilesPage:
        matching, values = self._matching(wanted)
        way = "DESC" if wanted.descending else "ASC"
        place = _PLACES.get(wanted.sort, f"l.{wanted.sort}").replace("{way}", way)
        values |= {"limit": wanted.per_page, "offset": (wanted.page - 1) * wanted.per_page}
        ((total,),) = self.session.rows(f"SELECT count(*) FROM ledger AS l WHERE {matching}", **values)
        found = self.session.rows(
            f"SELECT l.file_no FROM ledger AS l WHERE {matching}"
            f" ORDER BY {place} {way} NULLS LAST, l.file_no DESC LIMIT $limit OFFSET $offset",
            **values,
        )
        rows = self._files([file_no for (file_no,) in found])
        return FilesPage(total, self._with_redrives(rows) if wanted.folded else rows)

    def days(self, wanted: FilesWanted, last: int = 30) -> list[Day]:
        ((first_day,),) = self._asked("shown_first_day", wanted, last=last)
        found = self._asked("shown_days", wanted, first_day=first_day) if first_day else []
        return [Day(date(1970, 1, 1) + timedelta(days=day), *more) for day, *more in found]

    def sources(self) -> set[str]:
        return {source for (source,) in self.session.named("shown_sources")}

    def states(self, sources: Sequence[str]) -> list[tuple[str, str, int]]:
        return [
            (source, state, files) for source, state, files in self.session.named("shown_states", sources=list(sources))
        ]

    def glances(self, sources: Sequence[str]) -> list[Glance]:
        return [Glance(*found) for found in self.session.named("shown_glances", sources=list(sources))]

    def problems(self, wanted: FilesWanted, files: int = 5) -> list[Problem]:
        found = self._asked("shown_problems", replace(wanted, with_failures=False), files=files)  # which all have
        return [
            Problem(code, open, files, sources, formats, first_seen, last_seen, orjson.loads(most))
            for code, open, files, sources, formats, first_seen, last_seen, most in found
        ]

    def file(self, file_id: str) -> dict[str, Any] | None:
        found = self.session.rows("SELECT file_no FROM ledger WHERE file_id = $file_id", file_id=file_id)
        return self._files([file_no for (file_no,) in found])[0] if found else None

    def related(self, file_id: str) -> list[dict[str, Any]]:
        file = self.file(file_id)
        if file is None:
            return []
        names = ("file_id", "bucket", "key", "redrive_of", "duplicate_of", "replaced_by")
        found = self.session.named("shown_related", **{name: file[name] for name in names})
        rows = self._files([file_no for file_no, _ in found])
        return [row | {"relation": relation} for row, (_, relation) in zip(rows, found, strict=True)]

    def history(self, file_id: str) -> list[dict[str, Any]]:
        return self.session.fetch('SELECT * FROM history WHERE file_id = $file_id ORDER BY "at"', file_id=file_id)

    def failure_groups(self, file_ids: Sequence[str], places: int = 20) -> list[FailureGroup]:
        ids = list(file_ids)
        shown: defaultdict[str, list[FailurePlace]] = defaultdict(list)
        many: Counter[str] = Counter()
        for code, *place, of in self.session.named(
            "shown_failure_places", ids=ids, lines=_LINES_LOOKED_AT, places=places
        ):
            shown[code].append(FailurePlace(*place))
            many[code] = of
        return [
            FailureGroup(code, lines, open, first_line, tuple(shown[code]), many[code] - len(shown[code]))
            for code, lines, open, first_line in self.session.named("shown_failure_codes", ids=ids)
        ]

    def failed_lines(
        self,
        file_ids: Sequence[str],
        *,
        code: str | None = None,
        pointer: str | None = None,
        open_only: bool = False,
        first_line: int = 1,
        offset: int = 0,
        limit: int = 20,
    ) -> list[dict[str, Any]]:
        return self.session.fetch(
            self.session.statement("shown_failed_lines"), ids=list(file_ids), code=code, pointer=pointer,
            open_only=open_only, first_line=first_line, offset=offset, limit=limit,
        )  # fmt: skip

    def open_lines(self, file_id: str) -> Iterator[dict[str, Any]]:
        with self.session.streamed("shown_open_lines", file_id=file_id) as rows:
            yield from rows

    def open_among(self, file_id: str, places: Collection[tuple[int, str]]) -> dict[tuple[int, str], bool]:
        lines, items = zip(*places, strict=True) if places else ((), ())
        wanted = pa.table({"line": pa.array(lines, pa.int64()), "item": pa.array(items, pa.string())})
        with self.session.table("wanted", wanted):
            found = self.session.named("shown_open_among", file_id=file_id)
        return dict.fromkeys(found, True)

    def _asked(self, name: str, wanted: FilesWanted, **values: Any) -> list[tuple[Any, ...]]:
        matching, more = self._matching(replace(wanted, folded=False))
        sql = self.session.statement(name)
        sql = sql.replace("{dealt_at}", _of("l", _DEALT_AT)).replace("{matching}", matching)
        return self.session.rows(sql, **more, **values)

    def _matching(self, wanted: FilesWanted) -> tuple[str, dict[str, Any]]:
        """What holds for rows `l` of these files, as a part of a statement, with its values."""
        values = filters(wanted)
        conditions = [_CONDITIONS[name] for name in values]
        all_of = " AND ".join(conditions).replace("{how}", "" if wanted.text.isascii() else _ANY_LETTER)
        matching = _of("l", all_of)
        # A redrive finds its file, or stands for itself where that is gone. Failed lines are never a redrive's own.
        if wanted.folded and not wanted.with_failures and not wanted.code:
            matching = (
                f"((l.redrive_of IS NULL AND {matching}) OR l.file_no IN (SELECT coalesce(o.file_no, r.file_no)"
                " FROM ledger AS r LEFT JOIN ledger AS o ON o.file_id = r.redrive_of"
                f" WHERE r.redrive_of IS NOT NULL AND {_of('r', all_of)}))"
            )
        return matching, values | {"as_of": self.as_of}

    def _files(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """These rows of the ledger, in this order."""
        if not numbers:
            return []
        sql = self.session.statement("shown_files").replace("{dealt_at}", _of("l", _DEALT_AT))
        found = {row["file_no"]: row for row in self.session.fetch(sql, numbers=list(numbers), as_of=self.as_of)}
        for row in found.values():
            del row["position"]
        return [found[number] for number in numbers]

    def _with_redrives(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        of: dict[str, list[dict[str, Any]]] = {row["file_id"]: [] for row in rows}
        found = self.session.named("shown_redrives", ids=list(of))
        for redrive in self._files([file_no for (file_no,) in found]):
            of[redrive["redrive_of"]].append(redrive)
        return [row | {"redrives": of[row["file_id"]]} for row in rows]


@contextmanager
def published(server: PostgresServer) -> Iterator[PostgresPublished]:
    """See `ingest.ports.Warehouse.published`."""
    with server.reading() as session:
        yield PostgresPublished(session, datetime.now(UTC))


def _of(alias: str, text: str) -> str:
    return text.replace("{l}", alias)
