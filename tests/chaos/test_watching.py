"""A stream of changes misses none and repeats none, whatever fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.chaos import faults
from tests.chaos.conftest import running_stack
from tests.chaos.followers import CUT, changes_of, following, until_told
from tests.chaos.traffic import Load, under_load
from tests.support.logins import admins_token

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devstack.stack import Stack
    from tests.chaos.report import Report


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    # Without Redis no order is possible while the breaker is open, for a minute by default.
    extra_env = {"order_svc": {"BREAKER_RESET_TIMEOUT_S": "1"}}
    with running_stack(tmp_path_factory.mktemp("watching") / "home", drain_s=2, extra_env=extra_env) as stack:
        if stack.redis:
            stack.redis.process.stop()  # no test here needs it
        yield stack


async def test_watchers_receive_each_change_exactly_once(stack: Stack, rounds: range, report: Report) -> None:
    token = admins_token(stack)
    load = Load(rest_buyers=2, grpc_buyers=1, patience_s=20)
    assert stack.postgres

    async with following(stack.edge_url, token=token) as followers:
        async with under_load(stack.edge_url, token=token, load=load) as traffic:
            for _ in rounds:
                await faults.roll_out(stack, "order_svc")
                await traffic.goes_on(50)
            after_rollout = {how: dict(follower.ends) for how, follower in followers.items()}
            for _ in rounds:
                await faults.kill(stack.replicas("order_svc")[0], stack=stack)
                await faults.kill(stack.replicas("order_svc")[1], stack=stack)
                await traffic.goes_on(50)
                await faults.kill_database(stack.postgres)
                await traffic.goes_on(50)
        written = changes_of(stack)
        await until_told(followers.values(), number=len(written))

    for how, follower in followers.items():
        assert follower.told == written, how
        # Each stream was at one of the two replicas, and ended with a reason when that one stopped.
        assert after_rollout[how].keys() == {"SERVER_STOPPING"}
        assert follower.ends[CUT] >= 1
    assert len(written) > 100
    ends = {how: dict(follower.ends) for how, follower in followers.items()}
    report.say(f"watching: {len(written)} changes, 0 lost, 0 doubled; streams ended {ends}")
