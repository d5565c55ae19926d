"""Clients that watch orders through the edge and resume with their token whenever a stream ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import grpc
import httpx
import psycopg
from google.protobuf import json_format
from shop.order.v1 import order_service_pb2 as pb
from shop.order.v1.order_service_pb2_grpc import OrderServiceStub

from chassis.client import connect, reason_of
from chassis.testing import until
from tests.chaos.clients import rest_client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection

    from devstack.stack import Stack

# Connections that ended without a status.
CUT: Final = "cut"

_PAUSE_S: Final = 0.1


class Follower:
    """The changes that one client received.

    Attributes:
        token: the last resume token.
        told: the ids of the changes, in the order in which they came.
        ends: how streams have ended, by reason.
    """

    def __init__(self) -> None:
        self.token = ""
        self.told: list[str] = []
        self.ends: Counter[str] = Counter()

    async def follow(self, open_stream: Callable[[str], Awaitable[str]]) -> None:
        """Open a stream after the other until cancelled."""
        while True:
            self.ends[await open_stream(self.token)] += 1
            await asyncio.sleep(_PAUSE_S)  # a client that is polite to who turns it away

    def take(self, message: dict[str, Any]) -> None:
        """Note what a message says."""
        self.token = message.get("resumeToken") or self.token
        if change := message.get("change"):
            self.told.append(change["id"])


@contextlib.asynccontextmanager
async def following(edge_url: str, *, token: str) -> AsyncIterator[dict[str, Follower]]:
    """Let one watch over REST and one over gRPC while the block runs, from when it began."""
    by_rest, by_grpc = Follower(), Follower()

    async def watch_by_rest(resume_token: str) -> str:
        return await _server_sent(http, by_rest, resume_token)

    async def watch_by_grpc(resume_token: str) -> str:
        request = pb.WatchOrdersRequest(resume_token=resume_token)
        try:
            async for message in OrderServiceStub(channel).WatchOrders(request):
                by_grpc.take(json_format.MessageToDict(message))
        except grpc.RpcError as error:
            return reason_of(error) or CUT
        return CUT

    async def has_begun() -> bool:
        return bool(by_rest.token and by_grpc.token)

    async with (
        rest_client(edge_url, token=token) as http,
        connect(edge_url.removeprefix("http://"), token=token) as channel,
    ):
        tasks = [
            asyncio.create_task(by_rest.follow(watch_by_rest)),
            asyncio.create_task(by_grpc.follow(watch_by_grpc)),
        ]
        try:
            await until(has_begun)
            yield {"REST": by_rest, "gRPC": by_grpc}
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


def changes_of(stack: Stack) -> list[str]:
    """Return the ids of all changes of orders, in their order."""
    with psycopg.connect(stack.database_url("orders")) as connection:
        rows = connection.execute("SELECT id FROM outbox ORDER BY transaction, position")
        return [str(event_id) for (event_id,) in rows]


async def until_told(followers: Collection[Follower], *, number: int) -> None:
    """Return once each has received this number of changes."""

    async def are_told() -> bool:
        return all(len(follower.told) >= number for follower in followers)

    await until(are_told, timeout_s=30)


async def _server_sent(http: httpx.AsyncClient, follower: Follower, resume_token: str) -> str:
    """Read one stream to its end; return the reason of it."""
    parameters = {"resumeToken": resume_token} if resume_token else {}
    reason = CUT
    try:
        async with http.stream("GET", "/api/v1/orders:watch", params=parameters) as response:
            if not response.is_success:
                return _reason_in(json.loads(await response.aread()))
            async for line in response.aiter_lines():
                if line.startswith("data: "):
                    message = json.loads(line.removeprefix("data: "))
                    follower.take(message)
                    reason = _reason_in(message["end"]) if message.get("end") else CUT
    except httpx.HTTPError:
        return CUT
    return reason


def _reason_in(status: dict[str, Any]) -> str:
    return next(str(detail["reason"]) for detail in status["details"] if "reason" in detail)
