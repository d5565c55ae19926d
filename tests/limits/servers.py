"""Edges side by side in front of one stack, and the rate limiter that counts for all of them."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import TYPE_CHECKING, Any, Final

import httpx
import yaml

from devstack.ports import LOOPBACK
from devstack.process import Command, Hooks, Process
from devstack.settings import REPOSITORY
from envoy.binary import envoy_command
from envoy.contract import DESCRIPTOR_SET
from envoy.edge import Address, Cluster, Edge
from envoy.render import render, render_rate_limiter, render_secrets
from tests.support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from devstack.certificates import Certificates
    from devstack.redis import RedisServer
    from devstack.stack import Stack
    from tests.failover_redis.servers import Server

PROGRAM: Final = REPOSITORY / ".tools" / "ratelimit"
# As they are deployed, but for addresses and files.
_COMPOSED: Final = yaml.safe_load((REPOSITORY / "docker" / "compose.limits.yaml").read_text())["services"]
SETTINGS: Final[dict[str, str]] = _COMPOSED["rate-limiter"]["environment"]
REDIS_OPTIONS: Final[list[str]] = _COMPOSED["redis-limits"]["command"][1:]
RATE_LIMIT: Final = 12
PUBLIC_WRITE_LIMIT: Final = 5


class RateLimiter:
    """Envoy's rate limit service, which lets in who has the edge's certificate.

    Attributes:
        address: where edges ask it.
        metrics_url: what Prometheus fetches.
        process: the service as a supervised child.
    """

    def __init__(
        self,
        redis: RedisServer | Server,
        folder: Path,
        *,
        limits: str,
        certificates: Certificates,
        env: Mapping[str, str] = SETTINGS,
    ) -> None:
        """Prepare a service that has these limits. Nothing is started.

        Args:
            env: as it is deployed; addresses and our own certificates are replaced.
        """
        self.address: Final = Address("127.0.0.1", free_port())
        metrics_port = free_port()
        self.metrics_url: Final = f"http://{LOOPBACK}:{metrics_port}/metrics"
        (folder / "config").mkdir(parents=True)
        (folder / "config" / "limits.yaml").write_text(limits)
        ours = certificates.folder_of("rate_limiter").path
        command = Command(
            name="rate-limiter",
            argv=(str(PROGRAM),),
            env={
                **env,
                "HOST": LOOPBACK,
                "PORT": str(free_port()),
                "GRPC_HOST": LOOPBACK,
                "GRPC_PORT": str(self.address.port),
                "DEBUG_PORT": str(free_port()),
                "PROMETHEUS_ADDR": f"{LOOPBACK}:{metrics_port}",
                "RUNTIME_ROOT": str(folder),
                "REDIS_URL": f"{LOOPBACK}:{redis.port}",
                "GRPC_SERVER_TLS_CERT": str(ours / "tls.crt"),
                "GRPC_SERVER_TLS_KEY": str(ours / "tls.key"),
                "GRPC_CLIENT_TLS_CACERT": str(ours / "ca.crt"),
            },
            cwd=folder,
            log=folder / "rate-limiter.log",
        )
        self.process: Final = Process(command, hooks=Hooks(is_ready=self._listens))

    def _listens(self) -> bool:
        try:
            socket.create_connection((self.address.host, self.address.port), timeout=1).close()
        except OSError:
            return False
        return True


class RunningEdge:
    """One edge of several.

    Attributes:
        url: what callers use.
        tls_url: the same with TLS.
        metrics_url: what Prometheus fetches.
        admin_url: Envoy's own pages.
        process: Envoy.
    """

    def __init__(self, stack: Stack, folder: Path, *, options: dict[str, Any]) -> None:
        """Prepare an edge in front of the stack's replicas. Nothing is started."""
        folder.mkdir()
        edge = Edge(
            address=LOOPBACK,
            port=free_port(),
            tls_port=free_port(),
            admin_port=free_port(),
            keys_port=free_port(),
            metrics_port=free_port(),
            descriptor_path=DESCRIPTOR_SET,
            files_root=REPOSITORY,
            inside=stack.certificates.folder_of("edge"),
            outside=stack.certificates.folder_of("localhost"),
            secrets_folder=folder,
            access_log_path=str(folder / "access.log"),
            clusters=tuple(
                Cluster(name=name, replicas=tuple(Address(LOOPBACK, each.port) for each in stack.replicas(name)))
                for name in stack.service_names
            ),
            **{"rate_limit": RATE_LIMIT, "public_write_limit": PUBLIC_WRITE_LIMIT, **options},
        )
        for name, secret in render_secrets(edge).items():
            (folder / name).write_text(secret)
        config = folder / "edge.yaml"
        config.write_text(render(edge))
        self.edge: Final = edge
        self.url: Final = f"http://{LOOPBACK}:{edge.port}"
        self.tls_url: Final = f"https://localhost:{edge.tls_port}"
        self.metrics_url: Final = f"http://{LOOPBACK}:{edge.metrics_port}/metrics"
        self.admin_url: Final = f"http://{LOOPBACK}:{edge.admin_port}"
        command = Command(
            name=folder.name,
            argv=envoy_command(config, drain_s=1, concurrency=1),
            env={"PATH": os.defpath},
            cwd=REPOSITORY,
            log=folder / "envoy.log",
        )
        self.process: Final = Process(command, hooks=Hooks(is_ready=self._is_ready))

    def stat(self, name: str) -> int:
        """Return one of Envoy's numbers; 0 if nothing was counted under that name."""
        text = httpx.get(f"{self.admin_url}/stats", params={"filter": f"^{name}$"}, trust_env=False).text
        return sum(int(line.rpartition(" ")[2]) for line in text.splitlines())

    @property
    def asks_the_limiter(self) -> bool:
        """Whether a limiter is there that its health checks have found well and no failure has ruled out."""
        clusters = httpx.get(f"{self.admin_url}/clusters", trust_env=False).text
        return any("rate_limiter::" in line and "::health_flags::healthy" in line for line in clusters.splitlines())

    def _is_ready(self) -> bool:
        try:
            healthy = httpx.get(f"{self.url}/healthz", trust_env=False).is_success
            return healthy and self.stat(r"http\.edge\.jwt_authn\.jwks_fetch_success") > 0
        except httpx.TransportError:
            return False


@contextlib.contextmanager
def two_edges(stack: Stack, folder: Path, **options: Any) -> Iterator[tuple[RunningEdge, RunningEdge]]:
    """Run two edges with these options in front of the stack."""
    with contextlib.ExitStack() as running:
        first, second = (RunningEdge(stack, folder / name, options=options) for name in ("first", "second"))
        for each in (first, second):
            running.callback(each.process.stop)
            each.process.start()
        for each in (first, second):
            each.process.wait_ready()
        yield first, second


def limits_of(stack: Stack, folder: Path, **options: Any) -> str:
    """Return the rate limiter's file of limits for the edges of `two_edges`."""
    return render_rate_limiter(RunningEdge(stack, folder, options=options).edge)
