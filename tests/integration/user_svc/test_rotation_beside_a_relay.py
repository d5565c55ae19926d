"""Signing keys are rotated whatever a relay waits for: each advisory lock means one thing."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from chassis.clock import SystemClock
from chassis.testing import until
from tests.integration.event_flow import opened, relay, running
from tests.integration.user_svc.inprocess import KEY_SETTINGS
from user_svc.keys import SigningKeys

if TYPE_CHECKING:
    from devstack.redis import RedisServer
    from tests.integration.databases import TestDatabase

_WRITE = """
    INSERT INTO outbox (id, type, subject, sequence, data, traceparent, occurred_at)
    VALUES (gen_random_uuid(), 'user.created', gen_random_uuid(), 1, '{}', '', now())
"""


async def test_keys_are_rotated_while_a_relay_waits_for_a_redis_that_hangs(
    users_copy: TestDatabase, redis_server: RedisServer, redis_url: str
) -> None:
    users_copy.query(_WRITE)
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
