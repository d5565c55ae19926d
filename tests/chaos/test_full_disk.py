"""PostgreSQL's disk fills up under load: the disk of the tables, and the one of the write-ahead log."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
from typing import TYPE_CHECKING, NamedTuple

import httpx
import psycopg
import pytest

from chassis.testing import until
from devstack.home import Home
from devstack.postgres import PostgresServer
from tests.chaos.conftest import ROUNDS, running_stack
from tests.chaos.disks import SmallDisk, small_disk
from tests.chaos.record import now_s
from tests.chaos.traffic import Load, under_load
from tests.chaos.validation import until_counted, validate
from tests.support.logins import admins_token

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devstack.stack import Stack
    from tests.chaos.record import Record
    from tests.chaos.report import Report
    from tests.chaos.traffic import Traffic

pytestmark = pytest.mark.timeout(300 * ROUNDS)  # PostgreSQL is started again and again, after pauses that grow

# The default of 60 s would be most of the time that the tests take.
_BREAKER_S = 2
# PostgreSQL, which ends when it cannot write its log, is started again after 1, 2, 4, 8 s and then every 10 s.
_LONGEST_PAUSE_S = 10
_TYPED = r"(503|UNAVAILABLE) (DATABASE|USER_SERVICE)_UNAVAILABLE"


class _World(NamedTuple):
    stack: Stack
    tables: SmallDisk
    log: SmallDisk


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_World]:
    folder = tmp_path_factory.mktemp("full")
    home = Home(folder / "home")
    with home.claimed():
        pass  # it is a stack's now, and may hold files
    postgres = home.postgres
    extra_env = {"order_svc": {"BREAKER_RESET_TIMEOUT_S": str(_BREAKER_S)}}
    with (
        small_disk(postgres / "cluster", mib=256) as tables,
        small_disk(folder / "log", mib=128) as log,
    ):
        with PostgresServer(postgres):
            pass  # it has made its data directory
        written = postgres / "cluster" / "data" / "pg_wal"
        shutil.move(written, folder / "log" / "pg_wal")
        written.symlink_to(folder / "log" / "pg_wal")
        with running_stack(home.path, drain_s=0, extra_env=extra_env) as stack:
            yield _World(stack, tables, log)


def _pids(stack: Stack) -> list[int | None]:
    replicas = [replica for service in stack.service_names for replica in stack.replicas(service)]
    return [process.pid for process in (*replicas, *stack.workers.values(), stack.edge.process)]


def _write_log(url: str) -> None:
    """Write to the log until the server cannot."""
    with contextlib.suppress(psycopg.OperationalError), psycopg.connect(url, autocommit=True) as connection:
        for _ in range(200):
            connection.execute("SELECT pg_logical_emit_message(false, 'ballast', repeat('x', 1000000))")


async def _writes_fail(traffic: Traffic, *, times: int) -> None:
    async def have_failed() -> bool:
        return sum(traffic.record.failed_outcomes(reads=False).values()) >= times

    await until(have_failed, timeout_s=60)


async def _has_been_started_in_vain(postgres: PostgresServer, *, times: int) -> None:
    """Return when PostgreSQL has ended so often: it cannot recover without writing to its log."""
    pids = {postgres.process.pid}

    async def has_been() -> bool:
        pids.add(postgres.process.pid)
        return len(pids - {None}) > times

    await until(has_been, timeout_s=60)


async def _shows_disk_full(stack: Stack) -> bool:
    """Return whether an operator sees why statements fail: PostgreSQL's code for a full disk in the metrics."""
    async with httpx.AsyncClient(trust_env=False) as http:
        pages = [(await http.get(replica.metrics_url)).text for replica in stack.replicas("order_svc")]
    return any('db_response_status_code="53100"' in page for page in pages)


def _require_typed(record: Record) -> None:
    for failure in record.failures:
        assert re.fullmatch(_TYPED, failure.outcome)
        assert failure.retry_after_s


async def test_while_the_disk_of_the_tables_is_full_everything_is_read_and_writes_are_refused(
    world: _World, rounds: range, report: Report
) -> None:
    stack = world.stack
    token, pids, recoveries_s = admins_token(stack), _pids(stack), []

    async with under_load(stack.edge_url, token=token, load=Load(patience_s=30)) as traffic:
        for _ in rounds:
            with world.tables.full():
                await _writes_fail(traffic, times=len(traffic.record.failures) + 100)
                assert await _shows_disk_full(stack)
            freed_s = now_s()
            await traffic.goes_on(300)
            recoveries_s.append(traffic.record.recovered_after_s(freed_s))

    findings = validate(traffic.record, orders_url=stack.database_url("orders"))
    facts = f"last failure {max(recoveries_s):.2f} s after there was space"
    report.add("disk of the tables full", traffic.record, findings, facts=facts)
    await until_counted(traffic.record, edge_url=stack.edge_url, token=token)
    assert traffic.record.errors == []  # no read failed, and every write succeeded in the end
    assert findings.is_clean, findings
    _require_typed(traffic.record)
    assert max(recoveries_s) < _BREAKER_S + 3
    assert _pids(stack) == pids


async def test_while_the_disk_of_the_log_is_full_callers_are_told_to_come_back_and_nothing_is_lost(
    world: _World, rounds: range, report: Report
) -> None:
    stack = world.stack
    assert stack.postgres
    token, pids, recoveries_s = admins_token(stack), _pids(stack), []

    async with under_load(stack.edge_url, token=token, load=Load(patience_s=60)) as traffic:
        for _ in rounds:
            with world.log.full():
                await asyncio.to_thread(_write_log, stack.postgres.superuser_url("orders"))
                await _has_been_started_in_vain(stack.postgres, times=2)
                await _writes_fail(traffic, times=len(traffic.record.failures) + 20)
            freed_s = now_s()
            await traffic.goes_on(300)
            recoveries_s.append(traffic.record.recovered_after_s(freed_s))

    findings = validate(traffic.record, orders_url=stack.database_url("orders"))
    facts = f"last failure {max(recoveries_s):.2f} s after there was space"
    report.add("disk of the log full", traffic.record, findings, facts=facts)
    await until_counted(traffic.record, edge_url=stack.edge_url, token=token)
    assert traffic.record.given_up == []
    assert findings.is_clean, findings
    _require_typed(traffic.record)
    assert max(recoveries_s) < _LONGEST_PAUSE_S + _BREAKER_S + 3
    assert _pids(stack) == pids
