"""The whole stack behind PgBouncer, under load, while PgBouncer and PostgreSQL are killed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from devstack.settings import Settings
from tests.chaos.record import now_s
from tests.chaos.traffic import Load, under_load
from tests.chaos.validation import validate
from tests.support.logins import NO_LIMITS, admins_token
from tests.support.pgbouncer import PooledStack, pooled_stack
from tests.support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

BACK_WITHIN_S = 10


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PooledStack]:
    settings = Settings(home=tmp_path_factory.mktemp("pooled") / "home", edge_port=free_port(), **NO_LIMITS)
    with pooled_stack(settings, extra_env={"order_svc": {"BREAKER_RESET_TIMEOUT_S": "2"}}) as stack:
        try:
            yield stack
        finally:
            stack.kill()


async def test_a_killed_pooler_and_a_killed_server_behind_it_lose_and_double_nothing(
    stack: PooledStack, table: list[str]
) -> None:
    assert stack.postgres
    pids = [replica.pid for name in stack.service_names for replica in stack.replicas(name)]

    async with under_load(stack.edge_url, token=admins_token(stack), load=Load(patience_s=30)) as traffic:
        for name, process in {"PgBouncer": stack.pooler.process, "PostgreSQL": stack.postgres.process}.items():
            fault_s = now_s()
            await asyncio.to_thread(process.kill)
            await asyncio.to_thread(process.wait_ready)
            ready_s = now_s()
            await traffic.goes_on()
            back_s = traffic.record.recovered_after_s(fault_s) - (ready_s - fault_s)
            table.append(f"{name} killed: there again after {ready_s - fault_s:.1f} s, calls {back_s:.1f} s later")
            assert back_s < BACK_WITHIN_S

    record, findings = traffic.record, validate(traffic.record, orders_url=stack.database_url("orders"))
    table.append(f"{len(record.placed)} orders, {len(findings.lost)} lost, {len(findings.doubled)} doubled")
    assert findings.is_clean, findings
    assert record.given_up == []
    assert pids == [replica.pid for name in stack.service_names for replica in stack.replicas(name)]
