"""The settings of logs, metrics and traces."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from chassis.settings import Section


class TelemetrySettings(Section):
    """How the service names itself, what it logs, and where its metrics and traces go.

    The OTLP exporter reads more of the standard variables, `OTEL_EXPORTER_OTLP_*`, `OTEL_BSP_*` and
    `OTEL_RESOURCE_ATTRIBUTES`, by itself.
    """

    service_name: str
    service_version: str = "dev"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    # Adds combined.log and error.log in this folder to what goes to stdout.
    log_dir: Path | None = None
    # Serves /metrics, in clear text and to whoever reaches it: for a network that only Prometheus can use. 0 is off.
    metrics_port: Annotated[int, Field(ge=0, le=65535)] = 0
    host: str = "0.0.0.0"  # noqa: S104  Prometheus comes from elsewhere
    # Where traces go. Without either nothing is exported, and no span is made.
    otel_exporter_otlp_endpoint: str = ""
    otel_exporter_otlp_traces_endpoint: str = ""

    @property
    def exports_traces(self) -> bool:
        """Whether there is somewhere to export traces to."""
        return bool(self.otel_exporter_otlp_endpoint or self.otel_exporter_otlp_traces_endpoint)
