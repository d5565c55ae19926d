"""Metrics of events, from the outbox to the consumer."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from prometheus_client import Counter, Gauge

from chassis.telemetry.metrics import REGISTRY

if TYPE_CHECKING:
    from datetime import datetime

_outbox_unpublished: Final = Gauge(
    "shop_outbox_unpublished_events",
    "Events that are not published yet.",
    registry=REGISTRY,
)
_outbox_size: Final = Gauge(
    "shop_outbox_size_bytes",
    "Disk that the outbox table and its indexes take.",
    registry=REGISTRY,
)
_outbox_age: Final = Gauge(
    "shop_outbox_oldest_age_seconds",
    "Age of the oldest event that is not published yet; 0 without one.",
    registry=REGISTRY,
)
_published: Final = Counter(
    "shop_events_published",
    "Events that were sent to Redis; an event that is sent twice counts twice.",
    ("stream",),
    registry=REGISTRY,
)
_consumed: Final = Counter(
    "shop_events_consumed",
    "Events that the consumer has finished: they took effect, now or in an earlier delivery.",
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
    "Dead letters that wait for an operator; counted up to 1000.",
    ("stream",),
    registry=REGISTRY,
)
_consumer_lacks: Final = Gauge(
    "shop_consumer_lacks_events",
    "1 while events are missing from the stream and are read from the outbox instead, else 0.",
    ("stream",),
    registry=REGISTRY,
)
_consumer_incomplete: Final = Gauge(
    "shop_consumer_is_incomplete",
    "1 if events are missing that the outbox does not have any more, else 0.",
    ("stream",),
    registry=REGISTRY,
)
_cut: Final = Counter(
    "shop_stream_events_cut",
    "Events that were trimmed from the stream before every group had read them.",
    ("stream",),
    registry=REGISTRY,
)
_vanished: Final = Counter(
    "shop_events_vanished",
    "Events in the stream that the outbox does not have: its database was restored to an earlier time.",
    ("stream",),
    registry=REGISTRY,
)
_consumer_behind: Final = Gauge(
    "shop_consumer_behind_seconds",
    "Age of the consumer's watermark: every event before it is known to have taken effect.",
    ("stream",),
    registry=REGISTRY,
)


def outbox_looked_at(*, unpublished: int, oldest_age_s: float, size_bytes: int) -> None:
    """Show the outbox's backlog and the disk that it takes."""
    _outbox_unpublished.set(unpublished)
    _outbox_age.set(oldest_age_s)
    _outbox_size.set(size_bytes)


def events_published(stream: str, *, count: int) -> None:
    """Count events that were sent to the stream."""
    _published.labels(stream).inc(count)


def events_consumed(stream: str, *, count: int) -> None:
    """Count events that the consumer has finished."""
    _consumed.labels(stream).inc(count)


def event_died(stream: str) -> None:
    """Count an event that became a dead letter."""
    _dead_letters.labels(stream).inc()


def consumer_looked_at(stream: str, *, as_of: datetime | None, dead_letters: int, is_incomplete: bool) -> None:
    """Show the age of the consumer's watermark, if it has one, its dead letters, and whether it lacks lost events."""
    if as_of is not None:
        since = as_of.timestamp()
        _consumer_behind.labels(stream).set_function(lambda: time.time() - since)
    _dead_letters_kept.labels(stream).set(dead_letters)
    _consumer_incomplete.labels(stream).set(is_incomplete)


def consumer_lacks_events(stream: str, *, is_so: bool) -> None:
    """Show whether events are missing from the stream."""
    _consumer_lacks.labels(stream).set(is_so)


def events_cut(stream: str, *, count: int) -> None:
    """Count events that were trimmed before every group had read them."""
    _cut.labels(stream).inc(count)


def events_vanished(stream: str, *, count: int) -> None:
    """Count events of the stream that the outbox does not have."""
    _vanished.labels(stream).inc(count)
