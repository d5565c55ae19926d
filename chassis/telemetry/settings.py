"""The settings of logs, metrics and traces."""

import re
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

from chassis.settings import Section

_HOST: Final = re.compile(r"[\w.:%\[\]-]+")


def _level(given: object) -> object:
    return given.upper() if isinstance(given, str) else given


def _receiver(url: str) -> str:
    try:
        parts = urlsplit(url)
        is_of_http = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port or an address that is none
        is_of_http = False
    # Without a scheme the exporter would speak TLS, whatever is there, and lose every span.
    if url and not is_of_http:
        raise ValueError("must look like http://collector:4317 or https://collector:4317")
    return url


def _host(name: str) -> str:
    # The resolver takes `*` for this machine and gRPC does not, so that the port would seem to be taken.
    if not _HOST.fullmatch(name):
        raise ValueError(
            "must be an address or a name of this machine: 0.0.0.0 is every address of IPv4, :: of both families"
        )
    return name


class TelemetrySettings(Section):
    """How the service names itself, what it logs, and where its metrics and traces go.

    The OTLP exporter reads more of the standard variables, `OTEL_EXPORTER_OTLP_*`, `OTEL_BSP_*` and
    `OTEL_RESOURCE_ATTRIBUTES`, by itself.
    """

    service_name: str
    """`service` in each log line, `service.name` in traces. The service's package, unless it is set."""
    service_version: str = "dev"
    """`version` in each log line; the image sets it."""
    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(_level)] = "INFO"
    """Log lines below this level are not written; in small letters too. Read once, at the start."""
    log_dir: Path | None = None
    """A folder for `combined.log` and `error.log`, beside standard output. Any tool may rotate them."""
    metrics_port: Annotated[int, Field(ge=0, le=65535)] = 0
    """The port of `/metrics`, in clear text and without authentication: for a network that only Prometheus can reach. 0
    is off. Commands that end by themselves ignore it."""
    host: Annotated[str, AfterValidator(_host)] = "0.0.0.0"  # noqa: S104  Prometheus comes from elsewhere
    """The address to listen on for calls, health checks and metrics; `::` is every address of both families."""
    otel_exporter_otlp_endpoint: Annotated[str, AfterValidator(_receiver)] = ""
    """The receiver of traces, OTLP over gRPC: `http://collector:4317`, or `https://…`. If neither variable is set, no
    span is made."""
    otel_exporter_otlp_traces_endpoint: Annotated[str, AfterValidator(_receiver)] = ""
    """The same, for traces alone; it overrules `OTEL_EXPORTER_OTLP_ENDPOINT`."""

    @property
    def exports_traces(self) -> bool:
        """Whether there is somewhere to export traces to."""
        return bool(self.otel_exporter_otlp_endpoint or self.otel_exporter_otlp_traces_endpoint)
