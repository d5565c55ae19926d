"""A service as its supervisor runs it: a process with an environment, signals, output and an exit code."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from grpc import aio
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from chassis.testing import LOOPBACK, plain_channel, until
from devstack.ports import ReservedPort
from tests.integration.inprocess import SECRET, TEST_KEY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


REPOSITORY: Final = Path(__file__).parents[2]
_LONGEST_S: Final = 60  # of a command
_servers: Final[list[subprocess.Popen[bytes]]] = []
SERVING: Final = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING: Final = health_pb2.HealthCheckResponse.NOT_SERVING


class Replica:
    """One `python -m <package> serve`.

    Attributes:
        address: on which it listens.
        process: the child.
    """

    def __init__(self, package: str, *, port: int, log: Path, env: dict[str, str]) -> None:
        self.address = f"{LOOPBACK}:{port}"
        self._log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", package, "serve"],
                cwd=REPOSITORY,
                env=environment(PORT=str(port), **env),
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    async def health(self) -> int | None:
        """Return its health status; None if it does not answer."""
        async with plain_channel(self.address) as channel:
            try:
                return (await HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=1)).status
            except aio.AioRpcError:
                return None

    async def until_health(self, wanted: int) -> None:
        """Return once its health has this status."""

        async def has_status() -> bool:
            assert self.process.poll() is None, self.output()
            return await self.health() == wanted

        await until(has_status, timeout_s=30)

    async def exit_code(self, *, within_s: float) -> int:
        """Return its exit code.

        Raises:
            subprocess.TimeoutExpired: it did not end in time.
        """
        return await asyncio.to_thread(self.process.wait, within_s)

    def output(self) -> str:
        """Return all that it wrote."""
        return self._log.read_text()

    def log(self, event: str) -> list[dict[str, Any]]:
        """Return the log lines with this event."""
        return [entry for entry in map(json.loads, self.output().splitlines()) if entry["event"] == event]


@contextlib.asynccontextmanager
async def serving_process(package: str, folder: Path, **env: str) -> AsyncIterator[Replica]:
    """Run a replica while the block runs, from when it is healthy; kill it at the end if it still runs."""
    reserved = ReservedPort(host=env.get("HOST", LOOPBACK))
    replica = Replica(package, port=reserved.number, log=folder / f"{package}.log", env=env)
    try:
        await replica.until_health(SERVING)
        yield replica
    finally:
        replica.process.kill()
        replica.process.wait()
        reserved.release()


def run(package: str, command: str, *, typed: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the package, of one word or several, to its end; `typed` is its standard input.

    It runs in a process of its own, forked from one that has imported the services already (`command_server.py`).
    """
    arguments = [package, *command.split()]
    request = {"argv": arguments, "env": environment(**env), "typed": typed, "timeout_s": _LONGEST_S}
    with socket.socket(socket.AF_UNIX) as connection, connection.makefile("rw") as stream:
        connection.settimeout(_LONGEST_S + 30)  # the server may have to import the services first
        connection.connect(_command_server())
        json.dump(request, stream)
        stream.write("\n")
        stream.flush()
        code, output, errors = json.load(stream)
    return subprocess.CompletedProcess(arguments, code, output, errors)


@functools.cache
def _command_server() -> str:
    """Start the server that forks commands; return its address. It ends with this process, which holds its input."""
    address = f"\0shop-test-commands-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        arguments = [sys.executable, "-m", "tests.integration.command_server", str(listener.fileno())]
        _servers.append(
            subprocess.Popen(
                arguments, cwd=REPOSITORY, env=environment(), stdin=subprocess.PIPE, pass_fds=[listener.fileno()]
            )
        )
    return address


def environment(**changes: str) -> dict[str, str]:
    """Return the environment of a service: ours, on loopback only, with the changes."""
    quick = {"HOST": LOOPBACK, "DRAIN_S": "0", "ARGON2_MEMORY_KIB": "8", "KEYS_SECRET": SECRET}
    quick["NOTES_PUBLIC_KEY"] = TEST_KEY
    return {**os.environ, **quick, **changes}
