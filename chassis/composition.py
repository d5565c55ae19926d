"""The parts of every service: its database, its certificates, its connections to other services, its server.

A service's `composition.build()` opens a Foundation, makes its own parts on it, and yields the application.
"""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from grpc import RpcError

from chassis.auth.access_tokens import AccessTokens, TokenSettings
from chassis.auth.certificates import CertificateFiles, TlsSettings
from chassis.auth.remote_keys import RemoteKeyRing
from chassis.client import CallPolicy, connect
from chassis.client.renewable import RenewableChannel
from chassis.client.telemetry import ClientTelemetry
from chassis.clock import SystemClock
from chassis.database import Database
from chassis.database.settings import DatabaseSettings
from chassis.events import backlog
from chassis.idempotency import store
from chassis.server.application import Application
from chassis.server.server import Server
from chassis.server.settings import ServerSettings
from chassis.server.system import SystemServicer
from chassis.service import service_of
from chassis.settings import sections
from chassis.telemetry.settings import TelemetrySettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from google.protobuf.message import Message
    from grpc import aio

    from chassis.auth.access_tokens import KeyRing
    from chassis.auth.remote_keys import KeySet
    from chassis.client.settings import PeerSettings
    from chassis.clock import Clock
    from chassis.server.application import Work
    from chassis.service import Service
    from chassis.watch.hub import WatchHub

    AddServicer = Callable[[Any, aio.Server], None]

CLOCK: Final = SystemClock()
_CONNECT_TIMEOUT_S: Final = 5


@sections
class ServiceSettings:
    """The sections that every service reads to serve. A service that reads more extends it."""

    telemetry: TelemetrySettings
    server: ServerSettings
    tokens: TokenSettings
    tls: TlsSettings
    database: DatabaseSettings


class Foundation:
    """The parts that every service has. Use open().

    Attributes:
        certificates: of this process; None in clear text.
    """

    def __init__(
        self, service: Service, settings: ServiceSettings, clock: Clock, stack: contextlib.AsyncExitStack
    ) -> None:
        self._service: Final = service
        self._settings: Final = settings
        self._stack: Final = stack
        self._background: Final[list[Work]] = []
        self.clock: Final = clock
        self.certificates: Final = CertificateFiles.of(settings.tls, identity=service.name)
        self.database: Final = Database(settings.database, name=settings.telemetry.service_name)
        stack.push_async_callback(self.database.close)

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, package: str, settings: ServiceSettings, *, clock: Clock = CLOCK) -> AsyncIterator[Foundation]:
        """Yield the foundation of the service in this package; close its connections when the block ends."""
        async with contextlib.AsyncExitStack() as stack:
            yield cls(service_of(package), settings, clock, stack)

    async def connect(
        self, settings: PeerSettings, *, to: str, token: Callable[[], str] | None = None
    ) -> RenewableChannel:
        """Return a channel to the service in the package `to`, which uses renewed certificates.

        The certificate of the service must have its name. `token` gives the access token, if no certificate says who
        calls.
        """
        # The client does not check the health of replicas: one that stops says NOT_SERVING and serves on for DRAIN_S,
        # while the other one may be restarting.
        policy = CallPolicy(
            timeout_s=settings.timeout_s, hedge_after_s=settings.hedge_after_s, observer=ClientTelemetry(settings.url)
        )

        def new_channel() -> aio.Channel:
            if self.certificates is None:
                return connect(settings.url, policy=policy, token=token)
            credentials = self.certificates.channel_credentials()
            name = settings.tls_name or to.replace("_", "-")
            return connect(settings.url, policy=policy, credentials=credentials, server_name=name)

        channel = await self._stack.enter_async_context(RenewableChannel(new_channel))
        if self.certificates:
            self._background.append(partial(self.certificates.renew_forever, channel.renew))
        return channel

    async def keys(
        self, channel: aio.Channel, rpc: Callable[..., Awaitable[KeySet]], request: Message
    ) -> RemoteKeyRing:
        """Return the keys of access tokens: by an rpc of a stub on the channel, from the service that signs them."""
        keys = RemoteKeyRing(rpc, request)
        # Before the replica says SERVING: otherwise the first calls wait for DNS, TLS and the keys, perhaps too long.
        # Without an answer it serves all the same, because services start in any order.
        with contextlib.suppress(TimeoutError, RpcError):
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                await channel.channel_ready()
                await keys.refresh()
        self._background.append(keys.refresh_forever)
        return keys

    def application(
        self,
        *servicers: tuple[AddServicer, object],
        keys: KeyRing,
        streams: WatchHub[Any] | None = None,
        background: Sequence[Work] = (),
    ) -> Application:
        """Return the service as a replica that can serve.

        Args:
            servicers: the generated function that adds a servicer to a server, and the servicer; one for each gRPC
                service that service.toml says is served.
            keys: verify access tokens.
            streams: the change streams that a servicer serves.
            background: the service's own work beside its server.
        """

        def register(server: aio.Server) -> Sequence[str]:
            for add, servicer in servicers:
                add(servicer, server)
            return self._service.serves

        server = Server(
            self._settings.server,
            register=register,
            system=SystemServicer(self._settings.telemetry, self.database),
            tokens=AccessTokens(self._settings.tokens, keys),
            certificates=self.certificates,
        )
        work: list[Work] = [
            partial(store.sweep_forever, self.database, self.clock),
            partial(backlog.watch_forever, self.database),
            *self._background,
            *background,
        ]
        if streams:
            server.end_streams = streams.stop
            work.append(streams.run_forever)
        return Application(server, work)
