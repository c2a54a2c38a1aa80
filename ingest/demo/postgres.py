"""A Postgres server for the demo: the machine's own programs, in the demo's folder, on loopback only.

It asks for no password, as everything of the demo is open to whoever is on this machine. Landfall's role owns its
database and nothing else.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ingest.demo.processes import Processes
from ingest.errors import IngestError

_OWNER: Final = "postgres"  # the server refuses to run as root: then as the user that the package made
_ROLE: Final = "landfall"
_INSTALLED: Final = Path("/usr/lib/postgresql")


def programs() -> Path:
    """The folder of the newest version that is installed. Raises IngestError: none is."""
    found = [one.parent for one in _INSTALLED.glob("*/bin/initdb") if one.parent.parent.name.isdecimal()]
    if not found:
        raise IngestError("The demo with this warehouse needs Postgres on this machine: apt-get install postgresql.")
    return max(found, key=lambda one: int(one.parent.name))


class PostgresServer:
    """One server. `start` it, wait until it `answers`, then `make_database`."""

    def __init__(self, folder: Path, port: int) -> None:
        self._folder = folder
        self._port = port
        self._programs = programs()
        self._user = _OWNER if os.geteuid() == 0 else None
        self.url = f"postgresql://{_ROLE}@127.0.0.1:{port}/{_ROLE}"

    def start(self, processes: Processes, environment: Mapping[str, str]) -> None:
        self._folder.mkdir()
        if self._user:
            shutil.chown(self._folder, self._user, self._user)
            self._folder.parent.chmod(0o711)  # to reach its own folder; what else is there cannot be listed
        data = self._folder / "data"
        made = [self._program("initdb"), "-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8"]
        processes.run("postgres-files", [*made, "--locale=C.UTF-8", "--no-sync"], environment, self._user)
        settings = {"listen_addresses": "127.0.0.1", "port": self._port, "unix_socket_directories": "", "fsync": "off"}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        processes.start("postgres", [self._program("postgres"), "-D", str(data), *options], environment, self._user)

    def make_database(self, processes: Processes, environment: Mapping[str, str]) -> None:
        url = f"postgresql://postgres@127.0.0.1:{self._port}/postgres"
        psql = [self._program("psql"), "-qX", "-v", "ON_ERROR_STOP=1"]
        for statement in (f"CREATE ROLE {_ROLE} LOGIN", f"CREATE DATABASE {_ROLE} OWNER {_ROLE}"):
            psql += ["-c", statement]
        processes.run("postgres-database", [*psql, url], environment)

    def answers(self, processes: Processes, environment: Mapping[str, str]) -> bool:
        ready = [self._program("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self._port)]
        return processes.status("postgres-ready", ready, environment) == 0

    def _program(self, name: str) -> str:
        return str(self._programs / name)
