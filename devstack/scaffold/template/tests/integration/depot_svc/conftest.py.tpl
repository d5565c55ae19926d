"""The «depot» service in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from shop.depot.v1.depot_service_pb2_grpc import DepotServiceStub

from chassis.testing import plain_channel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from shop.depot.v1.depot_service_pb2_grpc import DepotServiceAsyncStub


@pytest.fixture
async def depot(parcels_address: str) -> AsyncIterator[DepotServiceAsyncStub]:
    """The «depot» service."""
    async with plain_channel(parcels_address) as channel:
        yield DepotServiceStub(channel)
