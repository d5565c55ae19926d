"""Logs, metrics and traces of a process, started and stopped together."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import TYPE_CHECKING

from opentelemetry.sdk.resources import Resource

from chassis.telemetry import logs, tracing
from chassis.telemetry.metrics.process import serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chassis.telemetry.settings import TelemetrySettings


@contextlib.contextmanager
def running(settings: TelemetrySettings, *, command: str) -> Iterator[None]:
    """Write logs, serve metrics and export traces, as the settings say, while the block runs.

    For commands that run until they are stopped. A command that ends by itself must not use this: it may run beside a
    serving process with the same settings, which already listens on the port of the metrics.

    Raises:
        StartupError: another process listens on the port of the metrics, the folder of the logs cannot be written, or a
            variable of the exporter makes no sense.
    """
    logs.configure(settings)
    # OTEL_RESOURCE_ATTRIBUTES may add attributes; on conflict the values below win.
    resource = Resource.create(
        {
            "service.name": settings.service_name,
            "service.version": settings.service_version,
            "service.instance.id": f"{socket.gethostname()}-{os.getpid()}",
        }
    )
    target = {key: str(value) for key, value in resource.attributes.items() if key.startswith("service.")}
    provider = tracing.export(resource) if settings.exports_traces else None
    try:
        with serving(settings.metrics_port, host=settings.host, target=target, command=command):
            yield
    finally:
        if provider:
            tracing.stop(provider)
