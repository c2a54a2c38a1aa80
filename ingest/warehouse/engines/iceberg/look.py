"""A look at a warehouse in a lake that leaves it as it is; the mirror takes up what others have committed."""

from dataclasses import replace

from ingest.text import count
from ingest.warehouse.engines.common.look import OPEN, SUMMED_UP, Look
from ingest.warehouse.engines.iceberg.warehouse import IcebergWarehouse


def look(warehouse: IcebergWarehouse) -> Look:
    """What there is of it.

    Raises:
        ConfigError: no such catalog is described.
        TransientError: catalog or store do not answer.
    """
    table = warehouse.lake.find()
    if table is None:
        return Look(0, 0, 1, place="no table yet")
    changes, commands = table.data_files()
    with warehouse.reading() as session:
        (files,), (open_lines,) = session.rows(SUMMED_UP), session.rows(OPEN)
    snapshots = count(len(table.table.snapshots()), "snapshot")
    place = f"{table.table.location()}, {count(len(changes) + len(commands), 'data file')}, {snapshots}"
    size_bytes = sum(file.file_size_in_bytes for file in (*changes, *commands))
    return replace(Look(size_bytes, 1, 1, *files, *open_lines), place=place)
