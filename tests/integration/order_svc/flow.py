"""Relays and consumers of both services, put together as their `worker` does it, in this process."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import order_svc.consumer
import user_svc.consumer
from tests.integration.event_flow import consumer, relay, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from chassis.events.consumer import Consumer
    from chassis.events.relay import Relay


@contextlib.asynccontextmanager
async def flowing(*, users: str, orders: str, redis: str) -> AsyncIterator[None]:
    """Let events flow between the services with these databases while the block runs."""
    async with contextlib.AsyncExitStack() as parts:
        enter = parts.enter_async_context
        made: Sequence[Relay | Consumer] = [
            await enter(relay(users, redis=redis, resource="user")),
            await enter(relay(orders, redis=redis, resource="order")),
            await enter(consumer(orders, order_svc.consumer.handle, redis=redis, resource="user")),
            await enter(consumer(users, user_svc.consumer.handle, redis=redis, resource="order")),
        ]
        await enter(running(*(each.run for each in made)))
        yield
