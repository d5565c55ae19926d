"""A disk that takes 50 ms for each fsync: what writes and reads take, and whether anything piles up."""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
import shutil
from typing import TYPE_CHECKING, Final

import httpx
import psycopg
import pytest

from chassis.database.settings import DatabaseSettings
from chassis.testing import new_uuid, until
from tests.chaos.clients import CallFailed
from tests.chaos.conftest import running_stack
from tests.chaos.open_loop import ask, call_at_a_pace, crowd
from tests.chaos.record import now_s
from tests.chaos.traffic import new_user
from tests.chaos.wrapped import WrappedPostgres
from tests.support.logins import admins_token

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from devstack.stack import Stack
    from tests.chaos.open_loop import Answers
    from tests.chaos.report import Report

pytestmark = [
    pytest.mark.skipif(shutil.which("strace") is None, reason="install Debian's strace"),
    pytest.mark.timeout(300),  # a stack and three loads, on a busy machine
]

# As a grandchild (-D), so that PostgreSQL stays our child; by a filter, so that no other call is any slower.
_SLOW: Final = (
    "strace -D -f --seccomp-bpf -qq -o /dev/null -e trace=fsync,fdatasync -e inject=fsync,fdatasync:delay_exit=50000"
)
_READS_PER_S, _WRITES_PER_S, _FOR_S = 25, 25, 5
_TYPED: Final = r"(429 OVERLOADED|503 DATABASE_UNAVAILABLE|504 DEADLINE_EXCEEDED)"
# For each of four kinds of connections.
_MOST_WAITING: Final = 4 * DatabaseSettings.model_fields["batch_max_waiting"].default
_PENDING: Final = r"^db_client_connection_pending_requests\S* (\S+)$"


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WrappedPostgres]:
    with WrappedPostgres(tmp_path_factory.mktemp("slow") / "postgres") as postgres:
        yield postgres


@pytest.fixture(scope="module")
def stack(postgres: WrappedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running_stack(tmp_path_factory.mktemp("slow") / "home", drain_s=0, postgres=postgres) as stack:
        yield stack


class _Shop:
    """Calls of one user's, each write with an idempotency key."""

    def __init__(self, http: httpx.AsyncClient, user_id: str) -> None:
        self.placed: list[str] = []
        self._http = http
        self._user_id = user_id

    async def read(self) -> None:
        await ask(self._http, "GET", f"/api/v1/users/{self._user_id}")

    async def write(self) -> None:
        self.placed.append(new_uuid())
        await self.place(self.placed[-1])

    async def place(self, key: str) -> None:
        item = {"productId": "a", "quantity": 1, "unitPrice": {"units": "12"}}
        body = {"userId": self._user_id, "currencyCode": "EUR", "items": [item]}
        await ask(self._http, "POST", "/api/v1/orders", json=body, headers={"idempotency-key": key})

    async def at_a_pace(self) -> tuple[Answers, Answers]:
        """Read and write for some seconds; return what became of reads and of writes."""
        async with asyncio.TaskGroup() as loads:
            reads = loads.create_task(call_at_a_pace(self.read, per_s=_READS_PER_S, for_s=_FOR_S))
            writes = loads.create_task(call_at_a_pace(self.write, per_s=_WRITES_PER_S, for_s=_FOR_S))
        return reads.result(), writes.result()


@contextlib.asynccontextmanager
async def _waiting(stack: Stack) -> AsyncIterator[list[float]]:
    """Yield how much work waited for a connection of a replica, looked at again and again while the block runs."""
    seen: list[float] = []

    async def look() -> None:
        async with httpx.AsyncClient(trust_env=False) as http:
            while True:
                for replica in stack.replicas("order_svc"):
                    page = (await http.get(replica.metrics_url)).text
                    seen.extend(float(each) for each in re.findall(_PENDING, page, re.MULTILINE))
                await asyncio.sleep(0.2)  # between two looks

    looking = asyncio.create_task(look())
    try:
        yield seen
    finally:
        looking.cancel()
        await asyncio.wait([looking])


def _fastest_commit_s(postgres: WrappedPostgres) -> float:
    """Return how long the fastest of some commits takes: however busy the machine is, one waits for its fsync alone."""
    with psycopg.connect(postgres.superuser_url(), autocommit=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS written (number integer)")
        took_s = []
        for number in range(20):
            began_s = now_s()
            connection.execute("INSERT INTO written VALUES (%s)", [number])
            took_s.append(now_s() - began_s)
    return min(took_s)


async def _succeeds(shop: _Shop) -> bool:
    with contextlib.suppress(CallFailed):
        await shop.write()
        return True
    return False


async def test_a_slow_fsync_costs_writes_their_time_and_reads_nothing(
    stack: Stack, postgres: WrappedPostgres, report: Report
) -> None:
    user_id = await new_user(stack.edge_url)
    async with crowd(stack.edge_url, token=admins_token(stack)) as http:
        shop = _Shop(http, user_id)
        await until(lambda: _succeeds(shop))
        reads_before, writes_before = await shop.at_a_pace()
        fastest_before_s = _fastest_commit_s(postgres)
        postgres.wrap(_SLOW)
        await asyncio.to_thread(postgres.restart)
        fastest_s = _fastest_commit_s(postgres)
        await until(lambda: _succeeds(shop), timeout_s=30)

        async with _waiting(stack) as waiting:
            reads, writes = await shop.at_a_pace()
            seen_during = len(waiting)

            async def nothing_waits() -> bool:
                return len(waiting) > seen_during + 1 and waiting[-2:] == [0, 0]

            await until(nothing_waits, timeout_s=30)

        for key in shop.placed:  # whatever the first answer was
            await shop.place(key)
    with psycopg.connect(stack.database_url("orders")) as connection:
        orders = connection.execute("SELECT count(*) FROM orders WHERE user_id = %s", [user_id]).fetchone()

    for name, before, during in (("reads", reads_before, reads), ("writes", writes_before, writes)):
        goodput = " -> ".join(f"{each.succeeded(until_s=math.inf)}/{len(each.calls)}" for each in (before, during))
        report.say(f"fsync takes 50 ms: {name} {goodput}; {before.latency()} -> {during.latency()}; {during.failed}")
    report.say(f"    at most {max(waiting):.0f} waited for a connection")
    assert orders == (len(shop.placed),)
    assert fastest_before_s < 0.05 <= fastest_s  # so it was slow
    assert reads.failed == {}
    assert [outcome for outcome in writes.failed if not re.fullmatch(_TYPED, outcome)] == []
    assert writes.failed.total() <= len(writes.calls) / 10
    assert max(waiting) < _MOST_WAITING
