"""The gRPC server of a service, from start to graceful stop."""

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

# gRPC's default, and many times the size of a valid request. gRPC refuses a larger message when it sees its length,
# without a reason; a smaller message that is still too large is refused with one (chassis.server.bounds).
_MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024

# The edge passes up to 32 KiB of headers, and gRPC counts 32 bytes more for each. Above gRPC's default limit of 8 KiB
# it would refuse calls at random, with a list of all headers.
_MAX_METADATA_BYTES: Final = 64 * 1024

_OPTIONS: Final = (
    # With SO_REUSEPORT two replicas would share a port silently; a port in use must be an error.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.max_metadata_size", _MAX_METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", _MAX_METADATA_BYTES),
    # The edge and other services ping idle connections every 30 s; by default gRPC answers such pings with GOAWAY.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
)


class Register(Protocol):
    """Adds a service's servicers to a server."""

    def __call__(self, server: aio.Server) -> Sequence[str]:
        """Add the servicers and return the full names of their services."""


class Server:
    """One replica: its servicers, health, reflection, and its graceful stop.

    Args:
        settings: addresses, limits and the times of the stop.
        register: adds the service's servicers.
        system: the service's SystemService.
        tokens: verifies access tokens.
        certificates: for mutual TLS; without them the server listens in clear text and cannot identify its peers.

    Raises:
        NoAccessRule: an rpc has no access rule.

    Attributes:
        end_streams: ends the service's streams; called when no caller opens streams at this replica any more.
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
        # Generated code expects a server; the collector has the methods that it uses.
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
        self._health_server: aio.Server | None = None
        if settings.health_port:
            self._health_server = aio.server(options=_OPTIONS)
            health_pb2_grpc.add_HealthServicer_to_server(self._health, self._health_server)

    async def start(self, *, port: int | None = None) -> int:
        """Listen, set the health to SERVING, and return the port.

        Raises:
            StartupError: another process listens on the port.
        """
        requested = self._settings.port if port is None else port
        bound = self._listen(self._server, requested, certificates=self._certificates)
        if self._certificates is None:
            log.warning("tls.off", consequence="whoever reaches the port may connect, and nothing is encrypted")
        if self._health_server:
            self._listen(self._health_server, self._settings.health_port, certificates=None)
            await self._health_server.start()
        await self._server.start()
        serving = health_pb2.HealthCheckResponse.SERVING
        for name in ("", *self._names):
            await self._health.set(name, serving)
        return bound

    def _listen(self, server: aio.Server, port: int, *, certificates: CertificateFiles | None) -> int:
        host = self._settings.host.strip("[]")
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        if _is_in_use(host, port):
            raise _port_in_use(address)
        try:
            if certificates is None:
                return server.add_insecure_port(address)
            return server.add_secure_port(address, certificates.server_credentials())
        except RuntimeError as error:
            raise _port_in_use(address) from error

    async def stop(self) -> None:
        """Stop without losing a call: set the health to NOT_SERVING, drain, finish running calls, close."""
        self._system.is_draining = True
        await self._health.enter_graceful_shutdown()
        await asyncio.sleep(self._settings.drain_s)
        self.end_streams()  # after the drain: clients reopen a stream at once, and must not reach this replica again
        await self._server.stop(self._settings.stop_grace_s)
        if self._health_server:
            await self._health_server.stop(None)


async def serve_until_signalled(server: Server, *, background: Sequence[Coroutine[object, object, None]]) -> None:
    """Serve until SIGTERM or SIGINT, then stop gracefully; after 29 s exit by force, with code 1.

    Args:
        server: not started yet.
        background: coroutines that run until the server stops.
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
    """Return the option that limits a connection's age: callers then make a new one, and calls on the old one finish.

    No `max_connection_age_grace_ms`: it would cut off those calls.
    """
    return ("grpc.max_connection_age_ms", int(max_age_s * 1000))


def _port_in_use(address: str) -> StartupError:
    return StartupError(f"{address} is taken. Set PORT to a free one")


def _is_in_use(host: str, port: int) -> bool:
    """Return whether another process listens on the port. gRPC would notice it too, but would log lines of its own."""
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
