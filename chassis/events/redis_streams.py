"""Redis, which carries the events between the services, and its connections."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple, Self, cast

from pydantic import AfterValidator, Field, SecretStr
from redis import Redis, RedisCluster, Sentinel
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio import RedisCluster as AsyncRedisCluster
from redis.asyncio import Sentinel as AsyncSentinel
from redis.asyncio.cluster import ClusterNode as AsyncClusterNode
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialBackoff
from redis.cluster import ClusterNode
from redis.exceptions import ReadOnlyError, RedisClusterException, RedisError
from redis.retry import Retry
from typing_extensions import override

from chassis.events.redis_url import RedisUrl
from chassis.settings import Section

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from redis.backoff import AbstractBackoff

BrokerDown: Final = (RedisError, RedisClusterException)
"""Redis does not answer, or not as it should; for an except clause."""

FIELD: Final = "event"
"""The field of an entry that holds the event: a CloudEvent as JSON."""
AFTER: Final = "after"
"""The field of an entry that names the entry before it, so that a reader sees whether one is missing in between."""


class EntryId(NamedTuple):
    """The id of an entry of a stream. Ids only grow: also after Redis has lost entries."""

    ms: int
    number: int

    @classmethod
    def parse(cls, text: str | None) -> Self:
        """Return the id; that before all entries for None."""
        ms, _, number = (text or "0-0").partition("-")
        return cls(int(ms), int(number))

    @override
    def __str__(self) -> str:
        """Return the id as Redis writes it."""
        return f"{self.ms}-{self.number}"


START: Final = EntryId(0, 0)
"""Before every entry."""


def _checked(url: SecretStr) -> SecretStr:
    RedisUrl.parse(url.get_secret_value())
    return url


class BrokerSettings(Section, env_prefix="REDIS_"):
    """The Redis that carries the events."""

    url: Annotated[SecretStr, AfterValidator(_checked)]
    # Inside one data centre; a longer wait is one for a fault, and events wait safely in the outbox.
    timeout_s: Annotated[float, Field(ge=1, le=30)] = 2

    @property
    def target(self) -> RedisUrl:
        """The URL, parsed."""
        return RedisUrl.parse(self.url.get_secret_value())


def stream_of(resource: str) -> str:
    """Return the stream of the events of a resource: `user`, `order`."""
    return f"shop:events:{resource}"


def key_beside(stream: str, name: str, broker: object) -> str:
    """Return a key that one script may use together with the stream: on a Cluster it is on the same node."""
    if isinstance(broker, (RedisCluster, AsyncRedisCluster)):
        return f"{{{stream}}}:{name}"
    return f"{stream}:{name}"


def watermark_of(stream: str, broker: object = None) -> str:
    """Return the key of a time: every change that was committed before has its event in the stream."""
    return key_beside(stream, "as_of", broker)


def watermark_entry_of(stream: str, broker: object = None) -> str:
    """Return the key of an entry id: the events of those changes are in the stream up to this entry."""
    return key_beside(stream, "as_of:entry", broker)


# A call is tried again at once if its connection turns out to be dead, and later by its caller. With Sentinels each
# attempt may take another timeout to find the primary.
_RETRIES: Final = {"server": 2, "sentinel": 1, "cluster": 2}
# One part of the slots may be away while the others are served. A node that has moved is asked for at once, and hosts
# that the URL names stay known: behind them may be other nodes after a while.
_CLUSTER: Final[dict[str, Any]] = {
    "require_full_coverage": False,
    "dynamic_startup_nodes": False,
    "reinitialize_steps": 1,
}


class _Cluster(RedisCluster):
    """A client of a Cluster that connects when it is used, as the others do."""

    def __init__(self, **options: Any) -> None:
        self._options: Final = options
        self._connecting: Final = threading.RLock()
        self._is_connected = False

    @override
    def execute_command(self, *args: Any, **kwargs: Any) -> Any:
        with self._connecting:
            if not self._is_connected:
                # Set before: while it connects, it asks the Cluster for its commands through this method.
                self._is_connected = True
                try:
                    super().__init__(**self._options)
                except BaseException:
                    self._is_connected = False
                    raise
        return super().execute_command(*args, **kwargs)  # type: ignore[no-untyped-call]  # redis-py has no types there

    @override
    def close(self) -> None:
        if self._is_connected:
            super().close()


@contextlib.contextmanager
def connect(settings: BrokerSettings) -> Iterator[Redis]:
    """Yield a client; it connects when it is used, and anew when a connection is lost."""
    target = settings.target
    options = {**_options(settings), "retry": Retry(_backoff(), _RETRIES[target.topology])}
    with contextlib.ExitStack() as ends:
        if target.topology == "cluster":
            nodes = [ClusterNode(host, port) for host, port in target.hosts]  # type: ignore[no-untyped-call]  # as above
            # A Cluster has the commands of a server.
            client = cast("Redis", _Cluster(startup_nodes=nodes, **_CLUSTER, **options))
        elif target.topology == "sentinel":
            asking = {**_sentinel_options(settings), "retry": Retry(_backoff(), 0)}
            sentinels: Any = Sentinel(target.hosts, sentinel_kwargs=asking)  # type: ignore[no-untyped-call]  # as above
            ends.callback(sentinels.close)
            client = sentinels.master_for(target.service, redis_class=Redis, **options)
        else:
            [(host, port)] = target.hosts
            client = Redis(host=host, port=port, retry_on_error=_IS_REPLICA, **options)
        ends.callback(client.close)
        yield client


@contextlib.asynccontextmanager
async def connect_async(settings: BrokerSettings) -> AsyncIterator[AsyncRedis]:
    """Yield the same for asyncio."""
    target = settings.target
    options = {**_options(settings), "retry": AsyncRetry(_backoff(), _RETRIES[target.topology])}
    async with contextlib.AsyncExitStack() as ends:
        if target.topology == "cluster":
            nodes = [AsyncClusterNode(host, port) for host, port in target.hosts]
            client = cast("AsyncRedis", AsyncRedisCluster(startup_nodes=nodes, **_CLUSTER, **options))
        elif target.topology == "sentinel":
            asking = {**_sentinel_options(settings), "retry": AsyncRetry(_backoff(), 0)}
            sentinels: Any = AsyncSentinel(target.hosts, sentinel_kwargs=asking)  # type: ignore[no-untyped-call]  # as above
            ends.push_async_callback(sentinels.aclose)
            client = sentinels.master_for(target.service, redis_class=AsyncRedis, **options)
        else:
            [(host, port)] = target.hosts
            client = AsyncRedis(host=host, port=port, retry_on_error=_IS_REPLICA, **options)
        ends.push_async_callback(client.aclose)
        yield client


# Behind the name of a managed Redis may be another server after a failover, and the old one answers as a replica: its
# connection is closed, and the name looked up again.
_IS_REPLICA: Final[list[type[Exception]]] = [ReadOnlyError]


def _backoff() -> AbstractBackoff:
    return ExponentialBackoff(cap=0.2, base=0.05)


def _options(settings: BrokerSettings) -> dict[str, Any]:
    target = settings.target
    # A client of a Cluster that loses a node asks each of the hosts in turn for the others: they share two timeouts.
    hosts = len(target.hosts) if target.topology == "cluster" else 1
    timeout_s = max(1, min(settings.timeout_s, 2 * settings.timeout_s / hosts))
    return {
        # A connection that was idle may be dead; so it is asked before it is used.
        "health_check_interval": 30,
        **target.options,
        "ssl": target.is_tls,
        "decode_responses": True,
        **_timeouts(timeout_s),
    }


def _sentinel_options(settings: BrokerSettings) -> dict[str, Any]:
    target = settings.target
    # Sentinels answer out of their memory, and are asked one after the other until one answers.
    timeout_s = min(1, settings.timeout_s / len(target.hosts))
    return {**target.sentinel_options, **_timeouts(timeout_s), "ssl": target.is_tls}


def _timeouts(seconds: float) -> dict[str, float]:
    return {"socket_connect_timeout": seconds, "socket_timeout": seconds}
