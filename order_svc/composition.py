"""How the order service is put together: of the same parts in a process of its own and in a test."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from shop.order.v1.order_service_pb2_grpc import add_OrderServiceServicer_to_server
from shop.user.v1.session_service_pb2 import GetJwksRequest
from shop.user.v1.session_service_pb2_grpc import SessionServiceStub

from chassis.client.breaker import Breaker, BreakerSettings
from chassis.client.errors import is_dependency_failure
from chassis.composition import CLOCK, Foundation, ServiceSettings
from chassis.settings import sections
from chassis.watch.changefeed import Changefeed
from chassis.watch.settings import WatchSettings
from order_svc.buyer_client import GrpcBuyerDirectory
from order_svc.buyers import BuyersWithProjection
from order_svc.rpc import OrderServicer, order_watch_hub
from order_svc.service import OrderService
from order_svc.settings import UserServiceSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from chassis.clock import Clock
    from chassis.server.application import Application


@sections
class Settings(ServiceSettings):
    """The sections that serving reads."""

    user_service: UserServiceSettings
    breaker: BreakerSettings
    watch: WatchSettings


@contextlib.asynccontextmanager
async def build(
    settings: Settings, *, clock: Clock = CLOCK, token: Callable[[], str] | None = None
) -> AsyncIterator[Application]:
    """Put the order service together; close its connections when the block ends.

    `token` gives the access token for calls of the user service, if no certificate says who calls.
    """
    async with Foundation.open("order_svc", settings, clock=clock) as base:
        users = await base.connect(settings.user_service, to="user_svc", token=token)
        keys = await base.keys(users, SessionServiceStub(users).GetJwks, GetJwksRequest())
        breaker = Breaker("user_svc", settings.breaker, is_failure=is_dependency_failure)
        buyers = BuyersWithProjection(GrpcBuyerDirectory(users, breaker), base.database, clock)
        watch_hub = order_watch_hub(Changefeed(base.database, owner_field="userId"), settings.watch)
        servicer = OrderServicer(OrderService(base.database, buyers, clock), watch_hub, clock)
        yield base.application((add_OrderServiceServicer_to_server, servicer), keys=keys, streams=watch_hub)
