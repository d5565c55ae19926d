"""Failovers of a real Redis under load: each event takes effect once, in order, whatever the new primary lacks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from chassis.events.redis_streams import EntryId, stream_of
from tests.chaos.event_world import EventWorld
from tests.failover_redis.servers import SERVER_PASSWORD, missing_program
from tests.failover_redis.topologies import Cluster, Sentinels
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.failover_redis.servers import Server
    from tests.failover_redis.topologies import Topology

pytestmark = [
    pytest.mark.timeout(1200),
    pytest.mark.skipif(bool(missing_program()), reason=missing_program()),
]
ORDERS = stream_of("order")


@dataclass(frozen=True, slots=True)
class Scene:
    """The system that a fault hits.

    Attributes:
        world: outbox, relays, consumers.
        topology: the Redis in between.
    """

    world: EventWorld
    topology: Topology

    @property
    def primary(self) -> Server:
        return self.topology.primary(ORDERS)

    def published_after(self, entry: EntryId) -> int:
        """Return how many events are marked as sent under later entries."""
        statement = "SELECT count(*) FROM outbox WHERE (entry_ms, entry_number) > (%s, %s)"
        [(count,)] = self.world.run(self.world.source, statement, entry.ms, entry.number)
        return int(count)


def killed(scene: Scene) -> int:
    primary = scene.primary
    primary.process.kill()
    return _replaced(scene, primary)


def handed_over(scene: Scene) -> int:
    primary = scene.primary
    scene.topology.hand_over(ORDERS)
    scene.topology.until_replaced(ORDERS, primary=primary)
    return 0


def frozen_and_woken(scene: Scene) -> int:
    """When the old primary continues, it acts as primary until a Sentinel demotes it."""
    primary = scene.primary
    primary.freeze()
    scene.topology.until_replaced(ORDERS, primary=primary)
    primary.wake()
    return 0


def to_a_replica_that_lagged(scene: Scene) -> int:
    """No replica gets what the primary does, for as long as it takes to publish some events; then it is killed."""
    primary = scene.primary
    replicas = scene.topology.replicas(primary)
    for replica in replicas:
        replica.ask("CONFIG", "SET", "masterauth", "wrong")
    primary.ask("CLIENT", "KILL", "TYPE", "replica")
    until(lambda: primary.online_replicas() == 0)
    survivor = max(_last_entry(replica) for replica in replicas)
    until(lambda: scene.published_after(survivor) >= 100, timeout_s=60)
    primary.process.kill()
    gone = scene.published_after(survivor)
    for replica in replicas:
        replica.ask("CONFIG", "SET", "masterauth", SERVER_PASSWORD)
    return _replaced(scene, primary) + gone


FAULTS: dict[str, Callable[[Scene], int]] = {
    "primary killed": killed,
    "handed over": handed_over,
    "primary frozen, then woken": frozen_and_woken,
    "replicas lagged": to_a_replica_that_lagged,
}


def _replaced(scene: Scene, primary: Server) -> int:
    scene.topology.until_replaced(ORDERS, primary=primary)
    primary.process.start()
    primary.process.wait_ready()
    return 0


def _last_entry(replica: Server) -> EntryId:
    about = replica.read("XINFO", "STREAM", ORDERS)
    return EntryId.parse(dict(zip(about[::2], about[1::2], strict=True))["last-generated-id"])


@pytest.fixture(scope="module", params=[Sentinels, Cluster], ids=lambda kind: kind.name)
def scene(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    topology: Topology = request.param(tmp_path_factory.mktemp("redis"))
    with EventWorld(tmp_path_factory.mktemp("events"), topology) as world:
        workers = [world.relay(), world.relay(), world.consumer(), world.consumer()]
        for worker in workers:
            worker.until_started()
        yield Scene(world, topology)
        assert [worker.stop() for worker in workers] == [0, 0, 0, 0]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_failover_loses_doubles_and_inverts_nothing(
    scene: Scene, rounds: int, table: list[tuple[str, ...]], fault: str
) -> None:
    gone = 0
    before = scene.world.verdict().events

    with scene.world.written() as load:
        for _ in range(rounds):
            scene.topology.until_whole()
            load.goes_on()
            gone += FAULTS[fault](scene)
            load.goes_on()
    verdict = scene.world.settled()

    longest = scene.world.longest_wait_s(newest=verdict.events - before)
    figures = [verdict.events - before, verdict.lost, verdict.doubled, verdict.inverted, gone]
    table.append((f"{scene.topology.name}: {fault}", f"{rounds}", *map(str, figures), f"{longest:.1f} s"))
    assert verdict.is_clean, verdict
    assert (gone > 0) == (fault == "replicas lagged")
