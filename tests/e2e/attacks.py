"""The dearest requests that the contract's descriptors allow to think of, for every rpc, over REST and over gRPC."""

from __future__ import annotations

import functools
import gzip
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from google.protobuf.descriptor import FieldDescriptor

from envoy.body_limits import MAX_BODY_BYTES
from tests.e2e.contract import RPCS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from google.protobuf.descriptor import Descriptor

    from tests.e2e.contract import Binding, Rpc

JSON: Final = (("content-type", "application/json"),)
"""The headers of a request over REST with a body."""

_ID: Final = "01890000-0000-7000-8000-000000000000"
_STRUCT: Final = "google.protobuf.Struct"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """One request that costs more than it looks.

    Attributes:
        rpc: whom it is for.
        name: what is dear about it.
        verb: in capitals.
        path: with made-up ids.
        headers: beside the usual ones.
        body: all of it.
    """

    rpc: Rpc
    name: str
    verb: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def head(self, *, token: str, length: int | None = None) -> bytes:
        """Return the request over HTTP/1.1, up to its body, whose length it may lie about."""
        headers = (("host", "shop.example"), ("authorization", f"Bearer {token}"), *self.headers)
        lines = [f"{self.verb} {self.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers)]
        length = len(self.body) if length is None else length
        return "\r\n".join((*lines, f"content-length: {length}", "", "")).encode()


def attacks_on(rpc: Rpc, *, limit: Callable[[str], int]) -> Iterator[Attack]:
    """Yield every attack on the method.

    Args:
        rpc: the method.
        limit: the largest body that the edge takes at a path, as `/package.Service/Method`. Some attacks stay just
            below it, the others are of 10 MiB.
    """
    for size in (limit(rpc.path), MAX_BODY_BYTES):
        for name, body in _texts(rpc.request.DESCRIPTOR, size):
            for binding in rpc.bindings:
                yield _over_rest(binding, f"{name}, {_shown(size)}", body)
        for name, message in _messages(rpc.request.DESCRIPTOR, size - 5):
            yield _over_grpc(rpc, f"{name}, {_shown(size)}", message)
    yield _over_grpc(rpc, "64 MiB of nothing in a gzip", _gzip_of_nothing(), encoding="gzip")


@functools.cache  # it takes 0.2 s of CPU, and every method is sent the same
def _gzip_of_nothing() -> bytes:
    return gzip.compress(bytes(64 << 20), 9)


def _shown(size: int) -> str:
    return f"{size >> 10} KiB" if size < 1 << 20 else f"{size >> 20} MiB"


def _over_rest(binding: Binding, name: str, body: bytes) -> Attack:
    path = binding.call(dict.fromkeys(("id",), _ID)).path
    return Attack(rpc=binding.rpc, name=f"REST: {name}", verb=binding.verb, path=path, headers=JSON, body=body)


def _over_grpc(rpc: Rpc, name: str, message: bytes, *, encoding: str = "") -> Attack:
    headers = (("content-type", "application/grpc"), ("te", "trailers"))
    if encoding:
        headers = (*headers, ("grpc-encoding", encoding))
    framed = bytes((bool(encoding),)) + len(message).to_bytes(4, "big") + message
    return Attack(rpc=rpc, name=f"gRPC: {name}", verb="POST", path=rpc.path, headers=headers, body=framed)


def _texts(request: Descriptor, size: int) -> Iterator[tuple[str, bytes]]:
    """Yield JSON texts of about the size, with what is dear about each."""
    yield "lists in lists", b"[" * size
    yield "objects in objects", b'{"a":' * (size // 5)
    yield "white space", b"{" + b" " * (size - 1)
    for field in request.fields:
        name = json.dumps(field.json_name).encode()
        if field.is_repeated:
            element = b"{}" if field.message_type else b'""'
            yield f"empty {field.json_name}", _list_of(element, name, size)
        elif field.message_type and field.message_type.full_name == _STRUCT:
            yield f"numbers in {field.json_name}", b'{%b:{"a":%b}}' % (name, _repeated(b"1", size - 30))
            yield f"objects in {field.json_name}", b'{%b:{"a":%b}}' % (name, _repeated(b"{}", size - 30))
            yield (
                f"lists in {field.json_name}",
                b'{%b:{"a":%b}}' % (name, b"[" * (size // 2 - 20) + b"]" * (size // 2 - 20)),
            )
            yield f"names in {field.json_name}", b"{%b:{%b}}" % (name, _names(size - 30))
    text = next((field for field in request.fields if field.type == FieldDescriptor.TYPE_STRING), None)
    if text is not None:
        name = json.dumps(text.json_name).encode()
        yield f"a long {text.json_name}", b'{%b:"%b"}' % (name, b"a" * (size - len(name) - 6))
        yield (
            f"{text.json_name} again and again",
            b"{%b}" % b",".join([name + b':""'] * ((size - 2) // (len(name) + 4))),
        )


def _list_of(element: bytes, name: bytes, size: int) -> bytes:
    return b"{%b:%b}" % (name, _repeated(element, size - len(name) - 4))


def _repeated(element: bytes, size: int) -> bytes:
    return b"[" + b",".join([element] * ((size - 2) // (len(element) + 1))) + b"]"


def _names(size: int) -> bytes:
    return b",".join(b'"%06x":1' % number for number in range(size // 11))


def _messages(request: Descriptor, size: int) -> Iterator[tuple[str, bytes]]:
    """Yield messages of about the size, with what is dear about each."""
    yield "unknown fields", b"\xf8\x3f\x01" * (size // 3)
    yield "unknown groups", b"\xfb\x3f" * (size // 2)
    for field in request.fields:
        tag = _varint(field.number << 3 | 2)
        if field.is_repeated:
            yield f"empty {field.json_name}", (tag + b"\0") * (size // (len(tag) + 1))
        elif field.message_type and field.message_type.full_name == _STRUCT:
            yield f"numbers in {field.json_name}", _field(field.number, _struct(_list_value(size - 30)))
            yield f"lists in {field.json_name}", _deep(field.number, size - 30)
        elif field.type == FieldDescriptor.TYPE_STRING:
            yield f"a long {field.json_name}", _field(field.number, b"a" * (size - 8))


def _list_value(size: int) -> bytes:
    """Return a Value that is a list of empty Values."""
    return _field(6, b"\x0a\0" * (size // 2))


def _struct(value: bytes) -> bytes:
    return _field(1, _field(1, b"a") + _field(2, value))


def _deep(number: int, size: int) -> bytes:
    """Return a field with lists in lists, 5,000 of them at most: to make more takes the test long."""
    value = b"\x18\x01"
    for _ in range(min(size // 12, 5_000)):
        value = _field(6, _field(1, value))
    return _field(number, _struct(value))


def _field(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


ATTACKED: Final = tuple(rpc for rpc in RPCS if not rpc.is_stream)
