"""A gRPC caller that sends frames as it likes, over HTTP/2 without TLS: what no library of gRPC would send."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import h2.config
import h2.connection
import h2.events
from google.rpc import error_details_pb2
from google.rpc.status_pb2 import Status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence


@dataclass
class Answer:
    """The answer on one stream.

    Attributes:
        headers: of the answer and its trailers.
        data: its body.
        was_reset: whether the stream was reset before its end.
    """

    headers: dict[str, str] = field(default_factory=dict)
    data: bytes = b""
    was_reset: bool = False

    @property
    def code(self) -> int | None:
        """gRPC's status, or None without one."""
        return int(self.headers["grpc-status"]) if "grpc-status" in self.headers else None

    @property
    def reason(self) -> str:
        """The reason of the error, or empty without one."""
        encoded = self.headers.get("grpc-status-details-bin", "")
        status = Status.FromString(base64.b64decode(encoded + "=" * (-len(encoded) % 4)))
        info = error_details_pb2.ErrorInfo()
        return info.reason if any(each.Unpack(info) for each in status.details) else ""

    @property
    def header_bytes(self) -> int:
        """The size of all headers, as HTTP/2 counts it (RFC 9113, 6.5.2)."""
        return sum(len(name.encode()) + len(value.encode()) + 32 for name, value in self.headers.items())


class Caller:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_strict: bool) -> None:
        self._reader = reader
        self._writer = writer
        config = h2.config.H2Configuration(
            header_encoding="utf-8", validate_outbound_headers=is_strict, normalize_outbound_headers=is_strict
        )
        self._connection = h2.connection.H2Connection(config)
        self._answers: dict[int, Answer] = {}
        self._ended: dict[int, asyncio.Event] = {}
        self._connection.initiate_connection()
        self._listening = asyncio.create_task(self._listen())

    @classmethod
    async def connect(cls, address: str, *, is_strict: bool = True) -> Self:
        """Return a caller that is connected to host:port; if it is not strict, it may send malformed headers."""
        host, port = address.rsplit(":", 1)
        return cls(*await asyncio.open_connection(host, int(port)), is_strict=is_strict)

    async def close(self) -> None:
        """Close the connection."""
        self._listening.cancel()
        self._writer.close()
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await self._listening
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def begin(self, method: str, *, headers: Sequence[tuple[str, str]] = (), ends: bool = False) -> int:
        """Begin a call of `/package.Service/Method`, and end it at once if wanted; return its stream."""
        stream = self._connection.get_next_available_stream_id()
        self._answers[stream], self._ended[stream] = Answer(), asyncio.Event()
        common = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", method),
            (":authority", "shop"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ]
        self._connection.send_headers(stream, [*common, *headers], end_stream=ends)
        await self._flush()
        return stream

    async def send(self, stream: int, data: bytes, *, ends: bool = False) -> None:
        """Send bytes of the call's body; they must fit the window."""
        while len(data) > self._connection.max_outbound_frame_size:
            part, data = data[:16384], data[16384:]
            self._connection.send_data(stream, part)
        self._connection.send_data(stream, data, end_stream=ends)
        await self._flush()

    async def reset(self, stream: int) -> None:
        """Leave a call."""
        self._connection.reset_stream(stream, error_code=8)  # CANCEL
        self._ended[stream].set()
        await self._flush()

    async def answer(self, stream: int, *, timeout_s: float = 10) -> Answer:
        """Return the answer to a call once it has ended.

        Raises:
            TimeoutError: it never ends.
        """
        async with asyncio.timeout(timeout_s):
            await self._ended[stream].wait()
        return self._answers[stream]

    async def call(
        self,
        method: str,
        body: bytes,
        *,
        headers: Sequence[tuple[str, str]] = (),
        trailers: Sequence[tuple[str, str]] = (),
        timeout_s: float = 10,
    ) -> Answer:
        """Return the answer to a call with this body, whatever it is."""
        stream = await self.begin(method, headers=headers, ends=not body)
        if body:
            await self.send(stream, body, ends=not trailers)
        if trailers:
            self._connection.send_headers(stream, trailers, end_stream=True)
            await self._flush()
        return await self.answer(stream, timeout_s=timeout_s)

    async def _listen(self) -> None:
        while data := await self._reader.read(65536):
            for event in self._connection.receive_data(data):
                self._take(event)
            await self._flush()
        for ended in self._ended.values():
            ended.set()

    def _take(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.ResponseReceived() | h2.events.TrailersReceived():
                self._answers[event.stream_id].headers.update({str(k): str(v) for k, v in event.headers})
            case h2.events.DataReceived():
                self._answers[event.stream_id].data += event.data
                self._connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case h2.events.StreamReset():
                self._answers[event.stream_id].was_reset = True
                self._ended[event.stream_id].set()
            case h2.events.StreamEnded():
                self._ended[event.stream_id].set()

    async def _flush(self) -> None:
        self._writer.write(self._connection.data_to_send())
        await self._writer.drain()


@contextlib.asynccontextmanager
async def caller_of(address: str, *, is_strict: bool = True) -> AsyncIterator[Caller]:
    """Be connected to host:port while the block runs; `is_strict` as for Caller.connect()."""
    caller = await Caller.connect(address, is_strict=is_strict)
    try:
        yield caller
    finally:
        await caller.close()


def frame(message: bytes, *, flag: int = 0, length: int | None = None) -> bytes:
    """Return a message with gRPC's prefix: a flag for compression, and its length or the one that is claimed."""
    return struct.pack(">BI", flag, len(message) if length is None else length) + message
