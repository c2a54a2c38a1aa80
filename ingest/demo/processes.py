"""Processes that never outlive the demo: each in a session of its own, ended with all its children in any case.

Three nets: Ctrl-C or a signal ends them in order; whatever a process leaves behind becomes our own child, and is ended
then; and if this process is killed outright, a guard that holds the other end of a pipe ends the sessions.
"""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

import psutil

_PR_SET_CHILD_SUBREAPER = 36
# Reads what has been started and what has ended (+session, -session). Its input ends when we do, however we do.
_GUARD = """
import os, signal, sys
running = set()
for line in sys.stdin:
    (running.add if line[0] == "+" else running.discard)(int(line[1:]))
for session in running:
    try:
        os.killpg(session, signal.SIGKILL)
    except ProcessLookupError:
        pass
"""


class Processes:
    """What was started here, by name. Leaving the `with` block ends all of it."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        logs.mkdir(parents=True, exist_ok=True)
        self._others = set(psutil.Process().children())  # of whoever uses us, such as a test's
        # Children of children become ours when their parent ends.
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
        self._guard = subprocess.Popen(
            [sys.executable, "-c", _GUARD], stdin=subprocess.PIPE, text=True, start_new_session=True
        )

    def __enter__(self) -> Self:
        return self

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str], user: str | None = None) -> None:
        """Start a process that lasts, as another user if one is named."""
        with self.log(name).open("ab") as log:
            self._running[name] = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=user,
                group=user,
                extra_groups=[] if user else None,
                cwd="/" if user else None,
            )
        self._tell_guard("+", self._running[name])

    def run(self, name: str, command: Sequence[str], environment: Mapping[str, str], user: str | None = None) -> None:
        """Start a process and wait for its end. Raises ProcessDied unless it ends well."""
        if status := self.status(name, command, environment, user):
            raise ProcessDied(name, status, self.log(name))

    def status(self, name: str, command: Sequence[str], environment: Mapping[str, str], user: str | None = None) -> int:
        """Start a process, wait for its end and give its exit code."""
        self.start(name, command, environment, user)
        status = self._running[name].wait()
        self._tell_guard("-", self._running.pop(name))
        return status

    def check(self) -> None:
        """Raises ProcessDied if one of them has ended."""
        for name, process in self._running.items():
            if (status := process.poll()) is not None:
                raise ProcessDied(name, status, self.log(name))

    def log(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    def _tell_guard(self, change: str, process: subprocess.Popen[bytes]) -> None:
        assert self._guard.stdin
        self._guard.stdin.write(f"{change}{process.pid}\n")
        self._guard.stdin.flush()

    def __exit__(self, *_: object) -> None:
        # The last one first, each before the next: a scheduler whose API server is gone waits for its tasks in vain.
        patience = time.monotonic() + 20
        for process in reversed(self._running.values()):
            with suppress(ProcessLookupError, subprocess.TimeoutExpired):
                process.terminate()  # to the leader: it ends its own children in order
                process.wait(max(1, patience - time.monotonic()))
        for process in self._running.values():
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            self._tell_guard("-", process)
        self._guard.communicate()
        # What they leave behind is ours now. Ending one may hand us its children: until there are none.
        while orphans := set(psutil.Process().children()) - self._others:
            for orphan in orphans:
                with suppress(psutil.NoSuchProcess):
                    orphan.kill()
                    orphan.wait()
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 0)


class ProcessDied(Exception):
    """A process ended that should not have."""

    def __init__(self, name: str, status: int, log: Path) -> None:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
        super().__init__(f"{name} ended with status {status}. The end of its log ({log}):\n{tail}")


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listening.getsockname()[1] for listening in sockets]
    for listening in sockets:
        listening.close()
    return ports
