"""The keys of access tokens, from a service that starts after the service that fetches them."""

from __future__ import annotations

import asyncio
import base64
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from grpc import ChannelConnectivity, StatusCode, aio
from typing_extensions import override

from chassis.auth import remote_keys
from chassis.auth.remote_keys import RemoteKeyRing
from chassis.client import connect
from chassis.errors import KeysUnavailable
from chassis.testing import until
from devstack.ports import LOOPBACK, ReservedPort
from tests.support.notes_svc import notes_pb2 as pb
from tests.support.notes_svc.notes_pb2_grpc import (
    KeyServiceServicer,
    KeyServiceStub,
    add_KeyServiceServicer_to_server,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PUBLIC = Ed25519PrivateKey.generate().public_key()


class Keys(KeyServiceServicer):
    """Publishes one key, while it is well.

    Attributes:
        asked: how often.
        answered: how often with its key.
    """

    def __init__(self) -> None:
        self.asked = 0
        self.answered = 0
        self.is_well = True

    @override
    async def GetKeys(self, request: pb.GetKeysRequest, context: aio.ServicerContext[Any, Any]) -> pb.Keys:
        self.asked += 1
        if not self.is_well:
            await context.abort(StatusCode.UNAVAILABLE)
        self.answered += 1
        x = base64.urlsafe_b64encode(PUBLIC.public_bytes_raw()).decode().rstrip("=")
        return pb.Keys(keys=[pb.Key(kid="one", x=x)])


@pytest.fixture
async def address() -> AsyncIterator[str]:
    reserved = ReservedPort()
    yield f"{LOOPBACK}:{reserved.number}"
    reserved.release()


@asynccontextmanager
async def serving(publisher: Keys, address: str) -> AsyncIterator[RemoteKeyRing]:
    """Serve the keys for the block; yield a ring that has asked for none yet."""
    server = aio.server()
    add_KeyServiceServicer_to_server(publisher, server)
    server.add_insecure_port(address)
    await server.start()
    async with connect(address) as channel:
        yield RemoteKeyRing(KeyServiceStub(channel).GetKeys, pb.GetKeysRequest())
    await server.stop(0)


async def test_tokens_with_unknown_keys_are_refused_without_a_fetch_each_time(address: str) -> None:
    publisher = Keys()

    async with serving(publisher, address) as keys:
        assert await keys.key("one") == PUBLIC
        for kid in ("two", "three", "one") * 5:
            assert await keys.key(kid) == (PUBLIC if kid == "one" else None)

    assert publisher.asked == 1


async def test_a_known_key_is_not_fetched_again(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_keys, "_MIN_INTERVAL_S", 0)
    publisher = Keys()

    async with serving(publisher, address) as keys:
        for _ in range(5):
            assert await keys.key("one") == PUBLIC

    assert publisher.asked == 1


async def test_while_the_keys_are_not_to_be_had_known_ones_stay_and_unknown_ones_may_be_good(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_keys, "_MIN_INTERVAL_S", 0)
    publisher = Keys()

    async with serving(publisher, address) as keys:
        assert await keys.key("one") == PUBLIC
        publisher.is_well = False

        with pytest.raises(KeysUnavailable):  # its caller is asked to come again, and not to log in again
            await keys.key("two")
        assert await keys.key("one") == PUBLIC


async def test_keys_are_asked_for_again_soon_after_a_failure_and_seldom_after_an_answer(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_keys, "_MIN_INTERVAL_S", 0.01)
    monkeypatch.setattr(remote_keys, "_REFRESH_INTERVAL_S", 3600)
    publisher = Keys()
    publisher.is_well = False

    async def is_asked_again() -> bool:
        return publisher.asked >= 3

    async def has_answered() -> bool:
        return publisher.answered > 0

    async with serving(publisher, address) as keys, connect(address) as channel:
        refreshing = asyncio.create_task(keys.refresh_forever())
        await until(is_asked_again)
        publisher.is_well = True
        await until(has_answered)
        asked = publisher.asked
        for _ in range(20):  # a ring that does not rest asks beside these
            await KeyServiceStub(channel).GetKeys(pb.GetKeysRequest())
        refreshing.cancel()

    assert publisher.asked == asked + 20


async def test_a_call_that_comes_while_that_service_starts_waits_for_its_keys(address: str) -> None:
    async with connect(address) as channel:
        keys = RemoteKeyRing(KeyServiceStub(channel).GetKeys, pb.GetKeysRequest())
        refreshing = asyncio.create_task(keys.refresh_forever())

        async def has_found_nobody() -> bool:
            return channel.get_state() is ChannelConnectivity.TRANSIENT_FAILURE

        await until(has_found_nobody)  # the service is late
        server = aio.server()
        add_KeyServiceServicer_to_server(Keys(), server)
        server.add_insecure_port(address)
        await server.start()
        try:
            assert await keys.key("one") == PUBLIC
        finally:
            refreshing.cancel()
            await server.stop(0)
