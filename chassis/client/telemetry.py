"""Telemetry of the calls that a service makes: a duration for each, and a span if the call being served is traced."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from chassis.telemetry import tracing
from chassis.telemetry.endpoints import Endpoint
from chassis.telemetry.metrics.calls import CallMetrics

if TYPE_CHECKING:
    from opentelemetry.trace import Span


class ClientTelemetry:
    """Observes the calls of a channel to a gRPC target; the `observer` of its policy."""

    def __init__(self, target: str) -> None:
        self._server: Final = Endpoint.of_target(target)
        self._metrics: Final[dict[str, CallMetrics]] = {}

    def begin(self, method: str) -> ClientCall:
        """Record the start of a call."""
        metrics = self._metrics.get(method)
        if metrics is None:
            metrics = self._metrics[method] = CallMetrics(method, server=self._server)
        span, traceparent = tracing.begin_client_call(method, server=self._server)
        return ClientCall(metrics, span, traceparent)


class ClientCall:
    """One call to another service.

    Attributes:
        traceparent: the header to send: of the call's own span, if it has one.
    """

    __slots__ = ("_metrics", "_span", "_started", "traceparent")

    def __init__(self, metrics: CallMetrics, span: Span | None, traceparent: str) -> None:
        self.traceparent = traceparent
        self._metrics = metrics
        self._span = span
        self._started = time.monotonic()

    def end(self, code: str) -> None:
        """Record the end of the call, with the name of its status code."""
        trace_id = self.traceparent[3:35] if self._span else ""
        self._metrics.ended(code, duration_s=time.monotonic() - self._started, trace_id=trace_id)
        if self._span:
            tracing.end_client_call(self._span, code)
