"""Closed-loop load over gRPC: `python -m tests.perf.grpc_load SPEC`, one JSON object on stdout.

h2load sends one body for ever: one user, one request id. Here every call has a body of its own, for a few microseconds
of CPU: frames are put together from bytes that were encoded before, and the answers' frames are looked at, not decoded.
A call that failed has no DATA frame: that tells success from failure. `checks.py` reads answers with a real client.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import math
import ssl
import struct
import sys
import time
import uuid
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import uvloop
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _ACK, _END_HEADERS = 1, 1, 4
_FRAME_HEADER: Final = 9
_LARGEST_WINDOW: Final = 2**31 - 1
_FIRST_DYNAMIC_INDEX: Final = 62  # RFC 7541: 61 names are static
_SAMPLED_ONE_IN: Final = 100
_REQUEST_ID_FIELD: Final = b"\x22\x24"  # field 4, a string of 36 bytes: CreateOrderRequest.request_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """The requests to send.

    Attributes:
        address: host:port, or several, separated by commas, for the connections to take in turn.
        method: `/package.Service/Method`.
        bodies: a file with one base64 message a line, sent in turn.
        seconds: for how long.
        concurrency: calls in flight, all connections together.
        connections: to share them.
        tokens: access tokens; each connection has one of them.
        is_once: whether each message gets a new request_id.
        tls: folder of ca.crt, tls.crt and tls.key for mutual TLS; empty for clear text.
        server_name: in the server's certificate.
    """

    address: str
    method: str
    bodies: str
    seconds: float = 0
    concurrency: int = 0
    connections: int = 4
    tokens: tuple[str, ...] = ()
    is_once: bool = False
    tls: str = ""
    server_name: str = ""

    def credentials(self) -> ssl.SSLContext | None:
        """Return what a TLS connection is made with; None for clear text."""
        if not self.tls:
            return None
        folder = Path(self.tls)
        context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
        context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
        context.set_alpn_protocols(["h2"])
        return context


@dataclass(slots=True)
class Tally:
    """The answers of all connections. `numbers` numbers the calls uniquely among all runs."""

    latencies_s: list[float]
    failed: int = 0
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(time.time_ns()))


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return one HTTP/2 frame."""
    return struct.pack(">IBI", len(payload) << 8 | kind, flags, stream) + payload


def _text(value: str) -> bytes:
    raw = value.encode()
    if len(raw) < 127:
        return bytes([len(raw)]) + raw
    length, encoded = len(raw) - 127, bytearray([127])
    while length >= 128:
        encoded.append(length % 128 + 128)
        length //= 128
    return bytes([*encoded, length]) + raw


# Literals that do not enter the peer's table (RFC 7541, 6.2.2).
_REQUEST_ID_NAME: Final = b"\x00" + _text("x-request-id")
_TRACE_NAME: Final = b"\x00" + _text("traceparent")


def header_blocks(headers: list[tuple[str, str]]) -> tuple[bytes, bytes]:
    """Return the header block of a connection's first request, and that of all that follow.

    The first enters each header into the peer's table, the others name the entries, as real clients do.
    """
    first = b"".join(b"\x40" + _text(name) + _text(value) for name, value in headers)
    newest_first = reversed(range(len(headers)))
    return first, bytes(0x80 | (_FIRST_DYNAMIC_INDEX + index) for index in newest_first)


def ids_of_call(number: int) -> bytes:
    """Return the header fields that differ from call to call, as the edge sets them: request id and trace."""
    request_id = b"%08x-0000-4000-8000-%012x" % (number >> 48, number & 0xFFFFFFFFFFFF)
    is_sampled = number % _SAMPLED_ONE_IN == 0
    trace = b"00-%032x-%016x-%02x" % (number, number, is_sampled)
    return _REQUEST_ID_NAME + b"%c" % len(request_id) + request_id + _TRACE_NAME + b"%c" % len(trace) + trace


class Connection(asyncio.Protocol):
    """One HTTP/2 connection that keeps a number of calls in flight until it is stopped.

    Args:
        headers: of every request.
        message: returns the next request message.
        in_flight: how many calls at a time.
        tally: counts every answer.
    """

    def __init__(
        self, headers: list[tuple[str, str]], *, message: Callable[[], bytes], in_flight: int, tally: Tally
    ) -> None:
        self._first, self._next = header_blocks(headers)
        self._message: Final = message
        self._in_flight: Final = in_flight
        self._tally: Final = tally
        self._started_s: Final[dict[int, float]] = {}
        self._with_message: Final[set[int]] = set()
        self._buffer = b""
        self._stream = 1
        self._window = 65_535
        self._waiting: deque[bytes] = deque()
        self._transport: asyncio.Transport
        self.is_stopping = False
        self.ended: Final = asyncio.get_running_loop().create_future()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        settings = struct.pack(">HI", 4, _LARGEST_WINDOW)
        room = struct.pack(">I", _LARGEST_WINDOW - 65_535)
        opening = _PREFACE + frame(_SETTINGS, 0, 0, settings) + frame(_WINDOW_UPDATE, 0, 0, room)
        self._transport.write(opening + b"".join(self._call() for _ in range(self._in_flight)))

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_exception(exc or ConnectionError("the server closed the connection"))

    @override
    def data_received(self, data: bytes) -> None:
        out: list[bytes] = []
        buffer, at = self._buffer + data, 0
        while len(buffer) - at >= _FRAME_HEADER:
            length_and_kind, flags, stream = struct.unpack_from(">IBI", buffer, at)
            end = at + _FRAME_HEADER + (length_and_kind >> 8)
            if end > len(buffer):
                break
            self._frame(length_and_kind & 0xFF, flags, stream, buffer[at + _FRAME_HEADER : end], out)
            at = end
        self._buffer = buffer[at:]
        while self._waiting and self._took_room_for(self._waiting[0]):
            out.append(self._waiting.popleft())
        if out:
            self._transport.write(b"".join(out))
        if self.is_stopping and not self._started_s and not self.ended.done():
            self.ended.set_result(None)
            self._transport.close()

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes, out: list[bytes]) -> None:
        if kind == _DATA and payload:
            self._with_message.add(stream)
        is_end = kind == _RST_STREAM or (kind in {_DATA, _HEADERS} and flags & _END_STREAM)
        # grpc-go may reset a stream that it has just ended, when it answers before it has seen the end of the request.
        if is_end and stream in self._started_s:
            self._answered(stream)
            if not self.is_stopping:
                out.append(self._call())
        elif kind == _WINDOW_UPDATE and stream == 0:
            self._window += struct.unpack(">I", payload)[0]
        elif kind == _SETTINGS and not flags & _ACK:
            out.append(frame(_SETTINGS, _ACK, 0))
        elif kind == _PING and not flags & _ACK:
            out.append(frame(_PING, _ACK, 0, payload))
        elif kind == _GOAWAY:
            raise ConnectionError(f"the server goes away: {payload[8:].decode(errors='replace')}")

    def _answered(self, stream: int) -> None:
        self._tally.latencies_s.append(time.perf_counter() - self._started_s.pop(stream))
        if stream in self._with_message:
            self._with_message.remove(stream)
        else:
            self._tally.failed += 1

    def _call(self) -> bytes:
        """Return the frames of the next call; its message waits if the server has no room for it."""
        message = self._message()
        body = b"\0" + struct.pack(">I", len(message)) + message
        block = self._first if self._stream == 1 else self._next
        frames = frame(_HEADERS, _END_HEADERS, self._stream, block + ids_of_call(next(self._tally.numbers)))
        data = frame(_DATA, _END_STREAM, self._stream, body)
        self._started_s[self._stream] = time.perf_counter()
        self._stream += 2
        if self._waiting or not self._took_room_for(data):
            self._waiting.append(data)
            return frames
        return frames + data

    def _took_room_for(self, data: bytes) -> bool:
        """Take room for a DATA frame from the connection's window, if it has it. Frame headers need none."""
        room = self._window - (len(data) - _FRAME_HEADER)
        if room < 0:
            return False
        self._window = room
        return True


def _messages(spec: Spec) -> Iterator[bytes]:
    bodies = [base64.b64decode(line) for line in Path(spec.bodies).read_text().splitlines()]
    for body in itertools.cycle(bodies):
        yield body + _REQUEST_ID_FIELD + str(uuid.uuid4()).encode() if spec.is_once else body


def _headers(spec: Spec, number: int) -> list[tuple[str, str]]:
    headers = [
        (":method", "POST"),
        (":scheme", "https" if spec.tls else "http"),
        (":path", spec.method),
        (":authority", spec.server_name or spec.address.partition(",")[0]),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("grpc-timeout", "15S"),
        ("user-agent", "shop-bench"),
    ]
    if spec.tokens:
        headers.append(("authorization", f"Bearer {spec.tokens[number % len(spec.tokens)]}"))
    return headers


async def run(spec: Spec) -> dict[str, Any]:
    """Send calls for as long as the spec says, let those in flight end, and return what came back."""
    tally, message = Tally([]), _messages(spec).__next__
    addresses = [address.split(":") for address in spec.address.split(",")]
    loop = asyncio.get_running_loop()
    credentials = spec.credentials()
    share, rest = divmod(spec.concurrency, spec.connections)
    started = time.perf_counter()
    connections: list[Connection] = []
    for number in range(min(spec.connections, spec.concurrency)):
        headers, in_flight = _headers(spec, number), share + (number < rest)

        def make(headers: list[tuple[str, str]] = headers, in_flight: int = in_flight) -> Connection:
            return Connection(headers, message=message, in_flight=in_flight, tally=tally)

        host, port = addresses[number % len(addresses)]
        name = spec.server_name if credentials else None
        _, connection = await loop.create_connection(make, host, int(port), ssl=credentials, server_hostname=name)
        connections.append(connection)
    ends = asyncio.gather(*(connection.ended for connection in connections))
    await asyncio.wait([ends], timeout=spec.seconds)
    for connection in connections:
        connection.is_stopping = True
    await asyncio.wait_for(ends, timeout=30)
    return _summary(tally, elapsed_s=time.perf_counter() - started)


def _summary(tally: Tally, *, elapsed_s: float) -> dict[str, Any]:
    ordered = sorted(tally.latencies_s) or [math.nan]
    return {
        "requests": len(tally.latencies_s),
        "failed": tally.failed,
        "seconds": elapsed_s,
        "p50_ms": ordered[len(ordered) // 2] * 1000,
        "p99_ms": ordered[int(len(ordered) * 0.99)] * 1000,
    }


if __name__ == "__main__":
    fields = json.loads(Path(sys.argv[1]).read_text())
    fields["tokens"] = tuple(fields["tokens"])
    print(json.dumps(uvloop.run(run(Spec(**fields)))))
