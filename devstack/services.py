"""The services, and how one replica of a service is run and found ready."""

from __future__ import annotations

import os
import socket
import sys
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import grpc
from grpc_health.v1 import health_pb2

from devstack.certificates import DEBUG
from devstack.ports import LOOPBACK, ReservedPort
from devstack.process import Command, Hooks, Process
from devstack.settings import REPOSITORY
from envoy.render import SERVED_BY

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from devstack.certificates import Certificates

# The services' own STOP_GRACE_S, and a margin for closing pools.
_STOP_TIMEOUT_S: Final = 10 + 5
# Sockets are read by the thread that waits for them, as in docker/Dockerfile (docs/adr/0023).
OWN_POLLER: Final = "-event_engine_client,-event_engine_listener"
_NO_PROXY: Final = (("grpc.enable_http_proxy", 0),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A Python package with `serve`, `migrate`, `relay` and `consume`.

    Attributes:
        name: of the package, of its PostgreSQL role and of its cluster in Envoy.
        database: its own database.
        callers: the processes that it lets in.
        peers: environment variable → name of the service that is called at the addresses it holds.
    """

    name: str
    database: str
    callers: tuple[str, ...]
    peers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


SERVICES: Final = (
    Service(name="user_svc", database="users", callers=("edge", "order_svc", DEBUG)),
    Service(
        name="order_svc",
        database="orders",
        callers=("edge", DEBUG),
        peers=MappingProxyType({"USER_SERVICE_URL": "user_svc"}),
    ),
)
"""In the order of starting: who is called comes before who calls."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the processes of one service are given.

    Attributes:
        logs: the folder of the logs.
        env: the service's own variables, DATABASE_URL among them.
        certificates: of everybody.
        drain_s: how long a replica serves on after SIGTERM.
        report: is told when a replica dies.
    """

    logs: Path
    env: Mapping[str, str]
    certificates: Certificates
    drain_s: float
    report: Callable[[str], None]


class Replica(Process):
    """One of the processes that serve a service, at a port that it keeps for life."""

    def __init__(self, service: Service, number: int, *, around: Surroundings) -> None:
        self.service: Final = service
        self._certificates: Final = around.certificates
        self._reserved: Final = ReservedPort()
        self.port: Final = self._reserved.number
        self._reserved_for_metrics: Final = ReservedPort()
        self.metrics_url: Final = f"http://{LOOPBACK}:{self._reserved_for_metrics.number}/metrics"
        env = {
            "DRAIN_S": f"{around.drain_s:g}",
            "GRPC_REFLECTION": "true",
            **_tls(service, around.certificates),
            **around.env,
            "HOST": LOOPBACK,
            "PORT": str(self.port),
            "METRICS_PORT": str(self._reserved_for_metrics.number),
        }
        command = Command(
            name=f"{service.name}-{number}",
            argv=(sys.executable, "-m", service.name, "serve"),
            env={**_inherited(), **env},
            cwd=REPOSITORY,
            log=around.logs / f"{service.name}-{number}.log",
            stop_timeout_s=around.drain_s + _STOP_TIMEOUT_S,
        )
        super().__init__(command, hooks=Hooks(is_ready=self._is_serving), report=around.report)

    @property
    def address(self) -> str:
        """Where it listens, as host:port."""
        return f"{LOOPBACK}:{self.port}"

    def release_port(self) -> None:
        """Let others have the port, once the replica is not needed any more."""
        self._reserved.release()
        self._reserved_for_metrics.release()

    def _is_serving(self) -> bool:
        # gRPC waits a second and more after a refused connection: knock first.
        try:
            socket.create_connection((LOOPBACK, self.port), timeout=1).close()
        except OSError:
            return False
        question = health_pb2.HealthCheckRequest(service=SERVED_BY[self.service.name][0])
        with self._channel() as channel:
            # Not HealthStub: its type stubs do not know its methods.
            check = channel.unary_unary(
                "/grpc.health.v1.Health/Check",
                request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
                response_deserializer=health_pb2.HealthCheckResponse.FromString,
            )
            try:
                answer = check(question, timeout=1)
            except grpc.RpcError:
                return False
        return answer.status == health_pb2.HealthCheckResponse.SERVING

    def _channel(self) -> grpc.Channel:
        ours = self._certificates.folder_of(DEBUG).path
        ca, key, certificate = ((ours / name).read_bytes() for name in ("ca.crt", "tls.key", "tls.crt"))
        # The name in its certificate; the address may be any process's.
        options = (*_NO_PROXY, ("grpc.default_authority", self.service.name.replace("_", "-")))
        return grpc.secure_channel(self.address, grpc.ssl_channel_credentials(ca, key, certificate), options)


class Worker(Process):
    """A process of a service that serves nobody: its relay, its consumer."""

    def __init__(self, service: Service, command: str, *, around: Surroundings) -> None:
        self.service: Final = service
        self._reserved_for_metrics: Final = ReservedPort()
        self.metrics_url: Final = f"http://{LOOPBACK}:{self._reserved_for_metrics.number}/metrics"
        metrics_port = str(self._reserved_for_metrics.number)
        command_line = Command(
            name=f"{service.name}-{command}",
            argv=(sys.executable, "-m", service.name, command),
            env={**_inherited(), **around.env, "HOST": LOOPBACK, "METRICS_PORT": metrics_port},
            cwd=REPOSITORY,
            log=around.logs / f"{service.name}-{command}.log",
            stop_timeout_s=_STOP_TIMEOUT_S,
        )
        super().__init__(command_line, report=around.report)

    def release_port(self) -> None:
        """Let others have the port of the metrics, once the process is not needed any more."""
        self._reserved_for_metrics.release()


def task(service: Service, *words: str, around: Surroundings, stdin: Path | None = None) -> Process:
    """Return a process that does something once and ends: `migrate`, or another command of the service's."""
    return Process(
        Command(
            name=f"{service.name} {' '.join(words)}",
            argv=(sys.executable, "-m", service.name, *words),
            env={**_inherited(), **around.env},
            cwd=REPOSITORY,
            log=around.logs / f"{service.name}-{words[0]}.log",
            stdin=stdin,
        )
    )


def targets(replicas: list[Replica]) -> str:
    """Return the gRPC target that stands for all of them."""
    return "ipv4:" + ",".join(replica.address for replica in replicas)


def _tls(service: Service, certificates: Certificates) -> dict[str, str]:
    files = certificates.folder_of(service.name).path
    return {
        "TLS_CERT_FILE": str(files / "tls.crt"),
        "TLS_KEY_FILE": str(files / "tls.key"),
        "TLS_CA_FILE": str(files / "ca.crt"),
        "TLS_ALLOWED_PEERS": ",".join(service.callers),
    }


def _inherited() -> dict[str, str]:
    """Return our environment, so that OTEL_* and the like reach the services, and what the image sets."""
    return {"GRPC_EXPERIMENTS": OWN_POLLER, **os.environ, "PYTHONUNBUFFERED": "1"}
