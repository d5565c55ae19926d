"""Metrics: what this process counts and measures, for Prometheus to fetch.

The names are OpenTelemetry's where it has one, in the form that Prometheus gives them; what is ours begins with
`shop_`. docs/observability.md lists each with its labels and how many series it can have; a test compares the two.
They are of the process, as its log is: there is one service in a process.
"""

from __future__ import annotations

import contextlib
import time
from functools import partial
from typing import TYPE_CHECKING, Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    start_http_server,
)

from chassis.errors import StartupError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime

    from chassis.telemetry.endpoints import Endpoint

# A series more for each counter and histogram, which says when it began, and which nobody here asks for.
disable_created_metrics()  # type: ignore[no-untyped-call]  # the library types half of itself

# Not prometheus_client's own, to which any library may add.
REGISTRY: Final = CollectorRegistry()

# Of calls and statements: a lookup takes 1 to 5 ms, the SLO is 250 ms, the longest call 30 s. The conventions' own
# buckets begin at 5 ms, which would put every good call into one.
_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)

# The codes that say that the server is at fault, as OpenTelemetry's conventions for gRPC have it: to a server a refusal
# is no error.
SERVER_FAULTS: Final = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)

# `error_type` is empty, which to Prometheus is absent, unless the call failed.
_CALL_LABELS: Final = ("rpc_system_name", "rpc_method", "rpc_response_status_code", "error_type")
_SERVER_LABELS: Final = ("server_address", "server_port")

_server_duration: Final = Histogram(
    "rpc_server_call_duration_seconds",
    "Time from a call's arrival to its answer. Its count is the number of calls.",
    _CALL_LABELS,
    buckets=_SECONDS,
    registry=REGISTRY,
)
_server_active: Final = Gauge(
    "shop_calls_active",
    "Calls being served.",
    ("rpc_method",),
    registry=REGISTRY,
)
# Not among the calls: how long a stream lasts says nothing of how fast the service is.
_streams_active: Final = Gauge(
    "shop_streams_active",
    "Streams that are open.",
    ("rpc_method",),
    registry=REGISTRY,
)
_streams_ended: Final = Counter(
    "shop_streams_ended",
    "Streams that have ended, by how.",
    ("rpc_method", "rpc_response_status_code"),
    registry=REGISTRY,
)
_client_duration: Final = Histogram(
    "rpc_client_call_duration_seconds",
    "Time that a call to another service took, its repetitions included.",
    (*_CALL_LABELS, *_SERVER_LABELS),
    buckets=_SECONDS,
    registry=REGISTRY,
)
_statements: Final = Histogram(
    "db_client_operation_duration_seconds",
    "Time that a statement took, until its rows were there.",
    (
        "db_system_name",
        "db_namespace",
        "db_query_summary",
        "db_response_status_code",
        "error_type",
        *_SERVER_LABELS,
    ),
    buckets=_SECONDS,
    registry=REGISTRY,
)
_POOL: Final = "db_client_connection_pool_name"
_connections: Final = Gauge(
    "db_client_connection_count",
    "Connections by their state, idle or used.",
    (_POOL, "db_client_connection_state"),
    registry=REGISTRY,
)
_connections_max: Final = Gauge(
    "db_client_connection_max",
    "Connections that there may be.",
    (_POOL,),
    registry=REGISTRY,
)
_connections_pending: Final = Gauge(
    "db_client_connection_pending_requests",
    "Work that waits for a connection.",
    (_POOL,),
    registry=REGISTRY,
)
_batch_size: Final = Histogram(
    "shop_batch_size",
    "Calls that one batch served.",
    ("batch",),
    buckets=_SIZES,
    registry=REGISTRY,
)
_outbox_unpublished: Final = Gauge(
    "shop_outbox_unpublished_events",
    "Events that wait to be published.",
    registry=REGISTRY,
)
_outbox_size: Final = Gauge(
    "shop_outbox_size_bytes",
    "Disk that the table of events and its indexes take.",
    registry=REGISTRY,
)
_outbox_age: Final = Gauge(
    "shop_outbox_oldest_age_seconds",
    "Age of the oldest event that waits to be published; 0 without one.",
    registry=REGISTRY,
)
_events_published: Final = Counter(
    "shop_events_published",
    "Events that were sent to Redis, each as often as it was.",
    ("stream",),
    registry=REGISTRY,
)
_events_consumed: Final = Counter(
    "shop_events_consumed",
    "Events that were done with: they took effect, now or before.",
    ("stream",),
    registry=REGISTRY,
)
_dead_letters: Final = Counter(
    "shop_events_dead",
    "Events that became dead letters.",
    ("stream",),
    registry=REGISTRY,
)
_dead_letters_kept: Final = Gauge(
    "shop_dead_letters",
    "Events that could not take effect and wait for a person; a thousand at most are counted.",
    ("stream",),
    registry=REGISTRY,
)
_consumer_lacks: Final = Gauge(
    "shop_consumer_lacks_events",
    "1 while events are missing from the stream and come from the outbox, else 0.",
    ("stream",),
    registry=REGISTRY,
)
_consumer_incomplete: Final = Gauge(
    "shop_consumer_is_incomplete",
    "1 if events are gone that the outbox has no more, else 0.",
    ("stream",),
    registry=REGISTRY,
)
_events_cut: Final = Counter(
    "shop_stream_events_cut",
    "Events that were removed from the stream before every group had read them.",
    ("stream",),
    registry=REGISTRY,
)
_events_vanished: Final = Counter(
    "shop_events_vanished",
    "Events in the stream that the outbox does not have: its database was restored to an earlier time.",
    ("stream",),
    registry=REGISTRY,
)
_consumer_behind: Final = Gauge(
    "shop_consumer_behind_seconds",
    "Age of the moment up to which every event is known to have taken effect.",
    ("stream",),
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
    "Calls that an open breaker did not make.",
    ("dependency",),
    registry=REGISTRY,
)
_replays: Final = Counter(
    "shop_idempotent_replays",
    "Writes that were answered with the answer of an earlier one.",
    ("rpc_method",),
    registry=REGISTRY,
)
_loop_lag: Final = Histogram(
    "shop_event_loop_lag_seconds",
    "How much later than asked for the event loop let a timer run, ten times a second.",
    # What one caller sends may hold it for 0.1 s; 2.5 ms is a turn of a page that is made.
    buckets=(0.0025, 0.01, 0.025, 0.1, 0.25, 1, 5),
    registry=REGISTRY,
)
_log_lines_dropped: Final = Counter(
    "shop_log_lines_dropped",
    "Log lines that were lost because nobody took them.",
    registry=REGISTRY,
)

_process: Final = Gauge(
    "shop_process_info",
    "1, with the command that the process runs: what no process of a job shows is missing.",
    ("command",),
    registry=REGISTRY,
)
_certificate_ends: Final = Gauge(
    "shop_certificate_expiration_timestamp_seconds",
    "When a certificate ends that the process goes by, in seconds since 1970.",
    ("certificate",),
    registry=REGISTRY,
)

ProcessCollector(registry=REGISTRY)


class CallMetrics:
    """The calls of one method. What each call needs is looked up once.

    Args:
        method: `/package.Service/Method`.
        server: who is called; None for calls that are served.
    """

    __slots__ = ("_by_code", "_method", "_server", "active")

    def __init__(self, method: str, *, server: Endpoint | None = None) -> None:
        self.active = 0
        self._method: Final = method.lstrip("/")
        self._server: Final = server
        self._by_code: Final[dict[str, Histogram]] = {}
        if server is None:
            # Asked for when Prometheus asks: a gauge that each call sets twice costs as much as the histogram.
            _server_active.labels(self._method).set_function(lambda: self.active)

    def ended(self, code: str, *, duration_s: float, trace_id: str = "") -> None:
        """Count a call that has ended; a traced one becomes the example of its bucket."""
        histogram = self._by_code.get(code)
        if histogram is None:
            histogram = self._by_code[code] = self._of_code(code)
        histogram.observe(duration_s, {"trace_id": trace_id} if trace_id else None)

    def _of_code(self, code: str) -> Histogram:
        if self._server is None:
            return _server_duration.labels("grpc", self._method, code, code if code in SERVER_FAULTS else "")
        error_type = "" if code == "OK" else code
        return _client_duration.labels("grpc", self._method, code, error_type, *self._server.labels())


class StatementMetrics:
    """The statements that are sent to one database.

    Args:
        database: its name.
        server: where it is.
    """

    __slots__ = ("_database", "_known", "_server")

    def __init__(self, database: str, server: Endpoint) -> None:
        self._database: Final = database
        self._server: Final = server
        self._known: Final[dict[tuple[str, str], Histogram]] = {}

    def ended(self, summary: str, *, duration_s: float, sqlstate: str, error_type: str) -> None:
        """Count a statement that has ended.

        Args:
            summary: what it does to which tables.
            duration_s: how long it took.
            sqlstate: of one that the database refused.
            error_type: the same, or the exception's name; empty unless it failed.
        """
        histogram = self._known.get((summary, error_type))
        if histogram is None:
            histogram = _statements.labels(
                "postgresql", self._database, summary, sqlstate, error_type, *self._server.labels()
            )
            self._known[summary, error_type] = histogram
        histogram.observe(duration_s)


class StreamMetrics:
    """The streams of one method that are served."""

    __slots__ = ("_method", "active")

    def __init__(self, method: str) -> None:
        self.active = 0
        self._method: Final = method.lstrip("/")
        _streams_active.labels(self._method).set_function(lambda: self.active)

    def ended(self, code: str) -> None:
        """Count a stream that has ended."""
        _streams_ended.labels(self._method, code).inc()


def watch_connections(
    pool: str, *, count: Callable[[], tuple[int, int]], size: int, waiting: Callable[[], int]
) -> None:
    """Show the use of the database's connections, by asking for it whenever Prometheus does.

    Args:
        pool: the database's name.
        count: how many are used and how many are idle.
        size: how many there may be.
        waiting: how much work waits for one.
    """
    _connections_max.labels(pool).set(size)
    _connections.labels(pool, "used").set_function(lambda: count()[0])
    _connections.labels(pool, "idle").set_function(lambda: count()[1])
    _connections_pending.labels(pool).set_function(waiting)


def batch_ran(batch: str, *, size: int) -> None:
    """Count a batch.

    Args:
        batch: its name, one of a few in the code.
        size: how many calls it served.
    """
    _batch_size.labels(batch).observe(size)


def outbox_looked_at(*, unpublished: int, oldest_age_s: float, size_bytes: int) -> None:
    """Show how far the outbox is behind, and how much disk it takes."""
    _outbox_unpublished.set(unpublished)
    _outbox_age.set(oldest_age_s)
    _outbox_size.set(size_bytes)


def watch_certificates(ends: Mapping[str, Callable[[], datetime]]) -> None:
    """Show when certificates end, by asking for it whenever Prometheus does.

    Args:
        ends: by what they are to the process: its own, its authorities'.
    """
    for certificate, when in ends.items():
        _certificate_ends.labels(certificate).set_function(partial(_seconds_at, when))


def _seconds_at(when: Callable[[], datetime]) -> float:
    return when().timestamp()


def events_published(stream: str, *, count: int) -> None:
    """Count events that are in the stream."""
    _events_published.labels(stream).inc(count)


def events_consumed(stream: str, *, count: int) -> None:
    """Count events that are done with."""
    _events_consumed.labels(stream).inc(count)


def event_died(stream: str) -> None:
    """Count an event that became a dead letter."""
    _dead_letters.labels(stream).inc()


def consumer_looked_at(stream: str, *, as_of: datetime | None, dead_letters: int) -> None:
    """Show how long ago the moment is until which every event took effect, and how many events could not."""
    if as_of is not None:
        since = as_of.timestamp()
        _consumer_behind.labels(stream).set_function(lambda: time.time() - since)
    _dead_letters_kept.labels(stream).set(dead_letters)


def consumer_lacks_events(stream: str, *, is_so: bool) -> None:
    """Show whether events are missing from the stream."""
    _consumer_lacks.labels(stream).set(is_so)


def consumer_is_incomplete(stream: str, *, is_so: bool) -> None:
    """Show whether events are gone that nothing can bring back."""
    _consumer_incomplete.labels(stream).set(is_so)


def events_cut(stream: str, *, count: int) -> None:
    """Count events that were removed before every group had read them."""
    _events_cut.labels(stream).inc(count)


def events_vanished(stream: str, *, count: int) -> None:
    """Count events of the stream that the outbox does not have."""
    _events_vanished.labels(stream).inc(count)


def breaker_is(state: str, *, dependency: str) -> None:
    """Show a breaker's state."""
    for each in ("closed", "open", "half-open"):
        _breaker_state.labels(dependency, each).set(each == state)


def breaker_rejected(dependency: str) -> None:
    """Count a call that was not made."""
    _breaker_rejections.labels(dependency).inc()


def write_replayed(method: str) -> None:
    """Count a write that was answered with an earlier answer.

    Args:
        method: `/package.Service/Method`.
    """
    _replays.labels(method.lstrip("/")).inc()


def loop_lagged(lag_s: float) -> None:
    """Count one look at how late the event loop is."""
    _loop_lag.observe(lag_s)


def log_lines_lost(count: int) -> None:
    """Count log lines that nobody took."""
    _log_lines_dropped.inc(count)


@contextlib.contextmanager
def serving(port: int, *, host: str, target: Mapping[str, str], command: str) -> Iterator[None]:
    """Serve `/metrics` while the block runs.

    Args:
        port: where; 0 for nowhere.
        host: the address to listen on.
        target: what this process is, as labels of `target_info`.
        command: what it runs: `serve`, `relay`, `consume`.

    Raises:
        StartupError: somebody else listens on the port.
    """
    REGISTRY.set_target_info(dict(target))
    _process.labels(command).set(1)
    if not port:
        yield
        return
    try:
        server, thread = start_http_server(port, host, REGISTRY)
    except OSError as error:
        raise StartupError(f"METRICS_PORT: {host}:{port} cannot be listened on: {error.strerror}") from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
