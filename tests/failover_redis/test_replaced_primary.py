"""A primary that was frozen and replaced takes writes again when it resumes, until a Sentinel demotes it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from chassis.events.redis_streams import START, BrokerDown, BrokerSettings, EntryId, connect, stream_of
from chassis.events.redis_url import RedisUrl
from chassis.events.stream import Appending, Lost, Sent, Stream
from tests.failover_redis.servers import missing_program
from tests.failover_redis.topologies import Sentinels
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from redis import Redis

    from tests.failover_redis.servers import Server

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(bool(missing_program()), reason=missing_program()),
]
STREAM = stream_of("order")


@pytest.fixture
def sentinels(tmp_path: Path) -> Iterator[Sentinels]:
    with contextlib.closing(Sentinels(tmp_path)) as made:
        made.start()
        yield made


def append(client: Redis, event: bytes, *, after: EntryId) -> Sent | Lost:
    appending = Appending(events=[event], expected=after, floor=after, after=after, watermark="")
    answer = Stream(client, STREAM, max_length=1000, longest=1000).append(appending)
    assert isinstance(answer, Sent | Lost)
    return answer


def entry_of(answer: Sent | Lost) -> EntryId:
    assert isinstance(answer, Sent)
    [entry] = answer.entries
    return entry


def until_sent(client: Redis, event: bytes, *, after: EntryId) -> EntryId:
    entries: list[EntryId] = []

    def is_sent() -> bool:
        with contextlib.suppress(*BrokerDown):
            entries.append(entry_of(append(client, event, after=after)))
        return bool(entries)

    until(is_sent, timeout_s=60)
    return entries[0]


def has(server: Server, entry: EntryId) -> bool:
    return bool(server.read("XRANGE", STREAM, str(entry), str(entry)))


def test_a_relay_with_an_old_connection_appends_to_the_new_primary(sentinels: Sentinels) -> None:
    """Else two relays would see two primaries, and each would send again what its own lacks."""
    settings = BrokerSettings(url=RedisUrl.parse(sentinels.url))
    with connect(settings) as active, connect(settings) as standby:
        standby.ping()
        first = entry_of(append(active, b"one", after=START))
        until(lambda: all(has(server, first) for server in sentinels.servers))
        primary = sentinels.primary(STREAM)
        primary.freeze()
        sentinels.until_replaced(STREAM, primary=primary)
        second = until_sent(active, b"two", after=first)
        primary.wake()
        until(primary.answers)

        third = append(standby, b"three", after=second)

    assert isinstance(third, Sent)
    assert has(sentinels.primary(STREAM), entry_of(third))
