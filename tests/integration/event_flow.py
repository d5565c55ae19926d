"""Relays and consumers, put together as a service's `worker` does it, in this process."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from chassis.database import Database
from chassis.events import redis_streams
from chassis.events.consumer import Consumer, ConsumerSettings
from chassis.events.consumer_group import ConsumerGroup
from chassis.events.redis_streams import BrokerSettings, stream_of
from chassis.events.redis_url import RedisUrl
from chassis.events.relay import Relay, RelaySettings
from tests.integration.inprocess import database_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from chassis.events.processor import Handle

    Part = Callable[[asyncio.Event], Awaitable[None]]

QUICK = {"retry_first_s": 0.02, "attempts": 3}


@contextlib.asynccontextmanager
async def running(*parts: Part) -> AsyncIterator[None]:
    """Run the parts while the block runs."""
    stopping = asyncio.Event()
    tasks = [asyncio.ensure_future(part(stopping)) for part in parts]
    try:
        yield
    finally:
        stopping.set()
        await asyncio.gather(*tasks)


@contextlib.asynccontextmanager
async def opened(url: str, **settings: Any) -> AsyncIterator[Database]:
    """Open a service's database."""
    database = Database(database_settings(url, **settings), name="test")
    try:
        yield database
    finally:
        await database.close()


def settings_of(url: str, *, timeout_s: float = 1) -> BrokerSettings:
    """Return the settings for this Redis; a call that blocks needs a longer timeout than it may take."""
    return BrokerSettings(url=RedisUrl.parse(url), timeout_s=timeout_s)


@contextlib.asynccontextmanager
async def relay(url: str, *, redis: str, resource: str, **settings: Any) -> AsyncIterator[Relay]:
    """Make a relay of the outbox at the URL; nothing runs yet."""
    async with opened(url) as database:
        with redis_streams.connect(settings_of(redis)) as client:
            options = RelaySettings(**{"poll_s": 0.01, **settings})
            yield Relay(database, client, resource=resource, source=f"/{resource}_svc", settings=options)


@contextlib.asynccontextmanager
async def consumer(url: str, handle: Handle, *, redis: str, resource: str, **settings: Any) -> AsyncIterator[Consumer]:
    """Make a consumer whose effects are in the database at the URL; nothing runs yet."""
    async with opened(url) as database, redis_streams.connect_async(settings_of(redis)) as client:
        group = ConsumerGroup(client, stream=stream_of(resource), group="test")
        yield Consumer(database, group, handle, settings=ConsumerSettings(**{**QUICK, **settings}))
