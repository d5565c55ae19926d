"""How the order service is put together: of the same parts in a process of its own and in a test."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from grpc import RpcError
from shop.order.v1 import order_service_pb2
from shop.order.v1.order_service_pb2_grpc import add_OrderServiceServicer_to_server

from chassis.auth.access_tokens import AccessTokens
from chassis.auth.certificates import CertificateFiles
from chassis.auth.remote_keys import RemoteKeyRing
from chassis.client import CallPolicy, connect
from chassis.client.breaker import Breaker
from chassis.client.errors import is_dependency_failure
from chassis.client.renewable import RenewableChannel
from chassis.client.telemetry import ClientTelemetry
from chassis.clock import SystemClock
from chassis.database import Database
from chassis.events import backlog
from chassis.idempotency import store
from chassis.server.application import Application
from chassis.server.server import Server, full_name
from chassis.server.system import SystemServicer
from order_svc.buyer_client import GrpcBuyerDirectory
from order_svc.buyers import BuyersWithProjection
from order_svc.rpc import OrderServicer, order_watch_hub
from order_svc.service import OrderService
from order_svc.signing_keys import keys_of_user_service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from grpc import aio

    from chassis.auth.access_tokens import TokenSettings
    from chassis.auth.certificates import TlsSettings
    from chassis.client.breaker import BreakerSettings
    from chassis.clock import Clock
    from chassis.database.settings import DatabaseSettings
    from chassis.server.application import Work
    from chassis.server.settings import ServerSettings
    from chassis.telemetry.settings import TelemetrySettings
    from chassis.watch.settings import WatchSettings
    from order_svc.settings import UserServiceSettings

_CLOCK: Final = SystemClock()
_CONNECT_TIMEOUT_S: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The sections that serving reads."""

    telemetry: TelemetrySettings
    server: ServerSettings
    tokens: TokenSettings
    tls: TlsSettings
    database: DatabaseSettings
    user_service: UserServiceSettings
    breaker: BreakerSettings
    watch: WatchSettings


@contextlib.asynccontextmanager
async def build(
    settings: Settings, *, clock: Clock = _CLOCK, token: Callable[[], str] | None = None
) -> AsyncIterator[Application]:
    """Put the order service together; close its connections when the block ends.

    Args:
        settings: of all parts.
        clock: tells the time of orders.
        token: the access token for calls of the user service, where no certificate says who calls.
    """
    certificates = CertificateFiles.of(settings.tls)
    database = Database(settings.database, name=settings.telemetry.service_name)
    connect_to_users = partial(_connect_to_users, settings.user_service, certificates=certificates, token=token)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(database.close)
        channel = await stack.enter_async_context(RenewableChannel(connect_to_users))
        keys = RemoteKeyRing(keys_of_user_service(channel))
        # Before the replica says SERVING: otherwise the first calls wait for DNS, TLS and the keys, perhaps too long.
        # Without an answer it serves all the same, because the services start in any order.
        with contextlib.suppress(TimeoutError, RpcError):
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                await channel.channel_ready()
                await keys.refresh()
        breaker = Breaker("user_svc", settings.breaker, is_failure=is_dependency_failure)
        buyers = BuyersWithProjection(GrpcBuyerDirectory(channel, breaker), database, clock)
        watch_hub = order_watch_hub(database, settings.watch)
        servicer = OrderServicer(OrderService(database, buyers, clock), watch_hub, clock)

        def register(server: aio.Server) -> list[str]:
            add_OrderServiceServicer_to_server(servicer, server)
            return [full_name(order_service_pb2, "OrderService")]

        server = Server(
            settings.server,
            register=register,
            system=SystemServicer(settings.telemetry, database),
            tokens=AccessTokens(settings.tokens, keys),
            certificates=certificates,
        )
        server.end_streams = watch_hub.stop
        background: list[Work] = [
            partial(store.sweep_forever, database, clock),
            partial(backlog.watch_forever, database),
            watch_hub.run_forever,
            keys.refresh_forever,
        ]
        if certificates:
            background.append(partial(certificates.renew_forever, channel))
        yield Application(server, background)


def _connect_to_users(
    settings: UserServiceSettings, *, certificates: CertificateFiles | None, token: Callable[[], str] | None
) -> aio.Channel:
    # The client does not check the health of replicas: one that stops says NOT_SERVING and serves on for DRAIN_S, while
    # the other one may be restarting.
    policy = CallPolicy(
        timeout_s=settings.timeout_s, hedge_after_s=settings.hedge_after_s, observer=ClientTelemetry(settings.url)
    )
    if certificates is None:
        return connect(settings.url, policy=policy, token=token)
    credentials = certificates.channel_credentials()
    return connect(settings.url, policy=policy, credentials=credentials, server_name=settings.tls_name)
