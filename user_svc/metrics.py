"""The metrics of users: password hashes, the most expensive work of the service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client import Gauge, Histogram

from chassis.telemetry.metrics import REGISTRY

if TYPE_CHECKING:
    from collections.abc import Callable

# One hash takes some 60 ms of a core; the rest is the queue.
_SECONDS: Final = (0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

_hash_duration: Final = Histogram(
    "shop_password_hash_duration_seconds",
    "Time to make or check a password hash, with the wait for a thread.",
    buckets=_SECONDS,
    registry=REGISTRY,
)
_hashes_waiting: Final = Gauge("shop_password_hashes_waiting", "Hashes that wait for a thread.", registry=REGISTRY)


def watch_hashes(waiting: Callable[[], int]) -> None:
    """Show how many hashes wait, by asking for it whenever Prometheus does."""
    _hashes_waiting.set_function(waiting)


def hash_took(duration_s: float) -> None:
    """Count a hash."""
    _hash_duration.observe(duration_s)
