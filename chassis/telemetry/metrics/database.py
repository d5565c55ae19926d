"""Metrics of SQL statements, of the connections that they use, and of batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client import Gauge, Histogram

from chassis.telemetry.metrics import REGISTRY, SECONDS, SERVER_LABELS

if TYPE_CHECKING:
    from collections.abc import Callable

    from chassis.telemetry.endpoints import Endpoint

_POOL: Final = "db_client_connection_pool_name"
_SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)

_statements: Final = Histogram(
    "db_client_operation_duration_seconds",
    "Duration of a statement, until its rows were there.",
    (
        "db_system_name",
        "db_namespace",
        "db_query_summary",
        "db_response_status_code",
        "error_type",
        *SERVER_LABELS,
    ),
    buckets=SECONDS,
    registry=REGISTRY,
)
_connections: Final = Gauge(
    "db_client_connection_count",
    "Connections by their state, idle or used.",
    (_POOL, "db_client_connection_state"),
    registry=REGISTRY,
)
_connections_max: Final = Gauge(
    "db_client_connection_max",
    "Maximum number of connections.",
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


class StatementMetrics:
    """The statements that are sent to one database."""

    def __init__(self, database: str, server: Endpoint) -> None:
        self._database: Final = database
        self._server: Final = server
        self._by_outcome: Final[dict[tuple[str, str], Histogram]] = {}

    def ended(self, summary: str, *, duration_s: float, sqlstate: str, error_type: str) -> None:
        """Count a statement that has ended; `sqlstate` and `error_type` as tracing.end_statement() takes them."""
        histogram = self._by_outcome.get((summary, error_type))
        if histogram is None:
            histogram = _statements.labels(
                "postgresql", self._database, summary, sqlstate, error_type, *self._server.labels()
            )
            self._by_outcome[summary, error_type] = histogram
        histogram.observe(duration_s)


def watch_connections(
    pool: str, *, count: Callable[[], tuple[int, int]], size: int, waiting: Callable[[], int]
) -> None:
    """Show the use of the database's connections; the functions are called at each scrape.

    Args:
        pool: the database's name.
        count: returns the number of used and of idle connections.
        size: the maximum number of connections.
        waiting: returns how many tasks wait for one.
    """
    _connections_max.labels(pool).set(size)
    _connections.labels(pool, "used").set_function(lambda: count()[0])
    _connections.labels(pool, "idle").set_function(lambda: count()[1])
    _connections_pending.labels(pool).set_function(waiting)


def batch_ran(batch: str, *, size: int) -> None:
    """Count a batch and the calls that it served; its name is one of a few in the code."""
    _batch_size.labels(batch).observe(size)
