"""The order service for tests of every service: its database, its stub, a user who may order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from shop.order.v1.order_service_pb2_grpc import OrderServiceStub

from chassis.testing import ManualClock, plain_channel
from tests.integration.inprocess import database_settings
from tests.integration.order_svc.inprocess import order_service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from shop.order.v1.order_service_pb2_grpc import OrderServiceAsyncStub
    from shop.user.v1.user_pb2 import User

    from tests.integration.databases import TestDatabase


@pytest.fixture
def orders_database(shared_databases: dict[str, TestDatabase]) -> Iterator[TestDatabase]:
    """The order service's database, empty."""
    yield shared_databases["order_svc"]
    shared_databases["order_svc"].empty()


@pytest.fixture
async def orders_address(users_address: str, orders_database: TestDatabase, clock: ManualClock) -> AsyncIterator[str]:
    async with order_service(database_settings(orders_database.url), users=users_address, clock=clock) as address:
        yield address


@pytest.fixture
async def orders(orders_address: str) -> AsyncIterator[OrderServiceAsyncStub]:
    """The order service, with a user service behind it."""
    async with plain_channel(orders_address) as channel:
        yield OrderServiceStub(channel)


@pytest.fixture
def buyer(ada: User) -> User:
    """A user who may order."""
    return ada
