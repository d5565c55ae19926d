"""The facts of a call: from its headers when it begins, for its log line when it has ended."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast

from chassis.context import Call
from chassis.telemetry import tracing

if TYPE_CHECKING:
    from collections.abc import Iterable

    from grpc import aio

    Context = aio.ServicerContext[Any, Any]


def call_of(method: str, context: Context, now: float) -> Call:
    """Return the call of `/package.Service/Method` with its deadline, on the clock of `now`, and its headers."""
    # None if the caller named no deadline, although grpcio's types say otherwise.
    time_left_s = cast("float | None", context.time_remaining())
    call = Call(method, deadline=math.inf if time_left_s is None else now + time_left_s)
    for key, value in cast("Iterable[tuple[str, str]]", context.invocation_metadata() or ()):
        if key == "x-request-id":
            call.request_id = value
        elif key == "traceparent":
            call.traceparent = tracing.valid_traceparent(value)
        elif key == "authorization":
            call.authorization = _with(value, call.authorization)
        elif key == "idempotency-key":
            call.idempotency_key = _with(value, call.idempotency_key)
        elif key == "if-match":
            call.if_match = _with(value, call.if_match)
    return call


def _with(value: str, earlier: str | None) -> str:
    """Return a header that may have come in several lines, which mean one list (RFC 9110, 5.3)."""
    return f"{earlier},{value}" if earlier else value


def log_fields(call: Call) -> dict[str, object]:
    """Return the fields of the line that is logged when the call has ended."""
    fields: dict[str, object] = {"method": call.method, "code": call.code}
    if call.caller.subject:
        fields["caller"] = call.caller.subject
    if call.reason:
        fields["reason"] = call.reason
    if call.deprecated:
        fields["deprecated"] = call.deprecated
    return fields
