"""Sweeps remove outdated rows in batches, in each service's process."""

from __future__ import annotations

import asyncio
import re
from datetime import timedelta
from typing import TYPE_CHECKING

import httpx
import pytest
from shop.user.v1 import session_service_pb2 as pb
from shop.user.v1.session_service_pb2_grpc import SessionServiceStub
from shop.user.v1.user_service_pb2_grpc import UserServiceStub

from chassis.database import Database
from chassis.errors import DatabaseUnavailable
from chassis.idempotency import store
from chassis.service import services
from chassis.testing import LOOPBACK, plain_channel, refusal_of, until
from devstack.ports import ReservedPort
from tests.integration.databases import fresh_database
from tests.integration.event_flow import opened
from tests.integration.inprocess import database_settings
from tests.integration.replica import run, serving_process
from tests.integration.user_svc.inprocess import user_service
from tests.support.guards import facts, require_explained, sources
from tests.support.requests import PASSWORD, create_user_request
from user_svc import sweeps

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable
    from pathlib import Path

    from shop.user.v1.session_service_pb2_grpc import SessionServiceAsyncStub
    from shop.user.v1.user_service_pb2_grpc import UserServiceAsyncStub

    from chassis.testing import ManualClock
    from devstack.postgres import PostgresServer
    from tests.integration.databases import TestDatabase

DAY = timedelta(days=1)
# The most rows of one transaction of a sweep; a statement of this size is far from statement_timeout.
MOST_AT_ONCE = 5_000


@pytest.fixture
async def database(users_copy: TestDatabase) -> AsyncIterator[Database]:
    database = Database(database_settings(users_copy.url), name="test")
    yield database
    await database.close()


def a_user(database: TestDatabase) -> None:
    database.query(
        "INSERT INTO users (id, display_name, state, roles, password_hash, created_at, updated_at, version)"
        " VALUES ('00000000-0000-0000-0000-000000000001', 'Ada', 'ACTIVE', '{USER}', '', now(), now(), 1)"
    )


def many_sessions(database: TestDatabase, count: int, *, tokens: int, over_since: str, column: str) -> None:
    """Write sessions, each with this number of tokens, that have ended by this column."""
    others = {"expires_at": "ended_at", "ended_at": "expires_at"}[column]
    other_value = {"expires_at": "now() + interval '1 day'", "ended_at": "NULL"}[others]
    database.query(
        f"""
        WITH made AS (
            INSERT INTO sessions (id, user_id, chain_key, created_at, {column}, {others})
            SELECT gen_random_uuid(), '00000000-0000-0000-0000-000000000001', '', now(), {over_since}, {other_value}
            FROM generate_series(1, {count})
            RETURNING id
        )
        INSERT INTO refresh_tokens (token_hash, session_id)
        SELECT decode(replace(gen_random_uuid()::text, '-', ''), 'hex'), id
        FROM made, generate_series(1, {tokens})
        """
    )


def forbid_more_at_once(database: TestDatabase) -> None:
    """Let every statement fail that deletes or changes more rows than a batch may."""
    database.query(f"""
        CREATE FUNCTION require_few() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF (SELECT count(*) FROM touched) > {MOST_AT_ONCE} THEN
                RAISE 'more than {MOST_AT_ONCE} rows at once';
            END IF;
            RETURN NULL;
        END $$
    """)
    for table in ("sessions", "refresh_tokens", "login_attempts", "attempt_reservations"):
        for event in ("DELETE", "UPDATE"):
            database.query(
                f"CREATE TRIGGER few_{event.lower()} AFTER {event} ON {table}"
                " REFERENCING OLD TABLE AS touched FOR EACH STATEMENT EXECUTE FUNCTION require_few()"
            )


def count(database: TestDatabase, table: str) -> int:
    [(number,)] = database.query(f"SELECT count(*) FROM {table}")
    return int(number)


async def test_the_sweep_removes_rows_that_expired_a_day_ago(
    sessions: SessionServiceAsyncStub, users: UserServiceAsyncStub, users_database: TestDatabase, clock: ManualClock
) -> None:
    def log_in(email: str = "ada@example.com", password: str = PASSWORD) -> Awaitable[pb.Session]:
        return sessions.CreateSession(pb.CreateSessionRequest(email=email, password=password))

    await users.CreateUser(create_user_request(email="ada@example.com"))
    ended = await log_in()
    await refusal_of(log_in("nobody@example.com"))
    users_database.query("UPDATE sessions SET ended_at = %s", clock.now())
    expired = await log_in()
    users_database.query("UPDATE sessions SET expires_at = %s WHERE id = %s", clock.now(), expired.id)
    users_database.query(
        "INSERT INTO attempt_reservations VALUES (gen_random_uuid(), '', %s)", clock.now() + timedelta(seconds=10)
    )
    clock.advance(DAY + timedelta(seconds=1))
    kept = await log_in()
    await refusal_of(log_in("nobody else@example.com"))
    database = Database(database_settings(users_database.url), name="test")

    await sweeps.sweep(database, now=clock.now())
    await database.close()

    assert ended.id != kept.id
    assert users_database.query("SELECT id::text FROM sessions") == [(kept.id,)]
    assert users_database.query("SELECT session_id::text FROM refresh_tokens") == [(kept.id,)]
    assert count(users_database, "login_attempts") == 1
    assert count(users_database, "attempt_reservations") == 0


async def test_a_replica_whose_clock_is_ahead_removes_no_session_early(
    database: Database, users_copy: TestDatabase, clock: ManualClock
) -> None:
    a_user(users_copy)
    many_sessions(users_copy, 3, tokens=1, over_since="now() + interval '30 days'", column="expires_at")
    many_sessions(users_copy, 1, tokens=1, over_since="now() - interval '2 days'", column="expires_at")
    clock.advance(timedelta(days=40))

    async def swept() -> bool:
        return count(users_copy, "sessions") == 3

    sweep = asyncio.create_task(sweeps.sweep_forever(database, clock, every_s=0.01))
    await until(swept)
    sweep.cancel()

    assert count(users_copy, "refresh_tokens") == 3


@pytest.mark.parametrize("column", ["expires_at", "ended_at"])
async def test_the_sweep_deletes_in_small_batches(
    database: Database, users_copy: TestDatabase, clock: ManualClock, column: str
) -> None:
    a_user(users_copy)
    # Many small sessions, and one that has more tokens than a transaction may remove.
    many_sessions(users_copy, 350, tokens=60, over_since="now() - interval '2 days'", column=column)
    many_sessions(users_copy, 1, tokens=12_000, over_since="now() - interval '3 days'", column=column)
    many_sessions(users_copy, 7, tokens=3, over_since="now() - interval '23 hours'", column=column)
    users_copy.query(
        "INSERT INTO login_attempts SELECT n::text::bytea, 1, now(), now() - interval '2 days'"
        " FROM generate_series(1, 12000) AS n"
    )
    users_copy.query(
        "INSERT INTO attempt_reservations SELECT gen_random_uuid(), '', now() - interval '1 minute'"
        " FROM generate_series(1, 12000)"
    )
    forbid_more_at_once(users_copy)

    await sweeps.sweep(database, now=clock.now())

    assert (count(users_copy, "sessions"), count(users_copy, "refresh_tokens")) == (7, 21)
    assert (count(users_copy, "login_attempts"), count(users_copy, "attempt_reservations")) == (0, 0)


OLD_ROWS = {
    "idempotency_keys_created_at_idx": (
        "INSERT INTO idempotency_keys (caller, method, request_id, fingerprint, created_at) SELECT '', '',"
        " gen_random_uuid(), '', now() - interval '25 hours' - n * interval '1 s' FROM generate_series(1, {0}) n"
    ),
    "login_attempts_last_at_idx": (
        "INSERT INTO login_attempts SELECT n::text::bytea, 1, now(), now() - interval '25 hours' - n * interval '1 s'"
        " FROM generate_series(1, {0}) n"
    ),
    "sessions_expires_at_idx": (
        "INSERT INTO sessions SELECT gen_random_uuid(), (SELECT id FROM users), '', now(),"
        " now() - interval '25 hours' - n * interval '1 s' FROM generate_series(1, {0}) n"
    ),
}
# By index: the number of batches, the rows of one, and more blocks of the index than it needs to find them.
BATCHES = {
    "idempotency_keys_created_at_idx": (30, 1000, 20),
    "login_attempts_last_at_idx": (30, 5000, 60),
    "sessions_expires_at_idx": (200, 100, 12),
}


@pytest.mark.parametrize("index", OLD_ROWS)
async def test_a_batch_reads_no_index_entries_of_rows_that_were_removed_before(
    users_copy: TestDatabase, clock: ManualClock, index: str
) -> None:
    batches, at_once, blocks = BATCHES[index]
    table = index.removesuffix("_idx").removesuffix("_at").rpartition("_")[0]

    def read_blocks() -> int:
        [(number,)] = users_copy.query(
            "SELECT idx_blks_read + idx_blks_hit FROM pg_statio_user_indexes WHERE indexrelname = %s", index
        )
        return int(number)

    async def is_empty() -> bool:
        return count(users_copy, table) == 0

    a_user(users_copy)
    users_copy.query(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")  # which would remove the entries
    with users_copy.connect() as session:
        session.execute(OLD_ROWS[index].format(batches * at_once).encode())
        session.execute(f"ANALYZE {table}".encode())
        session.execute("SELECT pg_stat_force_next_flush()")
    before = read_blocks()

    async with opened(users_copy.url) as database:
        if table == "idempotency_keys":
            sweep = asyncio.create_task(store.sweep_forever(database, clock, every_s=3600))
            await until(is_empty)
            sweep.cancel()
        else:
            await sweeps.sweep(database, now=clock.now())

    # The server counts what a session has read when it ends.
    await until(lambda: no_session_of(users_copy))
    assert count(users_copy, table) == 0
    assert read_blocks() - before < (batches + 2) * blocks


async def no_session_of(database: TestDatabase) -> bool:
    sessions = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    return database.query(sessions) == [(0,)]


async def test_a_sweep_that_fails_half_way_keeps_its_batches_and_the_next_one_continues(
    database: Database, users_copy: TestDatabase, clock: ManualClock
) -> None:
    a_user(users_copy)
    many_sessions(users_copy, 300, tokens=2, over_since="now() - interval '3 days'", column="ended_at")
    many_sessions(users_copy, 1, tokens=1, over_since="now() - interval '2 days'", column="ended_at")

    last = "(SELECT id FROM sessions ORDER BY ended_at DESC LIMIT 1)"
    for tokens in ("SELECT * FROM refresh_tokens", f"SELECT * FROM refresh_tokens WHERE session_id IN {last}"):
        with users_copy.locked(f"{tokens} FOR UPDATE"), pytest.raises(DatabaseUnavailable):
            await sweeps.sweep(database, now=clock.now())
    left = count(users_copy, "sessions")
    await sweeps.sweep(database, now=clock.now())

    assert 0 < left < 301
    assert count(users_copy, "sessions") == 0


async def test_two_replicas_that_sweep_at_once_do_not_wait_for_each_other(
    database: Database, users_copy: TestDatabase, clock: ManualClock
) -> None:
    a_user(users_copy)
    many_sessions(users_copy, 1000, tokens=5, over_since="now() - interval '2 days'", column="expires_at")

    await asyncio.gather(*(sweeps.sweep(database, now=clock.now()) for _ in range(3)))

    assert (count(users_copy, "sessions"), count(users_copy, "refresh_tokens")) == (0, 0)


async def test_all_open_sessions_are_ended_in_batches_and_ended_sessions_keep_their_time(
    users_copy: TestDatabase,
) -> None:
    a_user(users_copy)
    many_sessions(users_copy, 12_345, tokens=0, over_since="now() + interval '9 days'", column="expires_at")
    many_sessions(users_copy, 5, tokens=0, over_since="now() - interval '1 hour'", column="ended_at")
    forbid_more_at_once(users_copy)

    first = run("user_svc", "sessions end-all", DATABASE_URL=users_copy.url)
    again = run("user_svc", "sessions end-all", DATABASE_URL=users_copy.url)

    assert (first.returncode, first.stdout, first.stderr) == (0, "12345 sessions are ended\n", "")
    assert again.stdout == "0 sessions are ended\n"
    assert users_copy.query("SELECT count(*) FROM sessions WHERE ended_at IS NULL") == [(0,)]
    assert users_copy.query("SELECT count(*) FROM sessions WHERE ended_at < now() - interval '50 minutes'") == [(5,)]


async def test_a_locked_session_does_not_stop_the_command_that_ends_all(
    database: Database, users_copy: TestDatabase, clock: ManualClock
) -> None:
    a_user(users_copy)
    many_sessions(users_copy, 3, tokens=0, over_since="now() + interval '9 days'", column="expires_at")
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"

    with users_copy.locked("SELECT * FROM sessions LIMIT 1 FOR UPDATE"):
        ending = asyncio.create_task(sweeps.end_all_sessions(database, clock))
        for number in (1, 0):  # until the statement has waited for longer than it may

            async def is_so(number: int = number) -> bool:
                return users_copy.query(waiting) == [(number,)]

            await until(is_so)

    assert await ending == 3


async def test_ending_all_sessions_logs_every_user_out(users_copy: TestDatabase) -> None:
    async with (
        user_service(database_settings(users_copy.url)) as address,
        plain_channel(address, token="") as channel,
    ):
        sessions = SessionServiceStub(channel)
        user = await UserServiceStub(channel).CreateUser(create_user_request())
        begun = await sessions.CreateSession(pb.CreateSessionRequest(email=user.email, password=PASSWORD))

        assert run("user_svc", "sessions end-all", DATABASE_URL=users_copy.url).returncode == 0

        refusal = await refusal_of(sessions.RefreshSession(pb.RefreshSessionRequest(refresh_token=begun.refresh_token)))
    assert refusal.reason == "TOKEN_INVALID"


# Tasks beside the calls of a service. A row is removed, or a metric changes, only if the process has started its task.

EXPIRED_KEY = (
    "INSERT INTO idempotency_keys (caller, method, request_id, fingerprint, created_at)"
    " VALUES ('', '/method', gen_random_uuid(), '', now() - interval '25 hours')"
)
UNPUBLISHED = (
    "INSERT INTO outbox (id, type, subject, sequence, data, traceparent, occurred_at)"
    " VALUES (gen_random_uuid(), 'made.up', gen_random_uuid(), 1, '{}', '', now())"
)
# The test that sees each background task of the chassis work. A service lists its tasks in guards.toml, [background].
SEEN_IN = {
    "chassis/idempotency/store.py": "here",
    "chassis/auth/remote_keys.py": "test_remote_keys.py",
    "chassis/telemetry/metrics/process.py": "test_loop_lag.py",
    "chassis/events/backlog.py": "here",
    "chassis/auth/certificates.py": "test_certificates.py",
    "chassis/watch/hub.py": "test_watching.py",
}


def test_every_endless_loop_is_observed_by_a_test() -> None:
    found = {where for where, path in sources() if re.search(r"async def \w*_forever", path.read_text())}

    require_explained(found, SEEN_IN, table="background")


@pytest.mark.parametrize("package", [service.name for service in services()])
async def test_the_process_of_a_service_sweeps_and_watches(
    postgres: PostgresServer, tmp_path: Path, package: str
) -> None:
    # By table, a statement that inserts a row to sweep.
    outdated = {"idempotency_keys": EXPIRED_KEY, **facts("outdated", package)}
    metrics = ReservedPort()
    others = {service.url_variable: f"{LOOPBACK}:1" for service in services()}

    async def rows_are_gone() -> bool:
        return all([await asyncio.to_thread(count, database, table) == 0 for table in outdated])

    async def backlog_is_shown() -> bool:
        async with httpx.AsyncClient(trust_env=False) as client:
            shown = await client.get(f"http://{LOOPBACK}:{metrics.number}/metrics")
        return "shop_outbox_unpublished_events 1.0" in shown.text

    with fresh_database(postgres, package) as database:
        for insert in (*outdated.values(), UNPUBLISHED):
            database.query(insert)
        env = {"DATABASE_URL": database.url, "METRICS_PORT": str(metrics.number), **others}
        async with serving_process(package, tmp_path, **env):
            metrics.release()
            await until(rows_are_gone)
            await until(backlog_is_shown)
