"""Settings that every service has: environment variables, read once, frozen.

A service reads its sections in `__main__` and hands them on; nothing else looks at the environment.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import Field, PlainValidator, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from chassis.database_url import DatabaseUrl

Seconds = Annotated[float, Field(gt=0, le=3600)]

_FROZEN = SettingsConfigDict(frozen=True, extra="ignore")


class Misconfigured(Exception):
    """A setting that makes sense by itself and is wrong all the same. The message names it and not its value."""


class ServerSettings(BaseSettings):
    """Where the server listens and how it stops. Drain, stop and the pools must fit into 30 s together."""

    model_config = _FROZEN

    host: str = "0.0.0.0"  # noqa: S104  a container is reached from outside itself
    port: Annotated[int, Field(ge=1, le=65535)] = 50051
    # Serves grpc.health.v1 alone, in clear text: Kubernetes' probes know no TLS. 0 is off.
    health_port: Annotated[int, Field(ge=0, le=65535)] = 0
    # Off unless switched on: production has no need to tell strangers what it serves.
    grpc_reflection: bool = False
    # Three health checks of the edge (1 s apart, 2 to be unhealthy): by then nobody sends new calls.
    drain_s: Annotated[float, Field(ge=0, le=15)] = 3
    # Longer than the slowest call that is allowed to finish (statement_timeout_s, 5 s).
    stop_grace_s: Annotated[float, Field(ge=0, le=12)] = 10
    # What a call may take when its caller names no deadline.
    max_call_s: Seconds = 30
    # How old a connection may get; gRPC spreads that by a tenth. Then its caller makes a new one and asks DNS again, so
    # that a replica that was added gets calls within 30 s: 1 s between two questions and 5 s in a cache included.
    max_connection_age_s: Seconds = 20
    # How long a stream may last if the token it was opened with does, as the edge has it. Streams that end spread
    # evenly over the replicas when they are opened again.
    max_stream_s: Seconds = 3600


def _database_url(given: object) -> DatabaseUrl:
    return given if isinstance(given, DatabaseUrl) else DatabaseUrl.parse(str(given))


class DatabaseSettings(BaseSettings):
    """The service's own PostgreSQL database."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_prefix="DATABASE_")

    # In any form that libpq reads; what it says of the timeouts below is overruled.
    url: Annotated[DatabaseUrl, PlainValidator(_database_url)]
    # For migrations, which need a session of their own, if `url` leads through a pooler.
    direct_url: Annotated[DatabaseUrl, PlainValidator(_database_url)] | None = None
    # Connections. replicas x pool_size must stay below max_connections.
    pool_size: Annotated[int, Field(ge=4, le=100)] = 8
    # Of these, for batches of reads. One: while a batch is read the next one gathers, and with two each would be half
    # as long and cost as much.
    read_lanes: Annotated[int, Field(ge=1, le=50)] = 1
    # Of these, for batches that one statement writes: new orders.
    write_lanes: Annotated[int, Field(ge=1, le=50)] = 1
    # Of these, for batches that take a transaction: orders that move.
    transaction_lanes: Annotated[int, Field(ge=1, le=50)] = 1
    # How long a call waits at most for others once calls come in company; a call that comes alone never waits.
    batch_linger_s: Annotated[float, Field(ge=0, le=0.1)] = 0.003
    # Longer statements save nothing more, and the first of a batch waits for the last. At most the 200 ids of
    # BatchGetUsers.
    batch_max_items: Annotated[int, Field(ge=1, le=200)] = 128
    # Calls that may wait for their turn. A replica does thousands in a second: who is behind so many waits a good part
    # of one, and had better go elsewhere.
    batch_max_waiting: Annotated[int, Field(ge=1, le=100_000)] = 1024
    # How long a call waits for a connection to be opened before it is refused.
    connect_timeout_s: Annotated[int, Field(ge=1, le=30)] = 2
    # Below the edge's timeout of 15 s, so that a stuck statement is an error with a reason.
    statement_timeout_s: Seconds = 5
    # A row is locked for one short transaction; who waits longer than this waits for a fault.
    lock_timeout_s: Seconds = 0.5

    @property
    def slow_lanes(self) -> int:
        """How many connections are left for everything that is no batch."""
        return self.pool_size - self.read_lanes - self.write_lanes - self.transaction_lanes

    @model_validator(mode="after")
    def _leave_some_for_the_rest(self) -> Self:
        if self.slow_lanes < 1:
            raise ValueError("POOL_SIZE must be larger than READ_LANES, WRITE_LANES and TRANSACTION_LANES together")
        return self


class TelemetrySettings(BaseSettings):
    """How the service names itself, what it logs, and where its metrics and traces go.

    The OTLP exporter reads more of the standard variables, `OTEL_EXPORTER_OTLP_*`, `OTEL_BSP_*` and
    `OTEL_RESOURCE_ATTRIBUTES`, by itself.
    """

    model_config = _FROZEN

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


Section = TypeVar("Section", bound=BaseSettings)


def load(section: type[Section]) -> Section:
    """Return a section read from the environment and, what is not there, from the files in the folder `SECRETS_DIR`.

    A file has the name of its variable. Exits with code 1 and one line per mistake when a variable is missing or makes
    no sense. The line names the variable and never its value, which may be a secret.
    """
    try:
        return section(_secrets_dir=os.environ.get("SECRETS_DIR"))
    except ValidationError as error:
        prefix = section.model_config.get("env_prefix", "")
        for mistake in error.errors(include_input=False, include_url=False):
            name = "_".join(str(part) for part in mistake["loc"])
            said = mistake["msg"].removeprefix("Value error, ")
            print(f"{prefix}{name}".upper().rstrip("_") + f": {said}", file=sys.stderr)  # noqa: T201  no log yet
        raise SystemExit(1) from None
