"""A Postgres server of our own for tests: the machine's programs, a free port on loopback, gone afterwards.

Each test has a database of its own, copied from one that has the tables: that is quicker than to make them.
"""

import os
import select
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from itertools import count
from pathlib import Path
from tempfile import mkdtemp
from typing import Any
from urllib.parse import urlsplit

from ingest.core.matching import IGNORED_IDENTITIES
from ingest.demo.postgres import programs
from ingest.warehouse.engines.postgres.warehouse import PostgresWarehouse

_numbers = count()


def run(*command: str | Path, **more: Any) -> str:
    """As a user that the server accepts: it does not run as root."""
    as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    done = subprocess.run([*as_user, *map(str, command)], check=False, capture_output=True, text=True, cwd="/", **more)
    assert done.returncode == 0, done.stdout + done.stderr
    return str(done.stdout)


class Server:
    """Started where it is made; `remove` it. Only what is `durable` survives being killed."""

    def __init__(self, *, durable: bool = False) -> None:
        self.durable = durable
        self.folder = Path(mkdtemp(prefix="landfall-pg-"))
        if os.geteuid() == 0:
            shutil.chown(self.folder, "postgres")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        data = self.folder / "data"
        run(programs() / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "-N")
        self.start()

    def start(self) -> None:
        settings = {"port": self.port, "listen_addresses": "127.0.0.1", "unix_socket_directories": "",
                    "fsync": "on" if self.durable else "off", "max_connections": 50, "autovacuum": "off"}  # fmt: skip
        options = " ".join(f"-c {name}='{value}'" for name, value in settings.items())
        log = self.folder / "log"
        run(programs() / "pg_ctl", "-D", self.folder / "data", "-o", options, "-l", log, "-w", "start")

    def stop(self, how: str = "immediate") -> None:
        run(programs() / "pg_ctl", "-D", self.folder / "data", "-m", how, "-w", "stop")

    def kill(self) -> None:
        """Kill -9, all of it: who serves somebody notices late that the first process is gone."""
        first = int((self.folder / "data" / "postmaster.pid").read_text().split()[0])
        children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
        handles = [os.pidfd_open(pid) for pid in (first, *map(int, children))]
        for handle in handles:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        for handle in handles:
            select.select([handle], [], [])
            os.close(handle)
        # Where nobody collects the dead, the next one would take its number for that of a living server.
        (self.folder / "data" / "postmaster.pid").unlink()

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder)

    def url(self, database: str, user: str = "loader") -> str:
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def sql(self, text: str, database: str = "postgres", user: str = "postgres") -> str:
        return run(programs() / "psql", "-qAtX", "-v", "ON_ERROR_STOP=1", "-c", text, self.url(database, user))

    def new(self, url: str | None = None) -> str:
        """The URL of a database that has nothing but our tables, empty; or of a copy of another one."""
        name = f"landfall_{next(_numbers)}"
        template = urlsplit(url).path[1:] if url else _template(self)
        self.sql(f"CREATE DATABASE {name} OWNER loader TEMPLATE {template} STRATEGY file_copy")
        return self.url(name)

    def bare(self, name: str, more: str = "") -> str:
        """The URL of a database with nothing in it; the role `stranger` may enter it."""
        roles = self.sql("SELECT rolname FROM pg_roles").split()
        for role in {"loader", "stranger"} - {*roles}:
            self.sql(f"CREATE ROLE {role} LOGIN")
        self.sql(f"CREATE DATABASE {name} OWNER loader TEMPLATE template0 {more}")
        return self.url(name)

    def drop(self, url: str) -> None:
        self.sql(f"DROP DATABASE {urlsplit(url).path[1:]} WITH (FORCE)")


@cache
def _template(server: Server) -> str:
    with warehouse(server.bare("landfall_new")).writing():
        pass
    return "landfall_new"


def warehouse(url: str, **more: Any) -> PostgresWarehouse:
    return PostgresWarehouse(url, ignored_identities=IGNORED_IDENTITIES, **more)


@contextmanager
def server(*, durable: bool = False) -> Iterator[Server]:
    started = Server(durable=durable)
    try:
        yield started
    finally:
        started.remove()
