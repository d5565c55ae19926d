"""Metrics of the process itself, and the server of `/metrics`."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Final

from prometheus_client import Counter, Gauge, Histogram, ProcessCollector, start_http_server

from chassis.errors import StartupError
from chassis.telemetry.metrics import REGISTRY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime

# Often enough to find every delay of 100 ms; costs a ten-thousandth of a core.
_LOOK_EVERY_S: Final = 0.1

_loop_lag: Final = Histogram(
    "shop_event_loop_lag_seconds",
    "Delay between a timer's due time and its run by the event loop, measured ten times a second.",
    # One request may hold the loop for 0.1 s at most; making a page of a list holds it for 2.5 ms at a time.
    buckets=(0.0025, 0.01, 0.025, 0.1, 0.25, 1, 5),
    registry=REGISTRY,
)
_tasks: Final = Gauge(
    "shop_asyncio_tasks",
    "Tasks of the event loop that have not ended.",
    registry=REGISTRY,
)
_log_lines_dropped: Final = Counter(
    "shop_log_lines_dropped",
    "Log lines that were dropped because they could not be written.",
    registry=REGISTRY,
)
_process: Final = Gauge(
    "shop_process_info",
    "1, with the command that the process runs. If a job has no series for a command, that process is missing.",
    ("command",),
    registry=REGISTRY,
)
_certificate_ends: Final = Gauge(
    "shop_certificate_expiration_timestamp_seconds",
    "Expiry of a certificate that the process uses, in seconds since 1970.",
    ("certificate",),
    registry=REGISTRY,
)

ProcessCollector(registry=REGISTRY)


async def measure_loop_lag_forever() -> None:
    """Record the delay between a timer's due time and its run, ten times a second, until cancelled.

    While one call holds the loop, every other call of the replica waits. Requests are bounded so that no call holds the
    loop for more than 100 ms (docs/limits.md); this metric shows whether the bounds suffice. Not `periodic.every`: the
    pause itself is what is measured.
    """
    while True:
        due = time.monotonic() + _LOOK_EVERY_S
        await asyncio.sleep(_LOOK_EVERY_S)
        _loop_lag.observe(max(time.monotonic() - due, 0))


def watch_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """Show how many tasks the loop has, by counting them whenever Prometheus asks."""
    _tasks.set_function(lambda: len(asyncio.all_tasks(loop)))


def log_lines_lost(count: int) -> None:
    """Count log lines that could not be written."""
    _log_lines_dropped.inc(count)


def watch_certificate(certificate: str, expiry: Callable[[], datetime]) -> None:
    """Show when a certificate expires, by what it is to the process: `own`, `authority`. Asked at each scrape."""
    _certificate_ends.labels(certificate).set_function(lambda: expiry().timestamp())


@contextlib.contextmanager
def serving(port: int, *, host: str, target: Mapping[str, str], command: str) -> Iterator[None]:
    """Serve `/metrics` while the block runs; nothing with port 0. `target` are the labels of `target_info`.

    Raises:
        StartupError: another process listens on the port.
    """
    REGISTRY.set_target_info(dict(target))
    _process.labels(command).set(1)
    if not port:
        yield
        return
    try:
        server, thread = start_http_server(port, host.strip("[]"), REGISTRY)
    except OSError as error:
        raise StartupError(f"METRICS_PORT: {host}:{port} cannot be listened on: {error.strerror}") from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
