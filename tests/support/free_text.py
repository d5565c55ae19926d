"""The text that callers write into requests as they like, read from the contract and found again in stores."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.descriptor import Descriptor, FileDescriptor
    from redis import Redis


def free_texts(*files: FileDescriptor) -> set[str]:
    """Return the names of the fields of requests into which a caller can write what they like."""
    return {
        name
        for file in files
        for service in file.services_by_name.values()
        for method in service.methods
        for name in _free_texts(method.input_type)
    }


def _free_texts(message: Descriptor) -> Iterator[str]:
    for field in message.fields:
        name = field.message_type.full_name if field.message_type else ""
        if name == "google.protobuf.Struct":
            yield field.name
        elif name.startswith("shop."):
            yield from _free_texts(field.message_type)
        elif field.type == field.TYPE_STRING and not field.name.endswith(("id", "ids", "etag", "token")):
            yield field.name


def stored_text(stored: Redis) -> str:
    """Return every event and every other value in Redis."""
    streams = [stored.xrange(key) for key in stored.keys() if stored.type(key) == "stream"]  # noqa: SIM118  no dict
    hashes = [stored.hgetall(key) for key in stored.keys() if stored.type(key) == "hash"]  # noqa: SIM118  no dict
    return str((streams, hashes))
