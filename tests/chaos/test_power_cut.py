"""All processes are killed at once; afterwards the data is complete."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from chassis.testing import until
from devstack.settings import REPOSITORY, Settings
from devstack.stack import Stack
from tests.chaos import faults
from tests.chaos.record import now_s
from tests.chaos.traffic import Load, under_load
from tests.chaos.validation import validate
from tests.support.logins import NO_LIMITS, admins_token_at
from tests.support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.chaos.report import Report


@contextlib.contextmanager
def _running(settings: Settings) -> Iterator[subprocess.Popen[str]]:
    """Run a stack as a person does, in a process of its own that can be killed."""
    env = {
        **os.environ,
        "SHOP_HOME": str(settings.home),
        "SHOP_EDGE_PORT": str(settings.edge_port),
        "SHOP_RATE_LIMIT": str(settings.rate_limit),
        "SHOP_PUBLIC_WRITE_LIMIT": str(settings.public_write_limit),
    }
    command = [sys.executable, "-m", "devstack", "up"]
    with subprocess.Popen(command, cwd=REPOSITORY, env=env, stdout=subprocess.PIPE, text=True) as devstack:
        try:
            assert devstack.stdout
            assert any(line.startswith("Ready. ") for line in devstack.stdout)
            yield devstack
        finally:
            devstack.kill()


@pytest.mark.parametrize("victims", ["devstack", "everything"])
async def test_acknowledged_writes_survive_the_stack_being_killed(victims: str, tmp_path: Path, report: Report) -> None:
    settings = Settings(home=tmp_path / "home", edge_port=free_port(), **NO_LIMITS)
    edge_url = f"http://127.0.0.1:{settings.edge_port}"

    async def nothing_runs() -> bool:
        return not faults.processes_of(settings.home)

    with contextlib.ExitStack() as stacks:
        devstack = stacks.enter_context(_running(settings))
        # The buyers repeat what was not acknowledged, until the next stack answers at the same port.
        token = admins_token_at(edge_url, settings.home)
        async with under_load(edge_url, token=token, load=Load(patience_s=60)) as traffic:
            await traffic.goes_on()
            fault_s = now_s()
            everything = faults.processes_of(settings.home)
            with faults.gone_after(everything, timeout_s=15):
                faults.kill_all([*(everything if victims == "everything" else ()), devstack.pid])
                await until(nothing_runs, timeout_s=15)
            await asyncio.to_thread(devstack.wait)  # it holds the lock of its home until it is gone
            gone_s = now_s()

            stack = await asyncio.to_thread(stacks.enter_context, Stack(settings))
            stacks.callback(stack.kill)
            await traffic.goes_on()
        findings = validate(traffic.record, orders_url=stack.database_url("orders"))

    recovered_s = traffic.record.recovered_after_s(fault_s)
    facts = f"all gone after {gone_s - fault_s:.2f} s, last failure after {recovered_s:.2f} s"
    report.add(f"kill -9 {victims}", traffic.record, findings, facts=facts)
    assert traffic.record.given_up == []
    assert findings.is_clean, findings
