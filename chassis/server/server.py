"""The gRPC server of a service, from start to graceful stop."""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import TYPE_CHECKING, Final, cast

import structlog
from grpc import aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc
from shop.system.v1 import system_service_pb2
from shop.system.v1.system_service_pb2_grpc import add_SystemServiceServicer_to_server

from chassis.auth.access import AccessControl
from chassis.errors import StartupError
from chassis.server import contract
from chassis.server.method_wrapper import HandlerCollector, MethodWrapper

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from chassis.auth.access_tokens import AccessTokens
    from chassis.auth.certificates import CertificateFiles
    from chassis.server.settings import ServerSettings
    from chassis.server.system import SystemServicer

    Register = Callable[[aio.Server], Sequence[str]]

log = structlog.get_logger(__name__)

_SYSTEM_SERVICE: Final = system_service_pb2.DESCRIPTOR.services_by_name["SystemService"].full_name

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


class Server:
    """One replica: its servicers, health, reflection, and its graceful stop.

    Args:
        register: adds the service's servicers to the server, and returns the full names of their gRPC services.
        certificates: for mutual TLS; without them the server listens in clear text and cannot identify its peers.

    Raises:
        NoAccessRule: an rpc has no access rule, or is of a service that `register` does not name.

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
        servicers = HandlerCollector()
        # Generated code expects a server; the collector has the methods that it uses.
        adding = cast("aio.Server", servicers)
        self._names = [*register(adding), _SYSTEM_SERVICE]
        add_SystemServiceServicer_to_server(system, adding)
        peers = certificates.allowed_peers if certificates else None
        access = AccessControl(tokens, self._names, allowed_peers=peers)
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, adding)
        if settings.grpc_reflection:
            names = [*contract.service_names(), health.SERVICE_NAME, reflection.SERVICE_NAME]
            add = cast("Callable[..., None]", reflection_pb2_grpc.add_ServerReflectionServicer_to_server)
            add(reflection.aio.ReflectionServicer(names), adding)
        # At this age callers make a new connection. Without a grace period, which would cut off calls on the old one.
        max_age_ms = int(settings.max_connection_age_s * 1000)
        self._server = aio.server(options=[*_OPTIONS, ("grpc.max_connection_age_ms", max_age_ms)])
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
            StartupError: another process listens on the port, or the address is none of this machine's.
        """
        requested = self._settings.port if port is None else port
        bound = self._listen(self._server, "PORT", requested, certificates=self._certificates)
        if self._certificates is None:
            log.warning("tls.off", consequence="all that reach the port may connect, and nothing is encrypted")
        if self._health_server:
            self._listen(self._health_server, "HEALTH_PORT", self._settings.health_port, certificates=None)
            await self._health_server.start()
        await self._server.start()
        serving = health_pb2.HealthCheckResponse.SERVING
        for name in ("", *self._names):
            await self._health.set(name, serving)
        return bound

    def _listen(self, server: aio.Server, variable: str, port: int, *, certificates: CertificateFiles | None) -> int:
        host = self._settings.host.strip("[]")
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        _require_free(host, port, shown=address, variable=variable)
        try:
            if certificates is None:
                return server.add_insecure_port(address)
            return server.add_secure_port(address, certificates.server_credentials())
        except RuntimeError as error:
            raise StartupError(f"{address} is taken. Set {variable} to a free one") from error

    async def stop(self) -> None:
        """Stop without losing a call: set the health to NOT_SERVING, drain, finish running calls, close."""
        self._system.is_draining = True
        await self._health.enter_graceful_shutdown()
        await asyncio.sleep(self._settings.drain_s)
        self.end_streams()  # after the drain: clients reopen a stream at once, and must not reach this replica again
        await self._server.stop(self._settings.stop_grace_s)
        if self._health_server:
            await self._health_server.stop(None)


def _require_free(host: str, port: int, *, shown: str, variable: str) -> None:
    """Return if the port can be listened on. gRPC would notice it too, but would log lines of its own, and no cause.

    Raises:
        StartupError: it cannot.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise StartupError(f"{shown} is taken. Set {variable} to a free one") from error
        if host != "::":  # gRPC takes IPv4 where there is no IPv6
            raise StartupError(f"{shown} cannot be listened on: {error.strerror}. Set HOST and {variable}") from error
