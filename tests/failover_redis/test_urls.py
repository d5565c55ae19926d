"""Each form of REDIS_URL over TLS, as a user with few rights whose password needs escaping."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import pytest
from redis.exceptions import ReadOnlyError

from chassis.events.consumer_group import ConsumerGroup
from chassis.events.redis_streams import START, BrokerDown, BrokerSettings, connect, connect_async, stream_of
from chassis.events.redis_url import RedisUrl
from chassis.events.stream import Appending, Sent, Stream
from devstack.ports import LOOPBACK
from tests.failover_redis.servers import made_certificates, missing_program
from tests.failover_redis.topologies import Alone, Cluster, Sentinels
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from redis import Redis

    from tests.failover_redis.servers import Server
    from tests.failover_redis.topologies import Topology

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(bool(missing_program()), reason=missing_program()),
]
STREAM = stream_of("order")
OPTIONS = "client_name=relay&max_connections=10&protocol=2&health_check_interval=5&socket_keepalive=yes"


@pytest.fixture(scope="module", params=[Alone, Sentinels, Cluster], ids=lambda kind: kind.name)
def topology(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Topology]:
    home = tmp_path_factory.mktemp("redis")
    made: Topology = request.param(home, tls=made_certificates(home / "certificates"))
    made.start()
    yield made
    made.close()


def settings_of(url: str) -> BrokerSettings:
    return BrokerSettings(url=RedisUrl.parse(url), timeout_s=2)


def append(client: Redis, *events: bytes) -> Sent:
    appending = Appending(events=events, expected=START, floor=START, after=START, watermark="")
    sent = Stream(client, STREAM, max_length=1000, longest=1000).append(appending)
    assert isinstance(sent, Sent)
    return sent


async def test_events_that_a_relay_publishes_reach_a_group(topology: Topology) -> None:
    settings = settings_of(f"{topology.url}&{OPTIONS}")
    with connect(settings) as relay:
        append(relay, b"one", b"two")
    async with connect_async(settings) as client:
        group = ConsumerGroup(client, stream=STREAM, group="test")
        await group.create_if_missing()
        await group.wait(START, wait_s=0.5)
        entries = await group.read(count=10)
        pending = (await group.look()).pending
        again = await group.claim_stale(pause_s=lambda _: 0)
        await group.acknowledge(again)
        look = await group.look()
        unanswered = await group.ask(START, wait_s=0.5)

    assert [entry.text for entry in entries] == ["one", "two"]
    assert [(entry.text, entry.attempts) for entry in again] == [("one", 2), ("two", 2)]
    assert (pending, look.pending, unanswered) == (2, 0, None)


async def test_a_wrong_password_is_said_and_not_shown(topology: Topology) -> None:
    settings = settings_of(topology.url.replace("canary", "guessed"))
    with connect(settings) as relay, pytest.raises(BrokerDown) as refused:
        append(relay, b"one")
    async with connect_async(settings) as client:
        with pytest.raises(BrokerDown) as refused_too:
            await ConsumerGroup(client, stream=STREAM, group="test").create_if_missing()

    said = f"{refused.value} {refused_too.value}"
    assert "guessed" not in said
    assert said.isprintable()


# redis-py leaves the socket of a failed handshake to the garbage collector, which warns in whichever test runs then.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_certificate_of_an_unknown_authority_is_refused(topology: Topology) -> None:
    settings = settings_of(topology.url.replace("ssl_ca_certs", "client_name"))
    with connect(settings) as relay, pytest.raises(BrokerDown):
        append(relay, b"one")
    async with connect_async(settings) as client:
        with pytest.raises(BrokerDown):
            await ConsumerGroup(client, stream=STREAM, group="test").create_if_missing()
    gc.collect()


async def test_a_connection_to_a_server_that_became_a_replica_is_closed(tmp_path: Path) -> None:
    """Behind the name of a managed Redis is another server then."""
    alone = Alone(tmp_path)
    alone.start()
    [server] = alone.servers
    try:
        settings = settings_of(f"{alone.url}client_name=ours")
        with connect(settings) as relay:
            append(relay)
            async with connect_async(settings) as client:
                group = ConsumerGroup(client, stream=STREAM, group="test")
                await group.create_if_missing()
                before = ours(server)
                server.ask("REPLICAOF", LOOPBACK, 1)
                with pytest.raises(ReadOnlyError):
                    append(relay, b"one")
                with pytest.raises(ReadOnlyError):
                    await group.go_to(START)

                assert len(before) == 2
                until(lambda: not before & ours(server))
    finally:
        alone.close()


def ours(server: Server) -> set[str]:
    """Return the ids of our clients' connections."""
    return {line.split()[0] for line in server.ask("CLIENT", "LIST").splitlines() if "name=ours" in line}
