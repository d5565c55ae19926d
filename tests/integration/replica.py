"""A service as its supervisor runs it: a process with an environment, signals, output and an exit code."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from grpc import aio
from grpc_health.v1 import health_pb2

from chassis.testing import LOOPBACK, plain_channel, until
from devstack.ports import ReservedPort
from tests.integration.inprocess import KEY_SETTINGS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


REPOSITORY: Final = Path(__file__).parents[2]
SERVING: Final = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING: Final = health_pb2.HealthCheckResponse.NOT_SERVING


class Replica:
    """One `python -m <package> serve`.

    Attributes:
        address: where it is to listen.
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
        """Return what it says of itself; None when it does not answer."""
        async with plain_channel(self.address) as channel:
            ask = channel.unary_unary(
                "/grpc.health.v1.Health/Check",
                request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
                response_deserializer=health_pb2.HealthCheckResponse.FromString,
            )
            try:
                answer: health_pb2.HealthCheckResponse = await ask(health_pb2.HealthCheckRequest(), timeout=1)
            except aio.AioRpcError:
                return None
            return answer.status

    async def until_health(self, wanted: int) -> None:
        """Return once it says so."""

        async def says_so() -> bool:
            assert self.process.poll() is None, self.output()
            return await self.health() == wanted

        await until(says_so, timeout_s=30)

    async def exit_code(self, *, within_s: float) -> int:
        """Return how it ended.

        Raises:
            subprocess.TimeoutExpired: it did not, in time.
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
    """Run a replica while the block runs, from when it is healthy; killed at the end if it is still there."""
    reserved = ReservedPort()
    replica = Replica(package, port=reserved.number, log=folder / f"{package}.log", env=env)
    try:
        await replica.until_health(SERVING)
        yield replica
    finally:
        replica.process.kill()
        replica.process.wait()
        reserved.release()


def run(package: str, command: str, *, typed: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the package, of one word or several, to its end; `typed` is its standard input."""
    return subprocess.run(
        [sys.executable, "-m", package, *command.split()],
        cwd=REPOSITORY,
        env=environment(**env),
        input=typed,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def environment(**changes: str) -> dict[str, str]:
    """Return the environment of a service: ours, loopback only, and what is to be different."""
    secret = KEY_SETTINGS.secret.get_secret_value()
    quick = {"HOST": LOOPBACK, "DRAIN_S": "0", "ARGON2_MEMORY_KIB": "8", "KEYS_SECRET": secret}
    return {**os.environ, **quick, **changes}
