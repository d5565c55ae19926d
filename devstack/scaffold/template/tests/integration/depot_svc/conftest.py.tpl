"""The «depot» service in this process, with the user service behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from shop.depot.v1.depot_service_pb2_grpc import DepotServiceStub

from chassis.testing import plain_channel
from depot_svc.composition import Settings, build
from depot_svc.settings import UserServiceSettings
from tests.integration.conftest import fresh_database
from tests.integration.inprocess import common_settings, serving_application

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from shop.depot.v1.depot_service_pb2_grpc import DepotServiceAsyncStub

    from chassis.testing import ManualClock
    from devstack.postgres import PostgresServer
    from tests.integration.conftest import TestDatabase


@pytest.fixture(scope="session")
def depot_copy(postgres: PostgresServer) -> Iterator[TestDatabase]:
    with fresh_database(postgres, "depot_svc") as database:
        yield database


@pytest.fixture
def depot_database(depot_copy: TestDatabase) -> Iterator[TestDatabase]:
    """The database of the service, empty."""
    yield depot_copy
    depot_copy.empty()


@pytest.fixture
async def depot(
    depot_database: TestDatabase, users_address: str, clock: ManualClock
) -> AsyncIterator[DepotServiceAsyncStub]:
    """The «depot» service."""
    settings = Settings(
        **common_settings("depot_svc", depot_database.url), user_service=UserServiceSettings(url=users_address)
    )
    async with (
        build(settings, clock=clock) as application,
        serving_application(application) as address,
        plain_channel(address) as channel,
    ):
        yield DepotServiceStub(channel)
