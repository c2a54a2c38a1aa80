"""Keeps a lake quick: many small files become few, and what nobody can need any more is removed.

Each step is a commit like any other: a load that runs meanwhile plans again, and whoever reads an older snapshot can do
so for `KEPT`. What no snapshot knows may be of a load that still runs, so it is left for as long.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from pyarrow import fs
from pyiceberg.manifest import DataFile

from ingest.text import count
from ingest.warehouse.engines.iceberg.lake import LakeTable
from ingest.warehouse.engines.iceberg.mirror import MirrorSession, forget
from ingest.warehouse.engines.iceberg.statements import statement

KEPT: Final = timedelta(days=7)  # former snapshots, and objects that none knows
MANY_CHANGES: Final = 50  # files of changes
MANY_COMMANDS: Final = 10  # small files of commands
_SMALL_BYTES: Final = 64 << 20
_AT_ONCE_BYTES: Final = 512 << 20


def put_together(session: MirrorSession) -> list[str]:
    """Make few files of many, without what is in force no more; what was done, in sentences. Raises ConflictError."""
    assert session.lake
    changes, commands = session.lake.data_files()
    small = [file for file in commands if file.file_size_in_bytes < _SMALL_BYTES or not _live(session, file)]
    told, former = list[str](), list[DataFile]()
    if len(small) >= MANY_COMMANDS:
        for group in _groups(small):
            bounds = [session.lake.bounds(file) for file in group]
            session.show("lake_small", bounds)
            file, rows = session.write(session.exactly(statement("live_commands")))
            if rows:
                session.see(file)
        former += small
        told.append(f"{count(len(small), 'file')} of commands became {len(session.added)}.")
    if len(changes) >= MANY_CHANGES:
        session.run("tell_all")
        former += changes
        told.append(f"{count(len(changes), 'file')} of other rows became 1.")
    if former:
        forget(session.connection, [file.file_path for file in former])
        session.commit(instead_of=former)
    return told


def _live(session: MirrorSession, file: DataFile) -> bool:
    """Whether any of its rows may be in force."""
    assert session.lake
    bounds = session.lake.bounds(file)
    sql = "SELECT 1 FROM stages WHERE stage_no BETWEEN $first AND $last LIMIT 1"
    return bool(session.rows(sql, first=bounds.first_stage, last=bounds.last_stage))


def _groups(files: Sequence[DataFile]) -> list[list[DataFile]]:
    groups: list[list[DataFile]] = [[]]
    for file in files:
        if sum(one.file_size_in_bytes for one in groups[-1]) > _AT_ONCE_BYTES:
            groups.append([])
        groups[-1].append(file)
    return groups


def expire(lake: LakeTable, now: datetime) -> list[str]:
    """Forget snapshots that are older than KEPT. No data is removed by it, but what `sweep` finds then."""
    old = [one for one in lake.table.snapshots() if one.timestamp_ms < (now - KEPT).timestamp() * 1000]
    old = [one for one in old if one.snapshot_id != lake.snapshot_id]
    if not old:
        return []
    with lake.lake.reached():
        lake.table.maintenance.expire_snapshots().by_ids([one.snapshot_id for one in old]).commit()
    return [f"{count(len(old), 'snapshot')} of before {now - KEPT:%Y-%m-%d} expired."]


def sweep(lake: LakeTable, now: datetime) -> list[str]:
    """Remove objects that no snapshot knows and that are older than KEPT: of loads that were killed, say."""
    with lake.lake.reached():
        known, system = lake.objects(), lake.file_system()
        folder = lake.path(lake.table.location())
        removed = 0
        for one in system.get_file_info(fs.FileSelector(folder, recursive=True)):
            is_old = one.mtime is not None and one.mtime < (now - KEPT)
            if one.type == fs.FileType.File and is_old and one.path not in known:
                system.delete_file(one.path)
                removed += 1
    return [f"{count(removed, 'object')} that no snapshot knows removed."] if removed else []
