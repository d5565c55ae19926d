"""From a request message to what the service needs besides its content: the request's key."""

from __future__ import annotations

import functools
import hashlib
from typing import TYPE_CHECKING
from uuid import UUID

from chassis.context import current_call
from chassis.errors import FieldViolation, InvalidFields
from chassis.idempotency import Once, RequestKey

if TYPE_CHECKING:
    from datetime import datetime

    from google.protobuf.descriptor import Descriptor
    from google.protobuf.message import Message


def once(request: Message, *, now: datetime) -> Once:
    """Return what makes this write take effect once.

    The key is the message's `request_id`, else the header `idempotency-key`, else the edge's `x-request-id`, which
    stays the same over the edge's own retries. Called directly and with none of them, a write cannot be repeated.

    Raises:
        InvalidFields: the header `idempotency-key` is no UUID.
    """
    call = current_call()
    if call is None:
        return Once(key=None, now=now)
    chosen: str = getattr(request, "request_id", "") or call.idempotency_key
    try:
        request_id = UUID(chosen or call.request_id)
    except ValueError:
        if not chosen:  # an x-request-id that is not the edge's
            return Once(key=None, now=now)
        violation = FieldViolation("idempotency-key", "must be a valid UUID", "string.uuid")
        raise InvalidFields([violation]) from None
    key = RequestKey(call.caller.subject, call.method, request_id, fingerprint(request))
    return Once(key, now)


def fingerprint(request: Message) -> bytes:
    """Return a digest of the request's content, 32 bytes.

    Without the request id, which is not content, and without fields marked `debug_redact`: a plain digest of a weak
    password would give it away. The service compares those itself.
    """
    content = type(request)()
    content.CopyFrom(request)
    for name in _no_content(request.DESCRIPTOR):
        content.ClearField(name)
    return hashlib.sha256(content.SerializeToString(deterministic=True)).digest()


@functools.cache
def _no_content(message: Descriptor) -> list[str]:
    return [field.name for field in message.fields if field.name == "request_id" or field.GetOptions().debug_redact]
