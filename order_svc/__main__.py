"""`python -m order_svc serve | migrate | relay | consume | events …`: reads the settings, puts it together, runs it."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING, Final

from shop.order.v1 import order_service_pb2
from shop.order.v1.order_service_pb2_grpc import add_OrderServiceServicer_to_server

from chassis import telemetry
from chassis.auth.access_tokens import AccessTokens, TokenSettings
from chassis.auth.certificates import CertificateFiles, TlsSettings
from chassis.auth.remote_keys import RemoteKeyRing
from chassis.client import CallPolicy, connect
from chassis.client.breaker import Breaker, BreakerSettings
from chassis.client.errors import is_dependency_failure
from chassis.client.renewable import RenewableChannel
from chassis.client.telemetry import ClientTelemetry
from chassis.clock import SystemClock
from chassis.database import Database, migrations
from chassis.database.settings import DatabaseSettings
from chassis.events import backlog
from chassis.events.commands import EventCommands
from chassis.idempotency import store
from chassis.runtime import cli
from chassis.server.server import Server, full_name, serve_until_signalled
from chassis.server.settings import ServerSettings
from chassis.server.system import SystemServicer
from chassis.settings import load
from chassis.watch.settings import WatchSettings
from order_svc import consumer
from order_svc.buyer_client import GrpcBuyerDirectory
from order_svc.buyers import BuyersWithProjection
from order_svc.rpc import OrderServicer, order_watch_hub
from order_svc.service import OrderService
from order_svc.settings import OrderTelemetrySettings, UserServiceSettings
from order_svc.signing_keys import keys_of_user_service

if TYPE_CHECKING:
    from grpc import aio

_CONNECT_S: Final = 5


async def serve() -> None:
    """Serve calls until SIGTERM or SIGINT."""
    settings = load(OrderTelemetrySettings)
    with telemetry.running(settings, command="serve"):
        await _serve(settings)


async def _serve(settings: OrderTelemetrySettings) -> None:
    clock = SystemClock()
    server_settings = load(ServerSettings)
    tokens = load(TokenSettings)
    user_service = load(UserServiceSettings)
    # It does not ask for health: while one replica restarts, the other may say NOT_SERVING and serve on, for DRAIN_S.
    policy = CallPolicy(
        timeout_s=user_service.timeout_s,
        hedge_after_s=user_service.hedge_after_s,
        observer=ClientTelemetry(user_service.url),
    )
    breaker = Breaker("user_svc", load(BreakerSettings), is_failure=is_dependency_failure)
    database = Database(load(DatabaseSettings), name=settings.service_name)
    certificates = CertificateFiles.of(load(TlsSettings))

    def connect_to_users() -> aio.Channel:
        if certificates is None:
            return connect(user_service.url, policy=policy)
        credentials = certificates.channel_credentials()
        return connect(user_service.url, policy=policy, credentials=credentials, server_name=user_service.tls_name)

    async with RenewableChannel(connect_to_users) as channel:
        keys = RemoteKeyRing(keys_of_user_service(channel))
        users = BuyersWithProjection(GrpcBuyerDirectory(channel, breaker), database, clock)
        service = OrderService(database, users, clock)
        watch_hub = order_watch_hub(database, load(WatchSettings))

        def register(server: aio.Server) -> list[str]:
            add_OrderServiceServicer_to_server(OrderServicer(service, watch_hub, clock), server)
            return [full_name(order_service_pb2, "OrderService")]

        server = Server(
            server_settings,
            register=register,
            system=SystemServicer(settings, database),
            tokens=AccessTokens(tokens, keys),
            certificates=certificates,
        )
        server.end_streams = watch_hub.stop
        background = [
            store.sweep_forever(database, clock),
            backlog.watch_forever(database),
            watch_hub.run_forever(),
            keys.refresh_forever(),
        ]
        if certificates:
            background.append(certificates.renew_forever(channel))
        # Before it says SERVING: the first orders would else wait for DNS and TLS, and maybe too long. Without the user
        # service it serves all the same, for only new orders need it.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CONNECT_S):
                await channel.channel_ready()
        try:
            await serve_until_signalled(server, background=background)
        finally:
            await database.close()


def migrate() -> None:
    """Bring the database to the newest version."""
    migrations.upgrade("order_svc", load(DatabaseSettings))


EVENTS = EventCommands(
    telemetry=lambda: load(OrderTelemetrySettings),
    publishes="order",
    reads="user",
    handle=consumer.handle,
    parts=lambda database: [partial(consumer.look_for_late_orders, database)],
)

if __name__ == "__main__":
    cli.main("order_svc", {"serve": serve, "migrate": migrate, **EVENTS.commands})
