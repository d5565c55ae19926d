"""The idempotency key of a write: what makes two requests the same request."""

from __future__ import annotations

import functools
import hashlib
import re
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final, TypeAlias
from uuid import UUID

from chassis.context import current_call
from chassis.errors import InvalidFields
from chassis.keys import uuid_of

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from google.protobuf.descriptor import Descriptor
    from google.protobuf.message import Message

    from chassis.keys import Key

LIFETIME: Final = timedelta(hours=24)
"""How long a response is kept under its key."""

_HEADER: Final = "idempotency-key"
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)

# Clients that forget to choose an id send one of these, and would have every request taken for a repetition.
_UNCHOSEN: Final = frozenset({UUID(int=0), UUID(int=2**128 - 1)})

# Caller, method, request id: the primary key of the table.
KeyTuple: TypeAlias = "tuple[str, str, UUID]"


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """The key of one request.

    Attributes:
        caller: the subject of the caller; empty for an anonymous one.
        method: `/package.Service/Method`.
        request_id: the caller's id of the request; None if the caller gave none: then nothing can be remembered.
        fingerprint: a digest of the request's content, without secrets and without the id.
        received_at: when the request came, aware. A key expires by it.
    """

    caller: str
    method: str
    request_id: UUID | None
    fingerprint: bytes
    received_at: datetime

    @classmethod
    def absent(cls, *, received_at: datetime) -> IdempotencyKey:
        """Return the key of a request that cannot be repeated."""
        return cls("", "", None, b"", received_at)

    @property
    def identity(self) -> KeyTuple | None:
        """The key as the table has it; None if the caller gave none."""
        return None if self.request_id is None else (self.caller, self.method, self.request_id)

    def is_claimed(self, claimed: Collection[KeyTuple]) -> bool:
        """Return whether the request may take effect: its key was claimed, or it has none."""
        return self.identity is None or self.identity in claimed

    def row(self, *, resource_id: Key | None = None, response: bytes | None = None) -> dict[str, object]:
        """Return the key as a row of `store.COLUMNS`, with the response to store."""
        return {
            "key_caller": self.caller,
            "key_method": self.method,
            "key_request_id": self.request_id,
            "key_fingerprint": self.fingerprint.hex(),
            "key_created_at": self.received_at,
            "key_resource_id": None if resource_id is None else uuid_of(resource_id),
            "key_response": response and response.decode(),
        }


def key_of(request: Message, *, now: datetime) -> IdempotencyKey:
    """Return the idempotency key of the write that is being served.

    The id is the message's `request_id`, else the header `idempotency-key`, else the edge's `x-request-id`, which stays
    the same over the edge's own retries. A service that is called directly, with none of them, cannot recognise a
    repetition.

    Raises:
        InvalidFields: the header `idempotency-key` is no UUID, bare or in quotes; or the id is the nil or the max UUID.
    """
    call = current_call()
    if call is None:
        return IdempotencyKey.absent(received_at=now)
    stated: str = getattr(request, "request_id", "")
    chosen = stated or _header_id(call.idempotency_key)
    try:
        request_id = UUID(chosen or call.request_id)
    except ValueError:  # an x-request-id that the edge did not make
        return IdempotencyKey.absent(received_at=now)
    if request_id in _UNCHOSEN:
        message = "must be a UUID made for this request, not one that is the same for all"
        raise InvalidFields.of("requestId" if stated else _HEADER, message, "request_id.unchosen")
    return IdempotencyKey(call.caller.subject, call.method, request_id, fingerprint(request), now)


def _header_id(header: str | None) -> str:
    """Return the UUID in the header, which the IETF's draft puts in quotes; empty without a header."""
    if header is None:
        return ""
    key = header[1:-1] if header[:1] == header[-1:] == '"' else header
    if not _UUID.fullmatch(key):
        message = 'must be one UUID, bare or in double quotes, such as "8e03978e-40d5-43dd-bc93-6894a57f9324"'
        raise InvalidFields.of(_HEADER, message, "string.uuid")
    return key


def fingerprint(request: Message) -> bytes:
    """Return a digest of the request's content, 32 bytes.

    Without the request id, which is not content, and without fields marked `debug_redact`: a plain digest of a weak
    password would give it away. The service compares those itself.
    """
    content = type(request)()
    content.CopyFrom(request)
    for name in _excluded_fields(request.DESCRIPTOR):
        content.ClearField(name)
    return hashlib.sha256(content.SerializeToString(deterministic=True)).digest()


@functools.cache
def _excluded_fields(message: Descriptor) -> list[str]:
    return [field.name for field in message.fields if field.name == "request_id" or field.GetOptions().debug_redact]


def first_of_each_key(keys: Sequence[IdempotencyKey]) -> list[int]:
    """Return the numbers of the keys that no earlier one is equal to."""
    first: dict[KeyTuple | int, int] = {}
    for n, key in enumerate(keys):
        first.setdefault(key.identity or n, n)
    return list(first.values())
