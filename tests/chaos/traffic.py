"""A steady load: buyers who place orders through the edge, look at them and move them on.

A buyer does one thing at a time, pauses, and does the next. A write that fails is repeated with its request id, if the
load does so; a read that fails is an error. Every answer is compared with what the buyer knows of the order.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chassis.testing import new_uuid, until
from tests.chaos.clients import CallFailed, SeenOrder, grpc_buyer, rest_buyer, rest_client
from tests.chaos.record import OK, Attempt, Kind, Record, now_s
from tests.support.requests import PASSWORD

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.chaos.clients import Buyer


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How much, how long, and how stubborn.

    Attributes:
        rest_buyers: how many buy over REST.
        grpc_buyers: how many buy over gRPC.
        pause_s: of each buyer between two requests.
        patience_s: how long a write is repeated; 0 for never.
        retry_pause_s: before a write is repeated.
        max_attempts: the number of calls after which the load ends by itself.
        max_s: the time after which it ends.
    """

    rest_buyers: int = 4
    grpc_buyers: int = 2
    pause_s: float = 0.02
    patience_s: float = 0
    retry_pause_s: float = 0.1
    max_attempts: int = 50_000
    max_s: float = 300


class _GivenUp(Exception):
    """A request failed at its last attempt; it is in the record."""


@contextlib.asynccontextmanager
async def under_load(edge_url: str, *, token: str, load: Load | None = None) -> AsyncIterator[Traffic]:
    """Let buyers buy while the block runs, and finish what they have begun afterwards.

    They come with the token of an admin, who buys for them and also confirms.
    """
    traffic = Traffic(load or Load())
    async with contextlib.AsyncExitStack() as connections, asyncio.TaskGroup() as tasks:
        connects = [rest_buyer] * traffic.load.rest_buyers + [grpc_buyer] * traffic.load.grpc_buyers
        for connect in connects:
            user_id = await new_user(edge_url)
            traffic.record.buyers.append(user_id)
            buyer = await connections.enter_async_context(connect(edge_url, user_id, token=token))
            tasks.create_task(traffic.buy(buyer))
        await traffic.goes_on(5 * len(connects))
        try:
            yield traffic
        finally:
            traffic.end()


class Traffic:
    """The load that runs.

    Attributes:
        load: how much.
        record: what it has seen so far; complete when the load has ended.
    """

    def __init__(self, load: Load) -> None:
        self.load = load
        self.record = Record()
        self._is_ending = False
        self._ends_s = now_s() + load.max_s

    def end(self) -> None:
        """Let every buyer finish, the last write included, and begin nothing."""
        self._is_ending = True

    async def goes_on(self, successes: int = 200, *, timeout_s: float = 60) -> None:
        """Return after this number of further attempts has succeeded.

        Raises:
            TimeoutError: they did not in time, or the load has reached its bounds.
        """
        enough = self.record.successes + successes

        async def has_gone_on() -> bool:
            return self.record.successes >= enough

        await until(has_gone_on, timeout_s=timeout_s)

    @property
    def _has_ended(self) -> bool:
        return self._is_ending or len(self.record.attempts) >= self.load.max_attempts or now_s() > self._ends_s

    async def buy(self, buyer: Buyer) -> None:
        """Buy until the load ends."""
        for number in itertools.count():
            try:
                await self._journey(buyer, number)
            except _GivenUp:
                await asyncio.sleep(self.load.retry_pause_s)  # as a client that backs off
            if self._has_ended:
                return

    async def _journey(self, buyer: Buyer, number: int) -> None:
        order = await self._write(Kind.PLACE, buyer.place)
        await self._read(Kind.GET, lambda: buyer.get(order.id), expected=order)
        await self._read(Kind.LIST, buyer.newest, expected=order)
        move = (Kind.CONFIRM, Kind.CANCEL, None)[number % 3]
        if move is None:
            return
        change = buyer.confirm if move is Kind.CONFIRM else buyer.cancel
        order = await self._write(move, lambda request_id: change(order.id, request_id))
        await self._read(Kind.GET, lambda: buyer.get(order.id), expected=order)

    async def _write(self, kind: Kind, call: Callable[[str], Awaitable[SeenOrder]]) -> SeenOrder:
        request_id = new_uuid()
        gives_up_s = now_s() + self.load.patience_s
        while True:
            try:
                order = await self._attempt(kind, lambda: call(request_id), request_id=request_id)
            except CallFailed as failure:
                if now_s() >= gives_up_s:
                    self.record.given_up.append(f"{kind} {failure.outcome}")
                    raise _GivenUp from failure
                await asyncio.sleep(self.load.retry_pause_s)  # as a client that backs off
                continue
            acknowledged = self.record.placed if kind is Kind.PLACE else self.record.moved
            acknowledged[request_id] = order.id
            return order

    async def _read(self, kind: Kind, call: Callable[[], Awaitable[SeenOrder]], *, expected: SeenOrder) -> None:
        try:
            seen = await self._attempt(kind, call)
        except CallFailed as failure:
            self.record.failed_reads.append(f"{kind} {failure.outcome}")
            return
        if seen != expected:
            self.record.failed_reads.append(f"{kind} wrong: {seen} instead of {expected}")

    async def _attempt(
        self, kind: Kind, call: Callable[[], Awaitable[SeenOrder]], *, request_id: str = ""
    ) -> SeenOrder:
        await asyncio.sleep(self.load.pause_s)  # the pace of a buyer
        started_s = now_s()
        outcome, retry_after_s = OK, None
        try:
            return await call()
        except CallFailed as failure:
            outcome, retry_after_s = failure.outcome, failure.retry_after_s
            raise
        finally:
            attempt = Attempt(
                kind=kind,
                request_id=request_id,
                outcome=outcome,
                started_s=started_s,
                duration_s=now_s() - started_s,
                retry_after_s=retry_after_s,
            )
            self.record.attempts.append(attempt)


async def new_user(edge_url: str) -> str:
    """Return the id of a new buyer, created as soon as the previous test's fault is over."""
    body = {"email": f"ada-{new_uuid()}@example.com", "password": PASSWORD, "displayName": "Ada Lovelace"}
    made: list[str] = []

    async def is_made() -> bool:
        async with rest_client(edge_url) as http:
            response = await http.post("/api/v1/users", json=body)
        if response.status_code != 503:
            made.append(str(response.raise_for_status().json()["id"]))
        return bool(made)

    await until(is_made, timeout_s=20)
    return made[0]
