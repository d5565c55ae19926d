"""The «depot» service for tests of every service: its database, its address."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from depot_svc.composition import Settings, build
from depot_svc.settings import UserServiceSettings
from tests.integration.inprocess import common_settings, serving_application

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from chassis.testing import ManualClock
    from tests.integration.databases import TestDatabase


@pytest.fixture
def parcels_database(shared_databases: dict[str, TestDatabase]) -> Iterator[TestDatabase]:
    """The database of the service, empty."""
    yield shared_databases["depot_svc"]
    shared_databases["depot_svc"].empty()


@pytest.fixture
async def parcels_address(
    parcels_database: TestDatabase, users_address: str, clock: ManualClock
) -> AsyncIterator[str]:
    """Where the service serves, in this process, with the user service behind it."""
    settings = Settings(
        **common_settings("depot_svc", parcels_database.url), user_service=UserServiceSettings(url=users_address)
    )
    async with build(settings, clock=clock) as application, serving_application(application) as address:
        yield address
