"""How the «depot» service is put together: of the same parts in a process of its own and in a test."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from shop.depot.v1.depot_service_pb2_grpc import add_DepotServiceServicer_to_server
from shop.user.v1.session_service_pb2 import GetJwksRequest
from shop.user.v1.session_service_pb2_grpc import SessionServiceStub

from chassis.composition import CLOCK, Foundation, ServiceSettings
from chassis.settings import sections
from depot_svc.rpc import DepotServicer
from depot_svc.service import DepotService
from depot_svc.settings import UserServiceSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from chassis.clock import Clock
    from chassis.server.application import Application


@sections
class Settings(ServiceSettings):
    """The sections that serving reads."""

    user_service: UserServiceSettings


@contextlib.asynccontextmanager
async def build(settings: Settings, *, clock: Clock = CLOCK) -> AsyncIterator[Application]:
    """Put the «depot» service together; close its connections when the block ends."""
    async with Foundation.open("depot_svc", settings, clock=clock) as base:
        users = await base.connect(settings.user_service, to="user_svc")
        keys = await base.keys(users, SessionServiceStub(users).GetJwks, GetJwksRequest())
        servicer = DepotServicer(DepotService(base.database, clock), clock)
        yield base.application((add_DepotServiceServicer_to_server, servicer), keys=keys)
