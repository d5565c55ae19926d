"""Advisory locks: each number means one lock, and what waits for one does not wait for another."""

from __future__ import annotations

import ast
import os
import re
import signal
from typing import TYPE_CHECKING

from chassis.clock import SystemClock
from chassis.database import locks
from chassis.testing import until
from tests.integration.chassis.events.test_relay import write
from tests.integration.event_flow import opened, relay, running
from tests.integration.inprocess import KEY_SETTINGS
from tests.support.guards import sources
from user_svc.keys import SigningKeys

if TYPE_CHECKING:
    from devstack.redis import RedisServer
    from tests.integration.conftest import TestDatabase


def test_no_two_locks_share_a_number() -> None:
    numbers = {name: value for name, value in vars(locks).items() if name.isupper()}

    assert len(numbers) >= 3
    assert len(set(numbers.values())) == len(numbers)


def test_every_advisory_lock_has_its_number_from_the_table() -> None:
    for _, path in sources():
        tree = ast.parse(path.read_text())
        numbers = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
        if path.name != "locks.py":
            assert numbers.isdisjoint(value for name, value in vars(locks).items() if name.isupper()), path
        for call in re.findall(r"advisory\w*\(([^)]*)\)", path.read_text()):
            assert call in {":key", ""}, f"{path}: {call}"


async def test_keys_are_rotated_while_a_relay_waits_for_a_redis_that_hangs(
    users_copy: TestDatabase, redis_server: RedisServer, redis_url: str
) -> None:
    write(users_copy, 1)
    pid = redis_server.process.pid
    assert pid is not None

    async def relay_has_its_lock() -> bool:
        rows = users_copy.query("""
            SELECT 1
            FROM pg_locks
            JOIN pg_database ON pg_database.oid = pg_locks.database AND datname = current_database()
            WHERE locktype = 'advisory' AND granted
        """)
        return rows != []

    async with relay(users_copy.url, redis=redis_url, resource="user") as ours, opened(users_copy.url) as database:
        keys = SigningKeys(database, KEY_SETTINGS, SystemClock(), token_lifetime_s=900)
        os.kill(pid, signal.SIGSTOP)
        try:
            async with running(ours.run):
                await until(relay_has_its_lock)
                key = await keys.rotate()
                still_held = await relay_has_its_lock()
        finally:
            os.kill(pid, signal.SIGCONT)

    assert still_held
    assert users_copy.query("SELECT 1 FROM signing_keys WHERE kid = %s", key.kid) == [(1,)]
