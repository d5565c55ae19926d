"""What is observed of every call that a service makes: its duration, and a span if the call it serves is traced."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from chassis.telemetry import tracing
from chassis.telemetry.endpoints import Endpoint
from chassis.telemetry.metrics import CallMetrics

if TYPE_CHECKING:
    from opentelemetry.trace import Span


class ClientTelemetry:
    """The `observer` of a channel's policy.

    Args:
        target: of the channel.
    """

    def __init__(self, target: str) -> None:
        self._server: Final = Endpoint.of_target(target)
        self._calls: Final[dict[str, CallMetrics]] = {}

    def begin(self, method: str) -> ClientCall:
        """Take note of a call that begins."""
        calls = self._calls.get(method)
        if calls is None:
            calls = self._calls[method] = CallMetrics(method, server=self._server)
        span, traceparent = tracing.begin_client_call(method, server=self._server)
        return ClientCall(calls, span, traceparent)


class ClientCall:
    """One call to another service.

    Attributes:
        traceparent: what to send: of its own span if it has one.
    """

    __slots__ = ("_calls", "_span", "_started", "traceparent")

    def __init__(self, calls: CallMetrics, span: Span | None, traceparent: str) -> None:
        self.traceparent = traceparent
        self._calls = calls
        self._span = span
        self._started = time.monotonic()

    def end(self, code: str) -> None:
        """Take note of how it ended."""
        trace_id = self.traceparent[3:35] if self._span else ""
        self._calls.ended(code, duration_s=time.monotonic() - self._started, trace_id=trace_id)
        if self._span:
            tracing.end_client_call(self._span, code)
