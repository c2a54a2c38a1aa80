"""The process: a socket, uvicorn, and an end without loss: what is under way is still stored and answered."""

import asyncio
import signal
import socket
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI

from ingest.errors import ConfigError
from ingest.intake.connection import CONNECTIONS, Connection, ending

STOP_SECONDS = 30  # after which those that still wait are answered that they have to come again
_END_SECONDS = 2  # for these answers
_KEEP_ALIVE_SECONDS = 75  # longer than proxies keep a connection, so that the proxy is the one to close it


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 is any that is free. Raises ConfigError: the address cannot be had."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise ConfigError(f"Nothing can listen on {host}, port {port} ({error.strerror}): choose another.") from error


def run(app: FastAPI, at: socket.socket, ready: Callable[[], None], stop_seconds: int = STOP_SECONDS) -> None:
    """Serve until SIGTERM or SIGINT; then answer what is under way, and return. `ready` is called when it listens.

    What is not done `stop_seconds` after the signal is cancelled, and says so to its client.
    """

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                ready()

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            asyncio.get_running_loop().call_later(stop_seconds, self._give_up)
            await super().shutdown(sockets)

        def _give_up(self) -> None:
            for task in self.server_state.tasks:
                task.cancel()

    config = uvicorn.Config(
        ending(app), http=Connection, log_config=None, server_header=False, proxy_headers=False, ws="none",
        access_log=False,  # it would write queries, and with them keys
        limit_concurrency=CONNECTIONS, timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=stop_seconds + _END_SECONDS,
    )  # fmt: skip
    for told in (signal.SIGTERM, signal.SIGINT):
        signal.signal(told, lambda *_: None)  # uvicorn raises them once more at its end, which is a good one
    Server(config).run(sockets=[at])
