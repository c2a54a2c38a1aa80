"""A look at a warehouse on a server that leaves everything as it is."""

from dataclasses import replace

from adbc_driver_manager import Error

from ingest.warehouse.engines.common.look import OPEN, SUMMED_UP, Look
from ingest.warehouse.engines.postgres.errors import could_not_read
from ingest.warehouse.engines.postgres.session import PostgresServer, found
from ingest.warehouse.engines.postgres.statements import definitions


def look(server: PostgresServer) -> Look:
    """What there is of it.

    Raises:
        ConfigError: the server refuses this role, or cannot hold a warehouse.
        TransientError: it does not answer.
    """
    newest = len(definitions()[0])
    try:
        with server.connected() as session:
            schema = server.demand_room(session)
            ((size_bytes, version),) = session.rows("SELECT pg_database_size(current_database()), version()")
            place = f"{version.partition(' (')[0].partition(' on ')[0]}, schema {schema}"
            there = found(session)
            if there is None:
                return Look(size_bytes, 0, newest, place=place)
            (files,), (open_lines,) = session.rows(SUMMED_UP), session.rows(OPEN)
            return replace(Look(size_bytes, there[0], newest, *files, *open_lines), place=place)
    except Error as error:
        raise could_not_read(server.name, error) from error
