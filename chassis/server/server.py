"""The gRPC server of a service: from its first call to an orderly end."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from typing import TYPE_CHECKING, Final, Protocol, cast

import structlog
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc
from shop.system.v1 import system_service_pb2
from shop.system.v1.system_service_pb2_grpc import add_SystemServiceServicer_to_server

from chassis.auth.access import AccessControl
from chassis.errors import StartupError
from chassis.runtime.gc_tuning import tune_gc
from chassis.runtime.shutdown import stop_on_signal
from chassis.server import contract
from chassis.server.method_wrapper import HandlerCollector, MethodWrapper
from chassis.telemetry import loop_lag, metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from chassis.auth.access_tokens import AccessTokens
    from chassis.auth.certificates import CertificateFiles
    from chassis.server.settings import ServerSettings
    from chassis.server.system import SystemServicer

log = structlog.get_logger(__name__)

# gRPC's default, and many times what a valid request takes. gRPC refuses what is larger as soon as it sees its length,
# with no reason; what is smaller and still too large is refused with one (interceptors.bounds).
_MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024

# The edge lets 32 KiB of headers through and gRPC counts 32 bytes more for each. What is over gRPC's own limit, 8 KiB,
# it refuses at random and with a list of all headers.
_MAX_METADATA_BYTES: Final = 64 * 1024

_OPTIONS: Final = (
    # Two replicas on one port would share it silently; a taken port must be an error.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.max_metadata_size", _MAX_METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", _MAX_METADATA_BYTES),
    # The edge and other services ping their idle connections every 30 s; by default that is answered with GOAWAY.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
)


class Register(Protocol):
    """Adds a service's servicers to a server."""

    def __call__(self, server: aio.Server) -> Sequence[str]:
        """Add the servicers and return the full names of their services."""


class Server:
    """One replica: its servicers, health, reflection, and the way it stops.

    Args:
        settings: where to listen and how to stop.
        register: adds the service's servicers.
        system: the service's SystemService.
        tokens: checks access tokens.
        certificates: for TLS; without, the server listens in clear text and knows nobody.

    Raises:
        NoAccessRule: an rpc does not say who may call it.

    Attributes:
        end_streams: has the service's streams end; called once everybody has heard that the replica stops.
    """

    def __init__(
        self,
        settings: ServerSettings,
        *,
        register: Register,
        system: SystemServicer,
        tokens: AccessTokens,
        certificates: CertificateFiles | None = None,
    ) -> None:
        self._settings = settings
        self.end_streams: Callable[[], None] = lambda: None
        self._system = system
        self._certificates = certificates
        access = AccessControl(tokens, allowed_peers=certificates.allowed_peers if certificates else None)
        servicers = HandlerCollector()
        # To generated code it is a server.
        adding = cast("aio.Server", servicers)
        self._names = [*register(adding), full_name(system_service_pb2, "SystemService")]
        add_SystemServiceServicer_to_server(system, adding)
        access.guard(self._names)
        self._health = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, adding)
        if settings.grpc_reflection:
            names = [*contract.service_names(), full_name(health_pb2, "Health"), reflection.SERVICE_NAME]
            add = cast("Callable[..., None]", reflection_pb2_grpc.add_ServerReflectionServicer_to_server)
            add(reflection.aio.ReflectionServicer(names), adding)
        self._server = aio.server(options=[*_OPTIONS, _age_limit(settings.max_connection_age_s)])
        servicers.serve_on(
            self._server, MethodWrapper(access, max_call_s=settings.max_call_s, max_stream_s=settings.max_stream_s)
        )
        self._probed: aio.Server | None = None
        if settings.health_port:
            self._probed = aio.server(options=_OPTIONS)
            health_pb2_grpc.add_HealthServicer_to_server(self._health, self._probed)

    async def start(self, *, port: int | None = None) -> int:
        """Listen, say SERVING, and return the port.

        Raises:
            StartupError: another process listens on it.
        """
        wanted = self._settings.port if port is None else port
        bound = self._listen(self._server, wanted, certificates=self._certificates)
        if self._certificates is None:
            log.warning("tls.off", consequence="whoever reaches the port may connect, and nothing is encrypted")
        if self._probed:
            self._listen(self._probed, self._settings.health_port, certificates=None)
            await self._probed.start()
        await self._server.start()
        serving = health_pb2.HealthCheckResponse.SERVING
        for name in ("", *self._names):
            await self._health.set(name, serving)
        return bound

    def _listen(self, server: aio.Server, port: int, *, certificates: CertificateFiles | None) -> int:
        host = self._settings.host.strip("[]")
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        if _is_taken(host, port):
            raise _port_taken(address)
        try:
            if certificates is None:
                return server.add_insecure_port(address)
            return server.add_secure_port(address, certificates.server_credentials())
        except RuntimeError as error:
            raise _port_taken(address) from error

    async def stop(self) -> None:
        """Leave without losing a call: say so, serve on until everybody has heard, finish, close."""
        self._system.is_draining = True
        await self._health.enter_graceful_shutdown()
        await asyncio.sleep(self._settings.drain_s)
        self.end_streams()  # they are opened again at once: not before nobody sends them here
        await self._server.stop(self._settings.stop_grace_s)
        if self._probed:
            await self._probed.stop(None)


async def run(server: Server, *, background: Sequence[Coroutine[object, object, None]]) -> None:
    """Serve until SIGTERM or SIGINT, then stop in order; at the latest after 29 s by force, with exit code 1.

    Args:
        server: not started yet.
        background: what runs beside the server until it stops.
    """
    stopping = stop_on_signal()
    metrics.watch_tasks(asyncio.get_running_loop())
    tasks = [asyncio.create_task(each) for each in (*background, loop_lag.measure_forever())]
    try:
        port = await server.start()
        tune_gc()
        log.info("server.started", port=port, pid=os.getpid())
        await stopping.wait()
        log.info("server.draining")
        await server.stop()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    log.info("server.stopped")


def _age_limit(max_age_s: float) -> tuple[str, int]:
    """Return the option that has callers make a new connection; calls and streams on the old one end as they would.

    No `max_connection_age_grace_ms`: it would cut them.
    """
    return ("grpc.max_connection_age_ms", int(max_age_s * 1000))


def _port_taken(address: str) -> StartupError:
    return StartupError(f"{address} is taken. Set PORT to a free one")


def _is_taken(host: str, port: int) -> bool:
    """Return whether somebody listens there. gRPC finds out too, but writes lines of its own about it first."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        return error.errno == errno.EADDRINUSE
    return False


def full_name(module: object, service: str) -> str:
    """Return a service's full name, as health and reflection know it: `shop.user.v1.UserService`."""
    descriptor = module.DESCRIPTOR  # type: ignore[attr-defined]  # generated modules share no type
    return str(descriptor.services_by_name[service].full_name)
