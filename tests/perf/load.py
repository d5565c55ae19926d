"""The generators of load. Each runs as a process of its own for some seconds and tells what came back."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from devstack.settings import REPOSITORY
from tests.perf import tools

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.perf.grpc_load import Spec

RUN: Final = tools.BENCH / "run"
"""Where the files of a run are."""

_SCRIPT: Final = Path(__file__).with_name("rest.lua")


@dataclass(frozen=True, slots=True)
class Load:
    """The result of a load: latencies in ms, NaN where the generator does not know them.

    Attributes:
        failures: how often calls failed in each way, as `429 OVERLOADED`, where the generator knows.
    """

    requests: int
    failed: int
    seconds: float
    p50_ms: float
    p99_ms: float
    p999_ms: float = math.nan
    failures: Mapping[str, int] = field(default_factory=dict)

    @property
    def rps(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds


class LoadFailed(Exception):
    """The generator of load did not work, or calls failed under it: then nothing was measured."""


@dataclass(frozen=True, slots=True)
class Requests:
    """The requests of a load over REST.

    Attributes:
        writes: the share of the requests that place an order; the others read a user. From 0 to 1.
        bodies: the file of the orders, a JSON object a line.
        paths: the file of the users' paths, one a line.
    """

    writes: float
    bodies: Path = RUN / "orders.json"
    paths: Path = RUN / "get_user.paths"


@dataclass(frozen=True, slots=True)
class Rest:
    """Closed-loop load of wrk."""

    url: str
    requests: Requests
    tokens: Callable[[], list[str]]

    def run(self, *, concurrency: int, seconds: float) -> Load:
        """Keep this many calls in flight."""
        tokens = RUN / "tokens"
        tokens.write_text("".join(f"{token}\n" for token in self.tokens()))
        flags = (f"-c{concurrency}", f"-d{seconds:.0f}s", "--timeout", "10s", "-s", str(_SCRIPT))
        asked = (str(self.requests.paths), str(self.requests.bodies), str(self.requests.writes), str(tokens))
        told = _run(tools.program("wrk"), "-t1", *flags, self.url, "--", *asked)
        return _checked(Load(**json.loads(_found(r"^JSON (.*)$", told))))


@dataclass(frozen=True, slots=True)
class Grpc:
    """Closed-loop load of `grpc_load.py`."""

    spec: Spec
    tokens: Callable[[], list[str]] = list

    def run(self, *, concurrency: int, seconds: float) -> Load:
        """Keep this many calls in flight, over at most four connections."""
        spec = replace(self.spec, concurrency=concurrency, seconds=seconds, tokens=tuple(self.tokens()))
        return _python("grpc_load", asdict(spec))


@dataclass(frozen=True, slots=True)
class OpenLoop:
    """Open-loop load of `open_loop.py`: the concurrency is that of the connections, not of the callers.

    Attributes:
        rate: returns how many requests a second are due. Called when the load begins: it may depend on earlier load.
    """

    url: str
    requests: Requests
    tokens: Callable[[], list[str]]
    rate: Callable[[], float]

    def run(self, *, concurrency: int, seconds: float) -> Load:
        """Send the requests when they are due."""
        asked = {"paths": str(self.requests.paths), "bodies": str(self.requests.bodies), "writes": self.requests.writes}
        spec = {"address": self.url.removeprefix("http://"), "token": self.tokens()[0], **asked}
        return _python("open_loop", {**spec, "rate": self.rate(), "seconds": seconds, "connections": concurrency})


@dataclass(frozen=True, slots=True)
class H2load:
    """Closed-loop load of h2load: gRPC over clear text, one message for ever, in the name of one caller.

    It does not see the status of a call, so the size of the reply says whether calls failed: those have none.
    """

    url: str
    message: bytes
    reply_bytes: int
    tokens: Callable[[], list[str]]

    def run(self, *, concurrency: int, seconds: float) -> Load:
        """Keep this many calls in flight, over four connections."""
        body, log = RUN / "h2load.bin", RUN / "h2load.log"
        body.write_bytes(b"\0" + len(self.message).to_bytes(4, "big") + self.message)
        log.unlink(missing_ok=True)  # it appends
        flags = ("-t1", "-c4", f"-m{concurrency // 4}", f"-D{seconds:.0f}", "-d", str(body), f"--log-file={log}")
        fields = ("content-type: application/grpc", "te: trailers", f"authorization: Bearer {self.tokens()[0]}")
        headers = [part for field in fields for part in ("-H", field)]
        told = _run(tools.program("h2load"), *flags, *headers, self.url)
        failed = int(_found(r"(\d+) failed", told)) + int(_found(r"(\d+) errored", told))
        # A line a request: when it began, the HTTP status, and how long it took.
        took_us = sorted(int(line.split()[2]) for line in log.read_text().splitlines())
        wanted = len(took_us) * (self.reply_bytes + 5)  # with gRPC's prefix
        failed += int(_found(r"\((\d+)\) data$", told)) < 0.99 * wanted
        p50_ms, p99_ms = (took_us[int(len(took_us) * share)] / 1000 for share in (0.5, 0.99)) if took_us else (0.0, 0.0)
        return _checked(Load(len(took_us), failed, float(_found(r"finished in ([\d.]+)s", told)), p50_ms, p99_ms))


@dataclass(frozen=True, slots=True)
class Pgbench:
    """The floor: one prepared SELECT of a user, with no service in between."""

    url: str

    def run(self, *, concurrency: int, seconds: float) -> Load:
        """Keep this many queries in flight."""
        script = RUN / "pgbench.sql"
        script.write_text(
            "\\set n random(1, 100000)\n"
            "SELECT id, email, display_name, profile, state, roles, created_at, updated_at, version FROM users\n"
            "WHERE id = ('01900000-0000-7000-8000-' || lpad(to_hex(:n::bigint), 12, '0'))::uuid;\n"
        )
        flags = ("-n", "-M", "prepared", "-j1", f"-c{concurrency}", f"-T{seconds:.0f}", "-f", str(script))
        told = _run(tools.pgbench(), *flags, self.url)
        requests = int(_found(r"processed: (\d+)", told))
        mean_ms = float(_found(r"latency average = ([\d.]+) ms", told))
        return Load(requests, 0, requests / float(_found(r"tps = ([\d.]+)", told)), mean_ms, float("nan"))


def _python(module: str, spec: Mapping[str, object]) -> Load:
    file = RUN / f"{module}.json"
    file.write_text(json.dumps(spec))
    return _checked(Load(**json.loads(_run(sys.executable, "-m", f"tests.perf.{module}", str(file)))))


def _checked(load: Load) -> Load:
    if load.failed:
        raise LoadFailed(f"{load.failed} of {load.requests} calls failed")
    return load


def _run(*command: str) -> str:
    env = tools.environment()
    ended = subprocess.run(command, cwd=REPOSITORY, env=env, capture_output=True, text=True, timeout=1200, check=False)
    if ended.returncode:
        raise LoadFailed(f"`{command[0]}` ended with {ended.returncode}: {ended.stderr[-2000:]}{ended.stdout[-2000:]}")
    return ended.stdout


def _found(pattern: str, told: str) -> str:
    match = re.search(pattern, told, re.MULTILINE)
    if match is None:
        raise LoadFailed(f"no {pattern!r} in: {told[-2000:]}")
    return match[1]
