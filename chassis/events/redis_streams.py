"""Redis as the carrier of events: names of streams and keys, ids of entries, connections."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple, Self

from pydantic import Field, PlainValidator
from pydantic_settings import NoDecode
from redis import RedisCluster
from redis.asyncio import RedisCluster as AsyncRedisCluster
from redis.backoff import ExponentialBackoff
from redis.exceptions import ReadOnlyError, RedisClusterException, RedisError
from typing_extensions import override

from chassis.events.redis_clients import ASYNC, SYNC
from chassis.events.redis_url import RedisUrl
from chassis.settings import Section

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from redis import Redis
    from redis.asyncio import Redis as AsyncRedis

    from chassis.events.redis_clients import Classes

BrokerDown: Final = (RedisError, RedisClusterException)
"""Redis does not answer, or answers with an error: the classes for an except clause."""

FIELD: Final = "event"
"""The field of an entry that holds the event: a CloudEvent as JSON."""
AFTER: Final = "after"
"""The field of an entry that names the entry before it. A reader that has not seen that one has found a gap."""


class EntryId(NamedTuple):
    """The id of an entry of a stream. Ids only grow, even after Redis has lost entries."""

    ms: int
    number: int

    @classmethod
    def parse(cls, text: str | None) -> Self:
        """Return the id that Redis writes as `ms-number`; START for None."""
        ms, _, number = (text or "0-0").partition("-")
        return cls(int(ms), int(number))

    @override
    def __str__(self) -> str:
        """Return the id as Redis writes it."""
        return f"{self.ms}-{self.number}"


START: Final = EntryId(0, 0)
"""Precedes every entry."""

_FILES: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")


def _redis_url(given: object) -> RedisUrl:
    url = given if isinstance(given, RedisUrl) else RedisUrl.parse(str(given))
    for name in _FILES:
        if name in url.options and not os.access(url.options[name], os.R_OK):
            raise ValueError(f"its option {name} names a file that uid {os.geteuid()} cannot read: mount it there")
    return url


class BrokerSettings(Section, env_prefix="REDIS_"):
    """The Redis that carries the events."""

    url: Annotated[RedisUrl, NoDecode, PlainValidator(_redis_url)]
    """`rediss://user:password@host:6379/0`; [Sentinels and a Cluster](operations.md#redis) have forms of their own."""
    timeout_s: Annotated[float, Field(ge=1, le=30)] = 2
    """How long Redis may take to connect, and to answer. The Sentinels of a URL share one such time, the hosts of a
    Cluster two. Events wait safely in the outbox meanwhile."""


def stream_of(resource: str) -> str:
    """Return the stream of the events of a resource: `user`, `order`."""
    return f"shop:events:{resource}"


def key_beside(stream: str, name: str, broker: object) -> str:
    """Return a key that a script can use together with the stream: on a Cluster both are on one node."""
    if isinstance(broker, (RedisCluster, AsyncRedisCluster)):
        return f"{{{stream}}}:{name}"
    return f"{stream}:{name}"


def watermark_of(stream: str, broker: object = None) -> str:
    """Return the key of the watermark: every change that was committed before this time has its event in the stream."""
    return key_beside(stream, "as_of", broker)


def watermark_entry_of(stream: str, broker: object = None) -> str:
    """Return the key of the watermark's entry: the events of those changes are at or before this entry."""
    return key_beside(stream, "as_of:entry", broker)


# After a failover the name of a managed Redis may belong to another server, while the old one answers as a replica.
# Such an answer closes the connection, so that the retry looks the name up again.
_IS_REPLICA: Final[list[type[Exception]]] = [ReadOnlyError]
# A call is repeated at once if its connection turns out to be dead; later repetitions are its caller's. With Sentinels
# each attempt may take another timeout, to find the primary.
_RETRIES: Final = {"server": 2, "sentinel": 1, "cluster": 2}
_BACKOFF: Final = ExponentialBackoff(cap=0.2, base=0.05)
# Some slots may be without a node while the others are served. After one redirection the map of slots is loaded again.
# The hosts of the URL stay known, because other nodes may be behind their names later.
_CLUSTER: Final[dict[str, Any]] = {
    "require_full_coverage": False,
    "dynamic_startup_nodes": False,
    "reinitialize_steps": 1,
}


@contextlib.contextmanager
def connect(settings: BrokerSettings) -> Iterator[Redis]:
    """Yield a client; it connects when it is used, and reconnects after a connection was lost."""
    with contextlib.ExitStack() as ends:
        clients = _clients(settings, SYNC)
        for each in clients:
            ends.callback(each.close)
        yield clients[-1]


@contextlib.asynccontextmanager
async def connect_async(settings: BrokerSettings) -> AsyncIterator[AsyncRedis]:
    """Yield the same for asyncio."""
    async with contextlib.AsyncExitStack() as ends:
        clients = _clients(settings, ASYNC)
        for each in clients:
            ends.push_async_callback(each.aclose)
        yield clients[-1]


def _clients(settings: BrokerSettings, of: Classes) -> Sequence[Any]:
    """Return what has to be closed, the client itself last. A Cluster's client has the commands of a server's."""
    target = settings.url
    options = {**_options(settings), "retry": of.retry(_BACKOFF, _RETRIES[target.topology])}
    if target.topology == "cluster":
        nodes = [of.cluster_node(host, port) for host, port in target.hosts]
        return [of.cluster(startup_nodes=nodes, **_CLUSTER, **options)]
    if target.topology == "sentinel":
        asking = {**_sentinel_options(settings), "retry": of.retry(_BACKOFF, 0)}
        sentinels = of.sentinel(target.hosts, sentinel_kwargs=asking)
        classes = {"redis_class": of.server, "connection_pool_class": of.sentinel_pool}
        return [sentinels, sentinels.master_for(target.service, **classes, **options)]
    [(host, port)] = target.hosts
    return [of.server(host=host, port=port, retry_on_error=_IS_REPLICA, **options)]


def _options(settings: BrokerSettings) -> dict[str, Any]:
    target = settings.url
    # When a node of a Cluster is lost, the client asks the hosts one after the other: together they get two timeouts.
    hosts = len(target.hosts) if target.topology == "cluster" else 1
    timeout_s = max(1, min(settings.timeout_s, 2 * settings.timeout_s / hosts))
    return {
        # A connection may have died while it was idle, so after 30 s it is checked before its next use.
        "health_check_interval": 30,
        **target.options,
        "ssl": target.is_tls,
        "decode_responses": True,
        # An entry that is no UTF-8 is a dead letter, and must not fail every answer that shows it.
        "encoding_errors": "backslashreplace",
        **_timeouts(timeout_s),
    }


def _sentinel_options(settings: BrokerSettings) -> dict[str, Any]:
    target = settings.url
    # Sentinels answer from memory. The client asks them one after the other until one answers: together they get one
    # timeout.
    timeout_s = min(1, settings.timeout_s / len(target.hosts))
    return {**target.sentinel_options, **_timeouts(timeout_s), "ssl": target.is_tls}


def _timeouts(seconds: float) -> dict[str, float]:
    return {"socket_connect_timeout": seconds, "socket_timeout": seconds}
