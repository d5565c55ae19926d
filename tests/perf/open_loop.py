"""Open-loop load over HTTP/1.1: `python -m tests.perf.open_loop SPEC`, one JSON object on stdout.

wrk waits for an answer before it sends the next request. While a server stalls, wrk sends nothing, and the stall is one
slow answer among thousands ("coordinated omission"). Here requests are due at fixed times, whatever the server does. A
latency counts from the time when the request was due, including the wait for a free connection.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import sys
import time
from collections import Counter, deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import uvloop
from typing_extensions import override


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """The calls to send.

    Attributes:
        address: host:port.
        paths: a file with one path a line, asked for in turn.
        bodies: a file with one order a line, as JSON; empty if none are placed.
        writes: the share of the requests that place one of these orders, from 0 to 1.
        token: the access token.
        rate: requests a second.
        seconds: for how long.
        connections: that wait for requests.
        method: GET, or the verb of a write, which sends `body` as JSON.
        patience_s: how late a request is sent at most; one that found no free connection by then is not sent at all,
            as a caller who is kept waiting leaves.
    """

    address: str
    paths: str
    token: str
    bodies: str = ""
    writes: float = 0
    rate: float
    seconds: float
    connections: int = 128
    method: str = "GET"
    body: str = ""
    patience_s: float = math.inf


# Above 2,000 requests a second several become due together, at most 0.5 ms late: to wake the loop for each would leave
# it no time to send them.
_TOGETHER_S: Final = 0.0005

_REASON: Final = re.compile(rb'"reason" ?: ?"([A-Z_]+)"')


class Connections:
    """The connections that are free, the requests that are due, and what came back."""

    def __init__(self, total: int, *, patience_s: float) -> None:
        self._total: Final = total
        self._patience_s: Final = patience_s
        self.unsent = 0
        self.all_answered: Final = asyncio.Event()
        self.free: Final[deque[Connection]] = deque()
        self.due: Final[deque[tuple[float, bytes]]] = deque()
        self.latencies_s: Final[list[float]] = []
        self.failures: Final[Counter[str]] = Counter()

    def answered(self, latency_s: float, *, failure: str) -> None:
        """Count an answer; `failure` is empty if it is a success."""
        self.latencies_s.append(latency_s)
        if failure:
            self.failures[failure] += 1
        self._end()

    def send(self) -> None:
        """Send what is due as far as connections are free."""
        while self.due and self.free:
            due_s, request = self.due.popleft()
            if time.perf_counter() - due_s <= self._patience_s:
                self.free.popleft().send(due_s, request)
            else:
                self.unsent += 1
                self._end()

    def _end(self) -> None:
        if len(self.latencies_s) + self.unsent == self._total:
            self.all_answered.set()


class Connection(asyncio.Protocol):
    """One kept-alive connection, one request at a time."""

    def __init__(self, pool: Connections) -> None:
        self._pool: Final = pool
        self._buffer = b""
        self._due_s = 0.0
        self._transport: asyncio.Transport

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._pool.free.append(self)

    def send(self, due_s: float, request: bytes) -> None:
        """Send a request that was due at this time."""
        self._due_s = due_s
        self._transport.write(request)

    @override
    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found or len(body) < _length_of(head):
            return
        self._pool.answered(time.perf_counter() - self._due_s, failure=_failure(head, body))
        self._buffer = b""
        self._pool.free.append(self)
        self._pool.send()


def _failure(head: bytes, body: bytes) -> str:
    """Return the status and the reason, as `429 OVERLOADED`; nothing for a success."""
    status = head[9:12].decode()
    reason = _REASON.search(body)
    return "" if status.startswith("2") else f"{status} {reason[1].decode() if reason else 'without a reason'}"


def _length_of(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line[15:])
    raise ValueError("an answer without content-length")


def requests_of(spec: Spec, paths: list[str]) -> list[bytes]:
    """Return the requests in their order, the writes evenly among them."""
    bodies = Path(spec.bodies).read_text().splitlines() if spec.writes else []
    return [
        _request(spec, "POST", "/api/v1/orders", bodies[number % len(bodies)])
        if int((number + 1) * spec.writes) > int(number * spec.writes)
        else _request(spec, spec.method, path, spec.body)
        for number, path in enumerate(paths)
    ]


def _request(spec: Spec, method: str, path: str, body: str) -> bytes:
    headers = f"Host: {spec.address}\r\nAuthorization: Bearer {spec.token}\r\n"
    if body:
        headers += f"Content-Type: application/json\r\nContent-Length: {len(body.encode())}\r\n"
    return f"{method} {path} HTTP/1.1\r\n{headers}\r\n{body}".encode()


async def run(spec: Spec, paths: list[str]) -> dict[str, Any]:
    """Ask for the paths when they are due and return what came back."""
    total = int(spec.rate * spec.seconds)
    pool, loop = Connections(total, patience_s=spec.patience_s), asyncio.get_running_loop()
    host, port = spec.address.split(":")
    for _ in range(spec.connections):
        await loop.create_connection(lambda: Connection(pool), host, int(port))
    requests = requests_of(spec, paths)
    started_s = time.perf_counter()

    def due_s(number: int) -> float:
        return started_s + number / spec.rate

    def become_due(numbers: range) -> None:
        pool.due.extend((due_s(number), requests[number % len(requests)]) for number in numbers)
        pool.send()

    def keep_time() -> None:
        together = max(1, int(spec.rate * _TOGETHER_S))
        for first in range(0, total, together):
            numbers = range(first, min(first + together, total))
            time.sleep(max(0.0, due_s(numbers[-1]) - time.perf_counter()))  # the pace is what makes it an open loop
            loop.call_soon_threadsafe(become_due, numbers)

    # A thread, because a timer of the loop is a millisecond late.
    await asyncio.to_thread(keep_time)
    await asyncio.wait_for(pool.all_answered.wait(), timeout=30)
    ordered = sorted(pool.latencies_s)
    return {
        "requests": len(ordered),
        "failed": pool.failures.total(),
        "failures": pool.failures,
        "seconds": time.perf_counter() - started_s,
        "p50_ms": ordered[len(ordered) // 2] * 1000,
        "p99_ms": ordered[int(len(ordered) * 0.99)] * 1000,
        "p999_ms": ordered[int(len(ordered) * 0.999)] * 1000,
    }


if __name__ == "__main__":
    spec_ = Spec(**json.loads(Path(sys.argv[1]).read_text()))
    print(json.dumps(uvloop.run(run(spec_, Path(spec_.paths).read_text().split()))))
