"""Calls as the interceptors of a channel pass them on, with and without asyncio."""

from __future__ import annotations

import asyncio
import contextvars
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from grpc import aio

from chassis.client import CallPolicy
from chassis.client.interceptors import AioStreamDefaults, AioUnaryDefaults
from chassis.context import set_current_call
from tests.support.notes_svc.requests import create_note_request

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from chassis.client.interceptors import Token
    from chassis.context import Call

METHOD: Final = "/a.B/C"


class Sent:
    """A call as an interceptor passed it on."""

    def __init__(self, details: Any, request: Any) -> None:
        self.timeout_s: float = details.timeout
        self.metadata = list(details.metadata)
        self.request = request


@dataclass(frozen=True, kw_only=True)
class Sending:
    """A CreateNote to send, perhaps while a call is being served."""

    serving: Call | None = None
    timeout_s: float | None = None
    metadata: list[tuple[str, str]] | None = None
    policy: CallPolicy = CallPolicy(timeout_s=10)  # noqa: RUF009  frozen
    token: Token | None = None

    def by(self, send: Callable[[Sending], Sent]) -> Sent:
        """Return the call as the function sends it."""

        def send_now() -> Sent:
            if self.serving is not None:
                set_current_call(self.serving)
            return send(self)

        return contextvars.copy_context().run(send_now)


def send_aio(sending: Sending) -> Sent:
    return _intercepted(AioUnaryDefaults(sending.policy, sending.token).intercept_unary_unary, sending)


def open_aio_stream(sending: Sending) -> Sent:
    return _intercepted(AioStreamDefaults(sending.token).intercept_unary_stream, sending)


def _intercepted(intercept: Callable[..., Awaitable[Any]], sending: Sending) -> Sent:
    async def continuation(details: Any, request: Any) -> Sent:
        return Sent(details, request)

    async def send() -> Sent:
        named = aio.Metadata(*sending.metadata) if sending.metadata is not None else None
        details = aio.ClientCallDetails(METHOD, sending.timeout_s, named, None, None)
        sent: Sent = await intercept(continuation, details, create_note_request())
        return sent

    return asyncio.run(send())
