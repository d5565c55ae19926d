"""A client that watches orders and records what it receives."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from shop.order.v1 import order_service_pb2 as pb
from shop.order.v1.order_service_pb2_grpc import OrderServiceStub

from chassis.testing import bearer
from tests.integration.watching import recording

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from grpc import aio

    from tests.integration.watching import Watch


@contextlib.asynccontextmanager
async def watching(
    channel: aio.Channel, *, token: str = "", access: str = "", user_id: str = ""
) -> AsyncIterator[Watch]:
    """Watch while the block runs, from its beginning on; with an access token, as its user."""
    request = pb.WatchOrdersRequest(resume_token=token, user_id=user_id)
    call = OrderServiceStub(channel).WatchOrders(request, metadata=bearer(access) if access else ())
    async with recording(call) as watch:
        yield watch
