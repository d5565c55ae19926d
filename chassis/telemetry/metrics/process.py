"""Metrics of the process itself, and the server of `/metrics`."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING, Final

from prometheus_client import Counter, Gauge, Histogram, ProcessCollector, start_http_server

from chassis.errors import StartupError
from chassis.telemetry.metrics.registry import REGISTRY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime

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


def loop_lagged(lag_s: float) -> None:
    """Record one measurement of the event loop's delay."""
    _loop_lag.observe(lag_s)


def watch_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """Show how many tasks the loop has, by counting them whenever Prometheus asks."""
    _tasks.set_function(lambda: len(asyncio.all_tasks(loop)))


def log_lines_lost(count: int) -> None:
    """Count log lines that could not be written."""
    _log_lines_dropped.inc(count)


def watch_certificates(ends: Mapping[str, Callable[[], datetime]]) -> None:
    """Show when certificates expire; the functions are called at each scrape.

    Args:
        ends: returns the expiry, by what the certificate is to the process: `own`, `authority`.
    """
    for certificate, expiry in ends.items():
        _certificate_ends.labels(certificate).set_function(partial(_seconds_of, expiry))


def _seconds_of(expiry: Callable[[], datetime]) -> float:
    return expiry().timestamp()


@contextlib.contextmanager
def serving(port: int, *, host: str, target: Mapping[str, str], command: str) -> Iterator[None]:
    """Serve `/metrics` while the block runs.

    Args:
        port: the TCP port; with 0, nothing is served.
        host: the address to listen on.
        target: the labels of `target_info`, which say what this process is.
        command: what the process runs: `serve`, `worker`.

    Raises:
        StartupError: another process listens on the port.
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
