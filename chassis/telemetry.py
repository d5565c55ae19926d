"""What a process tells about itself while it serves: logs, metrics and traces, begun and ended together."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import TYPE_CHECKING

from opentelemetry.sdk.resources import Resource

from chassis import logs, metrics, tracing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chassis.settings import TelemetrySettings


@contextlib.contextmanager
def started(settings: TelemetrySettings) -> Iterator[None]:
    """Write logs, serve metrics and export traces, as the settings say, while the block runs.

    Raises:
        Misconfigured: somebody else listens on the port of the metrics.
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
        with metrics.served(settings.metrics_port, host=settings.host, target=target):
            yield
    finally:
        if provider:
            tracing.stop(provider)
