"""Events while what carries them is killed, stopped and emptied: each takes effect once, in order per subject."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest

from chassis.events.redis_streams import FIELD, stream_of
from devstack.redis import RedisServer, find_redis
from tests.chaos.event_world import PATIENCE_S, EventWorld
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.chaos.report import Report

# Ten processes start in one test, each of which takes a busy machine ten seconds.
pytestmark = pytest.mark.timeout(400)
ORDERS = stream_of("order")


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> RedisServer:
    program = find_redis()
    if program is None:
        pytest.skip("this machine has no redis-server")
    server = RedisServer(program, tmp_path_factory.mktemp("redis"))
    server.process.restarts = True
    return server


@pytest.fixture(scope="module")
def shared_world(redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EventWorld]:
    with EventWorld(tmp_path_factory.mktemp("events"), redis) as world:
        yield world


@pytest.fixture
def world(shared_world: EventWorld) -> EventWorld:
    """Everything, empty, with no relay and no consumer."""
    shared_world.end_workers()
    shared_world.empty()
    return shared_world


@pytest.mark.parametrize(
    ("step", "meaning"),
    [
        ("sent", "relay killed between publish and mark"),
        ("read", "consumer killed between delivery and effect"),
        ("applied", "consumer killed between effect and acknowledgement"),
    ],
)
def test_a_process_killed_at_the_worst_step_loses_and_doubles_nothing(
    world: EventWorld, rounds: range, report: Report, step: str, meaning: str
) -> None:
    start, other = (world.relay, world.consumer) if step == "sent" else (world.consumer, world.relay)
    other()

    with world.written() as load:
        for number in rounds:
            start(dies_at=(step, 2 + number)).until_killed()
            load.goes_on()
    start()
    verdict = world.settled()

    report.say(f"{meaning}, {len(rounds)} x: {verdict}")
    assert verdict.is_clean, verdict


def test_two_relays_and_two_consumers_that_are_killed_in_turn_keep_the_order(
    world: EventWorld, rounds: range, report: Report
) -> None:
    relays = [world.relay(), world.relay()]
    consumers = [world.consumer(), world.consumer()]

    with world.written() as load:
        for number in range(2 * len(rounds)):
            load.goes_on()
            relays[number % 2].kill()
            relays[number % 2] = world.relay()
            consumers[number % 2].kill()
            consumers[number % 2] = world.consumer()
    verdict = world.settled()

    report.say(f"2 relays, 2 consumers, one of each kill -9, {2 * len(rounds)} x: {verdict}")
    assert verdict.is_clean, verdict
    assert [worker.stop() for worker in (*relays, *consumers)] == [0, 0, 0, 0]


@pytest.mark.parametrize("fault", ["restarted", "kill -9", "flushed", "PostgreSQL kill -9"])
def test_events_that_redis_lost_are_published_again(
    world: EventWorld, redis: RedisServer, rounds: range, report: Report, fault: str
) -> None:
    world.relay()
    world.consumer()

    with world.written() as load:
        for _ in rounds:
            load.goes_on()
            if fault == "restarted":
                redis.restart()
            elif fault == "flushed":
                with world.client() as client:
                    client.flushall()
            else:
                process = (redis if fault == "kill -9" else world.postgres).process
                process.kill()
                process.wait_ready()
            load.goes_on()
    verdict = world.settled()

    report.say(f"{fault if 'SQL' in fault else f'Redis {fault}'}, {len(rounds)} x: {verdict}")
    assert verdict.is_clean, verdict


def test_a_flush_after_the_last_event_loses_nothing(world: EventWorld, report: Report) -> None:
    relay = world.relay()
    with world.written() as load:
        load.goes_on()
    until(world.is_all_published, timeout_s=PATIENCE_S)

    with world.client() as client:
        client.flushall()
    world.consumer()
    verdict = world.settled()

    report.say(f"Redis flushed before anybody read: {verdict}")
    assert verdict.is_clean, verdict
    assert relay.stop() == 0


def test_a_consumer_that_was_away_catches_up_in_order(world: EventWorld, report: Report) -> None:
    world.relay()
    consumer = world.consumer()
    consumer.until_started()

    with world.written() as load:
        load.goes_on()
        assert consumer.stop() == 0
        load.goes_on(240)
    world.consumer()
    verdict = world.settled()

    report.say(f"consumer away: {verdict}")
    assert verdict.is_clean, verdict


def test_events_that_come_twice_and_in_the_wrong_order_take_effect_once_and_in_order(
    world: EventWorld, report: Report
) -> None:
    relay = world.relay()
    with world.written() as load:
        load.goes_on(120)
    until(world.is_all_published, timeout_s=PATIENCE_S)
    assert relay.stop() == 0

    with world.client() as client:
        sent = [fields[FIELD] for _, fields in client.xrange(ORDERS)]
        client.delete(ORDERS)
        for event in (*reversed(sent), *sent[::2], *sent):
            client.xadd(ORDERS, {FIELD: event})
    # Reversed, each has to wait for as many as come after it.
    world.consumer(CONSUMER_RETRY_LONGEST_S="0.5", CONSUMER_ATTEMPTS="100")
    verdict = world.settled()

    report.say(f"{len(sent)} events backwards, and up to twice more: {verdict}")
    assert verdict.is_clean, verdict


def test_a_poison_event_hinders_its_subject_only_and_can_be_tried_again(world: EventWorld, report: Report) -> None:
    poisoned = uuid.uuid4()
    world.run(world.sink, "INSERT INTO poison VALUES (%s)", poisoned)
    for sequence in (1, 2):
        world.run(
            world.source,
            "INSERT INTO outbox (id, type, subject, sequence, data, traceparent, occurred_at) "
            "VALUES (gen_random_uuid(), 'order.created', %s, %s, '{}', '', now())",
            poisoned,
            sequence,
        )
    world.relay()
    world.consumer(CONSUMER_ATTEMPTS="3", CONSUMER_RETRY_FIRST_S="0.05")
    with world.written() as load:
        load.goes_on()

    until(lambda: world.verdict().lost == 2, timeout_s=PATIENCE_S)
    until(lambda: len(world.command("events", "dlq", "list").splitlines()) == 2, timeout_s=PATIENCE_S)
    listed = world.command("events", "dlq", "list").splitlines()
    world.run(world.sink, "DELETE FROM poison")
    said = world.command("events", "dlq", "requeue")
    verdict = world.settled()

    report.say(f"a poison event, and the next of its subject: {verdict}")
    assert sorted(line.split("  ")[2] for line in listed) == ["GAP after 3 attempts", "Poisoned after 3 attempts"]
    assert all(f"order.created {poisoned}" in line for line in listed)
    assert said == "2 events are tried again\n"
    assert verdict.is_clean, verdict
    assert world.command("events", "dlq", "list") == ""
