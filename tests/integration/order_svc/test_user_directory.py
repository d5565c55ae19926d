"""The user service as the order service asks for it, where it behaves as ours never should."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from grpc import StatusCode, aio
from shop.user.v1.user_service_pb2_grpc import UserServiceServicer, add_UserServiceServicer_to_server
from typing_extensions import override

from chassis.client import connect
from chassis.client.breaker import Breaker, BreakerSettings
from chassis.client.errors import is_dependency_failure
from chassis.clock import new_id
from chassis.testing import LOOPBACK
from order_svc.buyer_client import GrpcBuyerDirectory
from order_svc.errors import UserServiceUnavailable
from order_svc.model import BuyerId

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from shop.user.v1 import user_service_pb2 as pb


class GivesUp(UserServiceServicer):
    """Ends every call as a server does that is forced to stop."""

    @override
    async def BatchGetUsers(self, request: pb.BatchGetUsersRequest, context: Any) -> pb.BatchGetUsersResponse:
        await context.abort(StatusCode.CANCELLED, "the server stops")
        raise AssertionError


@pytest.fixture
async def address() -> AsyncIterator[str]:
    server = aio.server()
    add_UserServiceServicer_to_server(GivesUp(), server)
    port = server.add_insecure_port(f"{LOOPBACK}:0")
    await server.start()
    yield f"{LOOPBACK}:{port}"
    await server.stop(None)


async def test_a_call_that_the_user_service_cancels_counts_as_its_failure(address: str) -> None:
    breaker = Breaker("user_svc", BreakerSettings(fail_max=2), is_failure=is_dependency_failure)
    async with connect(address) as channel:
        users = GrpcBuyerDirectory(channel, breaker)

        for _ in range(2):
            with pytest.raises(UserServiceUnavailable):
                await users.refusals([BuyerId(new_id())])

    assert breaker.state == "open"
