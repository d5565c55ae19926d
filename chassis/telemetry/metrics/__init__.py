"""Metrics: what this process counts and measures, for Prometheus to fetch.

Names are OpenTelemetry's where its conventions have one, in the form that Prometheus gives them; our own begin with
`shop_`. docs/observability.md lists each metric with its labels and its maximum number of series; a test compares the
two. Metrics belong to the process, because a process runs one service.

The modules of this package hold the metrics by subject. Callers use `metrics.batch_ran(…)` and never a metric itself.
"""

from chassis.telemetry.metrics.calls import (
    SERVER_FAULTS,
    CallMetrics,
    StreamMetrics,
    breaker_is,
    breaker_rejected,
    write_replayed,
)
from chassis.telemetry.metrics.database import StatementMetrics, batch_ran, watch_connections
from chassis.telemetry.metrics.events import (
    consumer_is_incomplete,
    consumer_lacks_events,
    consumer_looked_at,
    event_died,
    events_consumed,
    events_cut,
    events_published,
    events_vanished,
    outbox_looked_at,
)
from chassis.telemetry.metrics.process import log_lines_lost, loop_lagged, serving, watch_certificates, watch_tasks
from chassis.telemetry.metrics.registry import REGISTRY

__all__ = [
    "REGISTRY",
    "SERVER_FAULTS",
    "CallMetrics",
    "StatementMetrics",
    "StreamMetrics",
    "batch_ran",
    "breaker_is",
    "breaker_rejected",
    "consumer_is_incomplete",
    "consumer_lacks_events",
    "consumer_looked_at",
    "event_died",
    "events_consumed",
    "events_cut",
    "events_published",
    "events_vanished",
    "log_lines_lost",
    "loop_lagged",
    "outbox_looked_at",
    "serving",
    "watch_certificates",
    "watch_connections",
    "watch_tasks",
    "write_replayed",
]
