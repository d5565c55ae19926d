"""The primary dies, is cut off, switched or stopped under load: nothing acknowledged is lost, and writes come back."""

from __future__ import annotations

import asyncio
import itertools
import signal
from collections import Counter
from typing import TYPE_CHECKING, Final

import psycopg
import pytest

from chassis.testing import until
from tests.chaos.record import now_s
from tests.chaos.traffic import Load, under_load
from tests.chaos.validation import validate
from tests.failover.cluster import new_primary
from tests.failover.network import cut
from tests.support.logins import admins_token

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from devstack.stack import Stack
    from tests.chaos.record import Record
    from tests.failover.cluster import Cluster, Node

# Buyers who repeat a write until it is answered, and who together send some 60 requests a second while all is well.
LOAD: Final = Load(rest_buyers=16, grpc_buyers=8, pause_s=0.35, patience_s=120, retry_pause_s=0.35, max_s=3000)
BACK_WITHIN_S: Final = 10


async def kill(primary: Node, standby: Node) -> float:
    """Kill the primary and its Patroni (-9), and start them again when the standby has taken over."""
    primary.signal_all(signal.SIGKILL)
    began_s = await new_primary(standby)
    await asyncio.to_thread(primary.process.stop)
    await asyncio.to_thread(primary.process.start)
    return began_s


async def switch(primary: Node, standby: Node) -> float:
    """Have the standby take over in an orderly way."""
    await asyncio.to_thread(primary.switch_to, standby.name)
    return await new_primary(standby)


async def cut_off(primary: Node, standby: Node) -> float:
    """Cut the primary off from etcd, its standby and the services until the standby has taken over.

    It runs on, and has to notice by itself that it is no primary any more.
    """
    with cut(primary.links):
        return await new_primary(standby)


async def stop(primary: Node, standby: Node) -> float:
    """Stop the primary and its Patroni, as a frozen machine does, until the standby has taken over.

    Its kernel still acknowledges what is sent to it. Woken up, it takes itself for the primary for a moment.
    """
    primary.signal_all(signal.SIGSTOP)
    try:
        return await new_primary(standby)
    finally:
        primary.signal_all(signal.SIGCONT)


KINDS: Final[dict[str, Callable[[Node, Node], Awaitable[float]]]] = {
    "kill -9": kill,
    "network cut": cut_off,
    "switchover": switch,
    "stopped": stop,
}


@pytest.mark.timeout(3600)
async def test_failovers_lose_and_double_nothing_and_writes_come_back(
    cluster: Cluster, stack: Stack, rounds: int, table: list[str]
) -> None:
    await cluster.settled()
    pids = [replica.pid for name in stack.service_names for replica in stack.replicas(name)]
    gaps: dict[str, list[float]] = {kind: [] for kind in KINDS}
    rates: list[float] = []

    async with under_load(stack.edge_url, token=admins_token(stack), load=LOAD) as traffic:
        record = traffic.record
        for number, kind in zip(range(1, rounds + 1), itertools.cycle(KINDS), strict=False):
            primary, standby = await cluster.settled()
            seen, placed, fault_s = len(record.attempts), len(record.placed), now_s()
            began_s = await KINDS[kind](primary, standby)
            await cluster.settled()
            settled_s, settled = now_s(), len(record.attempts)
            await traffic.goes_on(600)
            rates.append((len(record.attempts) - settled) / (now_s() - settled_s))
            gaps[kind].append(longest_gap_s(record, since_s=began_s))
            failed = Counter(each.outcome for each in record.attempts[seen:] if not each.is_ok)
            table.append(
                f"{number:2} {kind:11} {primary.name} -> {standby.name}: new primary after {began_s - fault_s:4.1f} s, "
                f"longest gap of writes since {gaps[kind][-1]:4.1f} s, {len(record.placed) - placed} orders; "
                + ", ".join(f"{count} x {outcome}" for outcome, count in failed.most_common())
            )

    findings = validate(record, orders_url=cluster.url("orders"))
    worst = ", ".join(f"{kind} {len(found)} x, {max(found):.1f} s" for kind, found in gaps.items() if found)
    table.append(
        f"{len(record.placed)} orders and {len(record.moved)} moves acknowledged, {len(findings.lost)} lost, "
        f"{len(findings.doubled)} doubled, {min(rates):.0f} to {max(rates):.0f} requests/s once it is well again; "
        f"longest gaps: {worst}"
    )
    assert findings.is_clean, findings
    assert record.given_up == []
    assert max(itertools.chain(*gaps.values())) < BACK_WITHIN_S
    # Every failure is one that the contract has, with the time to come back; or the caller's time was over.
    for failure in record.failures:
        if not failure.outcome.startswith(("504 ", "DEADLINE_EXCEEDED ")):
            assert failure.outcome in EXPECTED, failure
            assert failure.retry_after_s, failure
    assert pids == [replica.pid for name in stack.service_names for replica in stack.replicas(name)]
    await until(lambda: asyncio.to_thread(is_published, cluster), timeout_s=60)


# The user service has lost its database too, so the buyer cannot be looked up. While statements wait for the
# network to give up, they hold every thread, and the calls behind them are refused as OVERLOADED.
EXPECTED: Final = {
    f"{status}{reason}"
    for status in ("503 ", "UNAVAILABLE ")
    for reason in ("DATABASE_UNAVAILABLE", "USER_SERVICE_UNAVAILABLE", "SERVICE_UNAVAILABLE")
} | {"429 OVERLOADED", "RESOURCE_EXHAUSTED OVERLOADED"}


def longest_gap_s(record: Record, *, since_s: float) -> float:
    """Return the longest time since then in which no write was answered with success."""
    ends = sorted(each.started_s + each.duration_s for each in record.attempts if each.is_ok and each.kind.is_write)
    ends = [since_s, *(end for end in ends if end > since_s)]
    return max(after - before for before, after in itertools.pairwise(ends))


def is_published(cluster: Cluster) -> bool:
    """Return whether every event has been published."""
    with psycopg.connect(cluster.url("orders")) as connection:
        return connection.execute("SELECT count(*) FROM outbox WHERE published_at IS NULL").fetchone() == (0,)
