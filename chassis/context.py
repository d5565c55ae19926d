"""The context of a call: the caller, its ids, its deadline."""

from __future__ import annotations

import math
import time
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final
from uuid import UUID

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.trace import Span


class Role(StrEnum):
    """The role of a caller; the contract's shop.system.v1.Role."""

    USER = "USER"
    SUPPORT = "SUPPORT"
    ADMIN = "ADMIN"
    SERVICE = "SERVICE"


@dataclass(frozen=True, slots=True)
class Caller:
    """The caller of an rpc.

    Attributes:
        subject: a user's id, or a service's name; empty for an anonymous caller.
        roles: what the caller may do.
        session_id: the session of the caller's token; empty without one.
        expires_at_s: when the caller's token is no longer good, in seconds since 1970; never, without one.
    """

    subject: str = ""
    roles: frozenset[Role] = frozenset()
    session_id: str = ""
    expires_at_s: float = field(default=math.inf, compare=False)


ANONYMOUS: Final = Caller()


@dataclass(slots=True)
class Call:
    """One RPC being served.

    Attributes:
        method: `/package.Service/Method`.
        deadline: when the caller stops waiting, on the clock of `time.monotonic`.
        request_id: the edge's id of the request; the same for every attempt that the edge makes.
        idempotency_key: the header of this name; None without it.
        if_match: the header of this name: the etag that a write is meant for; None without it.
        traceparent: the W3C trace context to pass on, of the call's own span if it is traced; or empty.
        authorization: the header of this name, or empty. A secret.
        owner: the only user whose resources this call may touch; empty for all of them.
        code: the status that was answered, by name; the interceptors set it.
        reason: the error's reason, or empty; the interceptors set it.
        deprecated: the full names of the deprecated fields and values that the request has.
        span: of the call, if it is traced and spans are exported.
    """

    method: str
    deadline: float
    request_id: str = ""
    idempotency_key: str | None = None
    if_match: str | None = None
    traceparent: str = ""
    authorization: str = field(default="", repr=False)
    caller: Caller = ANONYMOUS
    owner: str = ""
    code: str = "OK"
    reason: str = ""
    deprecated: Sequence[str] = ()
    span: Span | None = None

    def time_left_s(self) -> float:
        """Return the seconds until the caller stops waiting; negative when it already has."""
        return self.deadline - time.monotonic()


_current: ContextVar[Call | None] = ContextVar("call", default=None)
_deadline: ContextVar[float] = ContextVar("deadline", default=math.inf)


def current_call() -> Call | None:
    """Return the call being served, or None outside of one."""
    return _current.get()


def set_current_call(call: Call) -> None:
    """Make this the call being served, for this task and those it starts."""
    _current.set(call)


def set_batch_deadline(deadline: float) -> None:
    """Say when the last caller of a batch, which is work of no single call, stops waiting."""
    _deadline.set(deadline)


def time_left_s() -> float:
    """Return the seconds until the last caller of the work under way stops waiting; infinite if there is no caller."""
    call = _current.get()
    return (_deadline.get() if call is None else call.deadline) - time.monotonic()


def current_owner() -> UUID | None:
    """Return the only user whose resources the call being served may touch, or None if it may touch anybody's.

    Fails rather than returning None outside of a call: no filter means everything.
    """
    call = _current.get()
    if call is None:
        raise LookupError("no call is being served")
    return UUID(call.owner) if call.owner else None


def calling_user() -> str:
    """Return the id of the user whose call is being served; empty if its caller is a service, or is unknown."""
    call = _current.get()
    return "" if call is None or Role.SERVICE in call.caller.roles else call.caller.subject
