"""HTTP/2 by hand: what no library sends, such as requests for answers that are never read."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING = 0, 1, 3, 4, 6
_END_STREAM, _END_HEADERS, _ACK = 1, 4, 1
_INITIAL_WINDOW_SIZE: Final = 4


class Http2Connection:
    """A connection from an address of its own, on which streams are opened and nothing is read unless asked for.

    Args:
        port: of the edge, on loopback.
        address: whom the edge takes this for.
        window: how many bytes of an answer each stream may send before it has to wait.
    """

    def __init__(self, port: int, *, address: str, window: int = 65_535) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=30, source_address=(address, 0))
        self._next = 1
        self._unread = b""
        settings = _INITIAL_WINDOW_SIZE.to_bytes(2, "big") + window.to_bytes(4, "big")
        self._socket.sendall(_PREFACE + frame(_SETTINGS, 0, 0, settings))

    def open(self, headers: Mapping[str, str], *, body: bytes = b"", ends: bool = True) -> int:
        """Open a stream with a request and return its number."""
        stream, self._next = self._next, self._next + 2
        ends_now = _END_STREAM if ends and not body else 0
        frames = frame(_HEADERS, _END_HEADERS | ends_now, stream, b"".join(map(_literal, headers.items())))
        if body:
            frames += frame(_DATA, _END_STREAM if ends else 0, stream, body)
        self._socket.sendall(frames)
        return stream

    def get(self, path: str) -> int:
        """Open a stream with a GET of the path and return its number."""
        return self.open({":method": "GET", ":scheme": "http", ":path": path, ":authority": "shop.example"})

    def call(self, path: str, message: bytes, *, token: str = "", ends: bool = True) -> int:
        """Open a stream with a gRPC call and return its number."""
        headers = {
            ":method": "POST",
            ":scheme": "http",
            ":path": path,
            ":authority": "shop.example",
            "content-type": "application/grpc",
            "te": "trailers",
        }
        if token:
            headers["authorization"] = f"Bearer {token}"
        return self.open(headers, body=b"\0" + len(message).to_bytes(4, "big") + message, ends=ends)

    def begun(self, count: int, *, timeout_s: float = 20) -> int:
        """Return how many streams' answers have begun: as many as said, or fewer if no more come for a time."""
        answered: set[int] = set()
        for kind, stream in self._frames(timeout_s=timeout_s):
            if kind == _HEADERS:
                answered.add(stream)
            if len(answered) == count:
                break
        return len(answered)

    def resets(self, *, timeout_s: float) -> set[int]:
        """Return the streams that the edge has given up when nothing more has come for a time."""
        return {stream for kind, stream in self._frames(timeout_s=timeout_s) if kind == _RST_STREAM}

    def _frames(self, *, timeout_s: float) -> Iterator[tuple[int, int]]:
        self._socket.settimeout(timeout_s)
        with contextlib.suppress(TimeoutError):
            while True:
                head = self._read(9)
                if len(head) < 9:
                    return
                length, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
                payload = self._read(length)
                if kind == _PING and not flags & _ACK:
                    self._socket.sendall(frame(_PING, _ACK, 0, payload))
                if kind == _SETTINGS and not flags & _ACK:
                    self._socket.sendall(frame(_SETTINGS, _ACK, 0, b""))
                yield kind, int.from_bytes(head[5:9], "big")

    def _read(self, length: int) -> bytes:
        while len(self._unread) < length:
            try:
                chunk = self._socket.recv(1 << 16)
            except ConnectionError:
                chunk = b""
            if not chunk:
                return b""
            self._unread += chunk
        data, self._unread = self._unread[:length], self._unread[length:]
        return data

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def __enter__(self) -> Self:
        """Return this connection, which is open."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Hang up."""
        self.close()


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Return an HTTP/2 frame (RFC 9113, 4.1)."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def _literal(header: tuple[str, str]) -> bytes:
    """Return a header as a literal that is not to be remembered (RFC 7541, 6.2.2)."""
    return b"\0" + b"".join(_length(len(text)) + text.encode() for text in header)


def _length(number: int) -> bytes:
    """Return an integer with a prefix of seven bits (RFC 7541, 5.1)."""
    if number < 127:
        return bytes((number,))
    encoded, rest = bytearray((127,)), number - 127
    while rest >= 128:
        encoded.append(rest % 128 + 128)
        rest //= 128
    encoded.append(rest)
    return bytes(encoded)
