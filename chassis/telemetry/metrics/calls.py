"""Metrics of calls and streams, of circuit breakers, and of repeated writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client import Counter, Gauge, Histogram

from chassis.telemetry.metrics import REGISTRY, SECONDS, SERVER_LABELS

if TYPE_CHECKING:
    from chassis.telemetry.endpoints import Endpoint

# The status codes for which the server is at fault, by OpenTelemetry's conventions for gRPC. All others are refusals,
# which are no errors of the server.
SERVER_FAULTS: Final = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)

# `error_type` is empty unless the call failed; Prometheus treats an empty label as absent.
_CALL_LABELS: Final = ("rpc_system_name", "rpc_method", "rpc_response_status_code", "error_type")

_server_duration: Final = Histogram(
    "rpc_server_call_duration_seconds",
    "Time from a call's arrival to its answer. Its count is the number of calls.",
    _CALL_LABELS,
    buckets=SECONDS,
    registry=REGISTRY,
)
_server_active: Final = Gauge(
    "shop_calls_active",
    "Calls being served.",
    ("rpc_method",),
    registry=REGISTRY,
)
# Streams are not counted as calls: the duration of a stream says nothing about the speed of the service.
_streams_active: Final = Gauge(
    "shop_streams_active",
    "Streams that are open.",
    ("rpc_method",),
    registry=REGISTRY,
)
_streams_ended: Final = Counter(
    "shop_streams_ended",
    "Streams that have ended, by status code.",
    ("rpc_method", "rpc_response_status_code"),
    registry=REGISTRY,
)
_client_duration: Final = Histogram(
    "rpc_client_call_duration_seconds",
    "Duration of a call to another service, retries included.",
    (*_CALL_LABELS, *SERVER_LABELS),
    buckets=SECONDS,
    registry=REGISTRY,
)
_breaker_state: Final = Gauge(
    "shop_breaker_state",
    "1 for the state that the breaker is in, 0 for the others.",
    ("dependency", "state"),
    registry=REGISTRY,
)
_breaker_rejections: Final = Counter(
    "shop_breaker_rejections",
    "Calls that an open breaker rejected.",
    ("dependency",),
    registry=REGISTRY,
)
_replays: Final = Counter(
    "shop_idempotent_replays",
    "Writes that were answered with the stored response of an earlier write.",
    ("rpc_method",),
    registry=REGISTRY,
)


class CallMetrics:
    """The calls of one method. Histograms are looked up once per status code and not at each call.

    Args:
        method: `/package.Service/Method`.
        server: the server that is called; None for calls that this process serves.

    Attributes:
        active: how many calls are being served; the caller of this class counts them.
    """

    def __init__(self, method: str, *, server: Endpoint | None = None) -> None:
        self.active = 0
        self._method: Final = method.lstrip("/")
        self._server: Final = server
        self._by_code: Final[dict[str, Histogram]] = {}
        if server is None:
            # Read when Prometheus scrapes: setting a gauge twice in each call would cost as much as the histogram.
            _server_active.labels(self._method).set_function(lambda: self.active)

    def ended(self, code: str, *, duration_s: float, trace_id: str = "") -> None:
        """Count a call that has ended; the trace id, if any, becomes the exemplar of its bucket."""
        histogram = self._by_code.get(code)
        if histogram is None:
            histogram = self._by_code[code] = self._histogram_of(code)
        histogram.observe(duration_s, {"trace_id": trace_id} if trace_id else None)

    def _histogram_of(self, code: str) -> Histogram:
        if self._server is None:
            return _server_duration.labels("grpc", self._method, code, code if code in SERVER_FAULTS else "")
        error_type = "" if code == "OK" else code
        return _client_duration.labels("grpc", self._method, code, error_type, *self._server.labels())


class StreamMetrics:
    """The streams of one method that this process serves.

    Attributes:
        active: how many are open; the caller of this class counts them.
    """

    def __init__(self, method: str) -> None:
        self.active = 0
        self._method: Final = method.lstrip("/")
        _streams_active.labels(self._method).set_function(lambda: self.active)

    def ended(self, code: str) -> None:
        """Count a stream that has ended."""
        _streams_ended.labels(self._method, code).inc()


def breaker_is(state: str, *, dependency: str) -> None:
    """Show a breaker's state: `closed`, `open` or `half-open`."""
    for each in ("closed", "open", "half-open"):
        _breaker_state.labels(dependency, each).set(each == state)


def breaker_rejected(dependency: str) -> None:
    """Count a call that an open breaker rejected."""
    _breaker_rejections.labels(dependency).inc()


def write_replayed(method: str) -> None:
    """Count a write of `/package.Service/Method` that was answered with the stored response of an earlier one."""
    _replays.labels(method.lstrip("/")).inc()
