"""What a process tells about itself while it serves: logs, metrics and traces, begun and ended together."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import TYPE_CHECKING

from opentelemetry.sdk.resources import Resource

from chassis.telemetry import logs, metrics, tracing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chassis.telemetry.settings import TelemetrySettings


@contextlib.contextmanager
def running(settings: TelemetrySettings, *, command: str) -> Iterator[None]:
    """Write logs, serve metrics and export traces, as the settings say, while the block runs.

    For commands that run until they are stopped. One that does something once and ends must not ask for the port of the
    metrics: beside a running process, with the same settings, it is taken.

    Args:
        settings: where to.
        command: what the process runs: `serve`, `relay`, `consume`.

    Raises:
        StartupError: somebody else listens on the port of the metrics.
    """
    logs.configure(settings)
    # What OTEL_RESOURCE_ATTRIBUTES says is added, and what is said here counts.
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
        with metrics.serving(settings.metrics_port, host=settings.host, target=target, command=command):
            yield
    finally:
        if provider:
            tracing.stop(provider)
