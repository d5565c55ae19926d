"""The keys of access tokens, from a user service that starts after whoever asks it."""

from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from grpc import ChannelConnectivity, aio
from shop.user.v1 import session_service_pb2 as pb
from shop.user.v1.session_service_pb2_grpc import SessionServiceServicer, add_SessionServiceServicer_to_server
from typing_extensions import override

from chassis.clients import connect
from chassis.keyring import RemoteKeyRing
from chassis.testing import until
from devstack.ports import LOOPBACK, ReservedPort

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PUBLIC = Ed25519PrivateKey.generate().public_key()


class Jwks(SessionServiceServicer):
    @override
    async def GetJwks(self, request: pb.GetJwksRequest, context: object) -> pb.Jwks:
        x = base64.urlsafe_b64encode(PUBLIC.public_bytes_raw()).decode().rstrip("=")
        return pb.Jwks(keys=[pb.Jwk(kid="one", kty="OKP", crv="Ed25519", x=x)])


@pytest.fixture
async def address() -> AsyncIterator[str]:
    reserved = ReservedPort()
    yield f"{LOOPBACK}:{reserved.number}"
    reserved.release()


async def test_a_call_that_comes_while_the_user_service_starts_waits_for_its_keys(address: str) -> None:
    async with connect(address) as channel:
        keys = RemoteKeyRing(channel)
        refreshing = asyncio.create_task(keys.refresh_forever())

        async def has_found_nobody() -> bool:
            return channel.get_state() is ChannelConnectivity.TRANSIENT_FAILURE

        await until(has_found_nobody)  # the service is late
        server = aio.server()
        add_SessionServiceServicer_to_server(Jwks(), server)
        server.add_insecure_port(address)
        await server.start()
        try:
            assert await keys.key("one") == PUBLIC
        finally:
            refreshing.cancel()
            await server.stop(0)
