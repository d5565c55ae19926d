"""Settings that every service has: environment variables, read once, frozen.

A service reads its sections in `__main__` and hands them on; nothing else looks at the environment.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated, Literal, TypeVar

from pydantic import Field, PostgresDsn, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

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


class DatabaseSettings(BaseSettings):
    """The service's own PostgreSQL database."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_prefix="DATABASE_")

    url: PostgresDsn
    # Connections, and threads that use them. replicas x pool_size must stay below max_connections.
    pool_size: Annotated[int, Field(ge=1, le=100)] = 8
    # How long a call waits for a connection to be opened before it is refused.
    connect_timeout_s: Annotated[int, Field(ge=1, le=30)] = 2
    # Below the edge's timeout of 15 s, so that a stuck statement is an error with a reason.
    statement_timeout_s: Seconds = 5
    # A row is locked for one short transaction; who waits longer than this waits for a fault.
    lock_timeout_s: Seconds = 0.5


class TelemetrySettings(BaseSettings):
    """How the service names itself and what it logs."""

    model_config = _FROZEN

    service_name: str
    service_version: str = "dev"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"


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
            print(f"{prefix}{name}".upper().rstrip("_") + f": {mistake['msg']}", file=sys.stderr)  # noqa: T201  no log yet
        raise SystemExit(1) from None
