"""Three times as many calls as the system can answer: it answers most of what it could, refuses the rest, and is back.

A refused call gets an answer that says when to come back; it does not run into its deadline.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from devstack.settings import REPOSITORY
from tests.chaos.conftest import running_stack
from tests.chaos.open_loop import ask, crowd
from tests.chaos.traffic import new_user
from tests.perf.open_loop import Spec
from tests.support.logins import admins_token

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from devstack.stack import Stack
    from tests.chaos.report import Report

_OVERLOAD_S = float(os.environ.get("OVERLOAD_S", "0"))
_TIMES = 3
# Callers who do not wait for each other: more than the edge and the services have calls at once.
_CROWD = 3000
# They leave unless they can call by then: what they would have asked later is no load of this minute.
_PATIENCE_S = 1
# Large pages cost the services many times what asking for them costs this machine.
_ORDERS = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """Calls of one kind.

    Attributes:
        callers: who wait for each other's answers: enough for every replica to be busy, and for none to turn one away.
        method: the verb.
        path: with `USER` for the id of a user.
        body: likewise; empty for none.
    """

    callers: int
    method: str = "GET"
    path: str
    body: str = ""


_ORDER = json.dumps(
    {
        "userId": "USER",
        "currencyCode": "EUR",
        "items": [{"productId": "a", "quantity": 1, "unitPrice": {"units": "12"}}],
    }
)
# Each waits somewhere else: lists for their turn, reads of one resource and new orders for a batch, changes of a
# user for a thread with a connection.
KINDS = {
    "a page of orders": Kind(callers=16, path=f"/api/v1/orders?userId=USER&pageSize={_ORDERS}"),
    "a user": Kind(callers=128, path="/api/v1/users/USER"),
    "a new order": Kind(callers=128, method="POST", path="/api/v1/orders", body=_ORDER),
    "a new name": Kind(callers=32, method="PATCH", path="/api/v1/users/USER", body='{"displayName": "Ada"}'),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Sends calls of one kind from a process of its own."""

    folder: Path
    address: str
    token: str
    user_id: str
    kind: Kind

    async def run(self, *, per_s: float, for_s: float, connections: int, patience_s: float = math.inf) -> Any:
        """Return what came back: requests, failed, failures, seconds until the last answer, p50_ms, p99_ms."""
        paths, spec = self.folder / "paths", self.folder / "spec.json"
        paths.write_text(self.kind.path.replace("USER", self.user_id))
        how = Spec(
            address=self.address,
            paths=str(paths),
            token=self.token,
            rate=per_s,
            seconds=for_s,
            connections=connections,
            method=self.kind.method,
            body=self.kind.body.replace("USER", self.user_id),
            patience_s=patience_s,
        )
        spec.write_text(json.dumps(asdict(how)))
        env = {**os.environ, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'generated'}"}
        argv = [sys.executable, "-m", "tests.perf.open_loop", str(spec)]
        run = await asyncio.to_thread(
            subprocess.run, argv, env=env, cwd=REPOSITORY, capture_output=True, text=True, check=False
        )
        assert run.returncode == 0, run.stderr
        return json.loads(run.stdout)

    async def capacity_per_s(self) -> float:
        """Return how many calls are answered in a second if each caller waits for its answer before it asks again."""
        per_s = await self._answered_per_s(200)
        return await self._answered_per_s(max(200, int(4 * per_s)))  # for some 4 s

    async def _answered_per_s(self, calls: int) -> float:
        answers = await self.run(per_s=1e6, for_s=calls / 1e6, connections=self.kind.callers)  # all are due at once
        return float(answers["requests"] / answers["seconds"])


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running_stack(tmp_path_factory.mktemp("overload") / "home") as stack:
        yield stack


@pytest.fixture
async def load(kind: str, stack: Stack, tmp_path: Path) -> Load:
    token = admins_token(stack)
    user_id = await new_user(stack.edge_url)
    item = {"productId": "a", "name": "b" * 100, "quantity": 1, "unitPrice": {"units": "12"}}
    order = {"userId": user_id, "currencyCode": "EUR", "items": [item] * 10}
    async with crowd(stack.edge_url, token=token) as http:
        for _ in range(_ORDERS):
            await ask(http, "POST", "/api/v1/orders", json=order)
    address = stack.edge_url.removeprefix("http://")
    return Load(folder=tmp_path, address=address, token=token, user_id=user_id, kind=KINDS[kind])


async def counted(stack: Stack) -> dict[str, int]:
    """Return what the edge has counted of the services: sent, refused by itself, tried again, failed health checks."""
    tries = ("upstream_rq_total", "upstream_rq_active_overflow", "upstream_rq_retry", "upstream_rq_retry_overflow")
    names = (*tries, "health_check.failure")
    async with httpx.AsyncClient(base_url=stack.edge.admin_url, trust_env=False) as admin:
        lines = (await admin.get(f"/stats?filter=^cluster.(order|user)_svc\\..*({'|'.join(names)})$")).text.splitlines()
    return {
        name: sum(int(line.rpartition(":")[2]) for line in lines if line.partition(":")[0].endswith(f".{name}"))
        for name in names
    }


@pytest.mark.skipif(not _OVERLOAD_S, reason="needs a quiet machine: `make test-overload`")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", KINDS)
async def test_three_times_the_capacity_leaves_four_fifths_of_it_and_is_over_in_ten_seconds(
    kind: str, load: Load, stack: Stack, report: Report
) -> None:
    callers = load.kind.callers
    capacities_per_s = [await load.capacity_per_s()]
    before = await load.run(per_s=capacities_per_s[0] / 2, for_s=5, connections=callers)
    counted_before = await counted(stack)
    over = await load.run(
        per_s=_TIMES * capacities_per_s[0], for_s=_OVERLOAD_S, connections=_CROWD, patience_s=_PATIENCE_S
    )
    after = await load.run(per_s=capacities_per_s[0] / 2, for_s=5, connections=callers)
    # The machine has other work too: what it could do meanwhile lies between what it could before and after.
    capacities_per_s.append(await load.capacity_per_s())

    # The seconds until the last answer count too, although no call is sent any more.
    goodput_per_s = (over["requests"] - over["failed"]) / over["seconds"]
    tail_s = over["seconds"] - _OVERLOAD_S
    report.say(
        f"{kind}: capacity {capacities_per_s[0]:.0f}/s, then {capacities_per_s[1]:.0f}/s; "
        f"{over['requests'] / _OVERLOAD_S / capacities_per_s[0]:.1f} times that for {_OVERLOAD_S:.0f} s: "
        f"goodput {goodput_per_s / min(capacities_per_s):.0%}, refused {over['failures']}, "
        f"p50 {over['p50_ms'] / 1000:.2f} s, p99 {over['p99_ms'] / 1000:.1f} s, over after {tail_s:.1f} s; "
        f"half of it: p50 {before['p50_ms']:.0f} ms before, {after['p50_ms']:.0f} ms after"
    )
    now = await counted(stack)
    report.say("    " + ", ".join(f"{name} {now[name] - counted_before[name]}" for name in now))
    assert before["failures"] == after["failures"] == {}
    assert set(over["failures"]) <= {"429 OVERLOADED"}
    assert goodput_per_s >= 0.8 * min(capacities_per_s)
    assert tail_s <= 10
