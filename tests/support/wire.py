"""Bytes that no generated stub would send."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from grpc import aio

# Protobuf's wire types (protobuf.dev/programming-guides/encoding).
VARINT: Final = 0
LENGTH_DELIMITED: Final = 2


class Wire:
    """A channel that sends bytes and receives bytes."""

    def __init__(self, channel: aio.Channel) -> None:
        self._channel = channel

    async def send(self, method: str, message: bytes) -> bytes:
        return bytes(await self._channel.unary_unary(method)(message))


def delimited(field: int, content: bytes) -> bytes:
    """Return a field that holds text, bytes or a message."""
    return varint(field << 3 | LENGTH_DELIMITED) + varint(len(content)) + content


def number(field: int, value: int) -> bytes:
    """Return a field that holds a number."""
    return varint(field << 3 | VARINT) + varint(value)


def varint(value: int) -> bytes:
    encoded = b""
    while value > 0x7F:
        encoded += bytes([value & 0x7F | 0x80])
        value >>= 7
    return encoded + bytes([value])
