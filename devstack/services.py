"""The services, and the processes of each: replicas, workers and tasks."""

from __future__ import annotations

import os
import socket
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import grpc
from grpc_health.v1 import health_pb2

from chassis.runtime.probe import check_health
from chassis.service import callers_of, services
from devstack.certificates import DEBUG
from devstack.debug_channel import debug_credentials, debug_options
from devstack.ports import LOOPBACK, ReservedPort
from devstack.process import Command, Hooks, Process
from devstack.settings import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from chassis.service import Service
    from devstack.certificates import Certificates

# The services' own STOP_GRACE_S, and a margin for closing pools.
_STOP_TIMEOUT_S: Final = 10 + 5
# gRPC reads a socket in the thread that waits for it, as in docker/Dockerfile (docs/adr/0023).
OWN_POLLER: Final = "-event_engine_client,-event_engine_listener"


SERVICES: Final = services()
"""In the order of starting: a service comes after the services that it calls."""


def owner_of(database: str) -> str:
    """Return the service, and the PostgreSQL role, that owns the database."""
    return next(service.name for service in SERVICES if service.database == database)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessEnvironment:
    """The environment that the processes of one service share.

    Attributes:
        logs: the folder of the logs.
        env: the service's environment variables, DATABASE_URL among them.
        certificates: of all processes.
        drain_s: how long a replica keeps serving after SIGTERM.
        report: called with a line when a process dies.
    """

    logs: Path
    env: Mapping[str, str]
    certificates: Certificates
    drain_s: float
    report: Callable[[str], None]


class Replica(Process):
    """One serving process of a service; its port stays the same when it is restarted."""

    def __init__(self, service: Service, number: int, *, environment: ProcessEnvironment) -> None:
        self.service: Final = service
        self._certificates: Final = environment.certificates
        self._reserved: Final = ReservedPort()
        self.port: Final = self._reserved.number
        self._reserved_for_metrics: Final = ReservedPort()
        self.metrics_url: Final = f"http://{LOOPBACK}:{self._reserved_for_metrics.number}/metrics"
        env = {
            "DRAIN_S": f"{environment.drain_s:g}",
            "GRPC_REFLECTION": "true",
            **_tls(service, environment.certificates),
            **environment.env,
            "HOST": LOOPBACK,
            "PORT": str(self.port),
            "METRICS_PORT": str(self._reserved_for_metrics.number),
        }
        command = Command(
            name=f"{service.name}-{number}",
            argv=(sys.executable, "-m", service.name, "serve"),
            env={**_inherited(), **env},
            cwd=REPOSITORY,
            log=environment.logs / f"{service.name}-{number}.log",
            stop_timeout_s=environment.drain_s + _STOP_TIMEOUT_S,
        )
        super().__init__(command, hooks=Hooks(is_ready=self._is_serving), report=environment.report)

    @property
    def address(self) -> str:
        """The address that it listens on, as host:port."""
        return f"{LOOPBACK}:{self.port}"

    def release_port(self) -> None:
        """Release the ports; call it when the replica is not needed any more."""
        self._reserved.release()
        self._reserved_for_metrics.release()

    def _is_serving(self) -> bool:
        # After a refused connection gRPC waits a second or more, so try the port with a plain connection first.
        try:
            socket.create_connection((LOOPBACK, self.port), timeout=1).close()
        except OSError:
            return False
        credentials, options = debug_credentials(self._certificates), debug_options(self.service.name)
        with grpc.secure_channel(self.address, credentials, options) as channel:
            try:
                health = check_health(channel, service=self.service.serves[0], timeout_s=1)
            except grpc.RpcError:
                return False
        return health.status == health_pb2.HealthCheckResponse.SERVING


class Worker(Process):
    """A process of a service that serves no calls: it publishes and applies events."""

    def __init__(self, service: Service, *, environment: ProcessEnvironment) -> None:
        self.service: Final = service
        self._reserved_for_metrics: Final = ReservedPort()
        self.metrics_url: Final = f"http://{LOOPBACK}:{self._reserved_for_metrics.number}/metrics"
        metrics_port = str(self._reserved_for_metrics.number)
        command_line = Command(
            name=worker_of(service),
            argv=(sys.executable, "-m", service.name, "worker"),
            env={**_inherited(), **environment.env, "HOST": LOOPBACK, "METRICS_PORT": metrics_port},
            cwd=REPOSITORY,
            log=environment.logs / f"{worker_of(service)}.log",
            stop_timeout_s=_STOP_TIMEOUT_S,
        )
        super().__init__(command_line, report=environment.report)

    def release_port(self) -> None:
        """Release the port of the metrics; call it when the process is not needed any more."""
        self._reserved_for_metrics.release()


def worker_of(service: Service) -> str:
    """Return the name of the service's worker."""
    return f"{service.name}-worker"


def task(service: Service, *words: str, environment: ProcessEnvironment, stdin: Path | None = None) -> Process:
    """Return a process that runs a command of the service once and ends: `migrate`, for example."""
    return Process(
        Command(
            name=f"{service.name} {' '.join(words)}",
            argv=(sys.executable, "-m", service.name, *words),
            env={**_inherited(), **environment.env},
            cwd=REPOSITORY,
            log=environment.logs / f"{service.name}-{words[0]}.log",
            stdin=stdin,
        )
    )


def targets(replicas: list[Replica]) -> str:
    """Return the gRPC target that lists the addresses of all replicas."""
    return "ipv4:" + ",".join(replica.address for replica in replicas)


def _tls(service: Service, certificates: Certificates) -> dict[str, str]:
    files = certificates.folder_of(service.name).path
    return {
        "TLS_CERT_FILE": str(files / "tls.crt"),
        "TLS_KEY_FILE": str(files / "tls.key"),
        "TLS_CA_FILE": str(files / "ca.crt"),
        "TLS_ALLOWED_PEERS": ",".join((*callers_of(service, SERVICES), DEBUG)),
    }


def _inherited() -> dict[str, str]:
    """Return our own environment, so that variables such as OTEL_* reach the services, and what the image sets."""
    return {"GRPC_EXPERIMENTS": OWN_POLLER, **os.environ, "PYTHONUNBUFFERED": "1"}
