"""A look at a warehouse on a server that leaves everything as it is."""

from adbc_driver_manager import Error

from ingest.errors import ConfigError
from ingest.warehouse.engines.common.look import OPEN, SUMMED_UP, Look
from ingest.warehouse.engines.postgres.errors import could_not_read
from ingest.warehouse.engines.postgres.session import PostgresServer, found
from ingest.warehouse.engines.postgres.statements import definitions

_LEAST_VERSION = 150_000
# What the warehouse needs of a server; letters of any alphabet are folded by ICU.
_SERVER = """
    SELECT current_setting('server_version_num')::integer, current_setting('server_encoding'),
        EXISTS (SELECT 1 FROM pg_collation WHERE collname = 'und-x-icu'), pg_database_size(current_database())"""


def look(server: PostgresServer) -> Look:
    """What there is of it.

    Raises:
        ConfigError: the server refuses this role, or cannot hold a warehouse.
        TransientError: it does not answer.
    """
    newest = len(definitions()[0])
    try:
        with server.connected() as session:
            ((version, encoding, has_icu, size_bytes),) = session.rows(_SERVER)
            if version < _LEAST_VERSION or encoding != "UTF8" or not has_icu:
                icu = "with" if has_icu else "without"
                raise ConfigError(
                    f"{server.name} is Postgres {version // 10_000} {icu} ICU, its database in {encoding}: a warehouse"
                    " needs Postgres 15 or newer with ICU, and a database in UTF8."
                )
            there = found(session)
            if there is None:
                return Look(size_bytes, 0, newest)
            (files,), (open_lines,) = session.rows(SUMMED_UP), session.rows(OPEN)
            return Look(size_bytes, there[0], newest, *files, *open_lines)
    except Error as error:
        raise could_not_read(server.name, error) from error
