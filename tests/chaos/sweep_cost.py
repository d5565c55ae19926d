"""`python -m tests.chaos.sweep_cost [ROWS]`: the cost of the sweeps of user_svc, and of ending all sessions.

Fills each table with rows to remove, ten million by default. A replica removes them; it is killed half way and started
again. It answers calls meanwhile.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from shop.user.v1 import session_service_pb2, user_service_pb2
from shop.user.v1.session_service_pb2_grpc import SessionServiceStub
from shop.user.v1.user_service_pb2_grpc import UserServiceStub
from sqlalchemy import event as sqlalchemy_event
from sqlalchemy.engine import Engine

from chassis.database import migrations
from chassis.testing import bearer, new_uuid, plain_channel
from devstack.postgres import PostgresServer
from tests.integration.inprocess import database_settings
from tests.integration.user_svc.inprocess import user_service
from tests.support.requests import PASSWORD, create_user_request

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

OPEN = "now() - interval '1 day', now() + interval '20 days', NULL"
FILLS = {
    "idempotency_keys": """
        INSERT INTO idempotency_keys
        SELECT '', '/shop.user.v1.UserService/CreateUser', gen_random_uuid(), '\\x00', gen_random_uuid(),
            repeat('a', 100)::bytea, now() - interval '2 days' + n * interval '1 ms'
        FROM generate_series(%s::bigint, %s::bigint) AS n
    """,
    "login_attempts": """
        INSERT INTO login_attempts
        SELECT sha256(n::text::bytea), 1, now(), now() - interval '3 days' + n * interval '1 ms'
        FROM generate_series(%s::bigint, %s::bigint) AS n
    """,
    "sessions": """
        INSERT INTO sessions
        SELECT gen_random_uuid(), (SELECT min(id::text)::uuid FROM users), repeat('k', 32)::bytea,
            now() - interval '32 days', now() - interval '3 days' + n * interval '1 ms', NULL
        FROM generate_series(%s::bigint, %s::bigint) AS n
    """,
    "refresh_tokens": """
        INSERT INTO refresh_tokens SELECT sha256(id::text::bytea), id, NULL FROM sessions
    """,
}
INDEXES = "SELECT indexdef, indexname FROM pg_indexes WHERE tablename = %s AND indexname LIKE '%%_idx'"
KEYS = "SELECT pg_get_constraintdef(oid), conname FROM pg_constraint WHERE conrelid = %s::regclass AND contype = 'p'"
FOREIGN_KEY = """
    ALTER TABLE refresh_tokens ADD CONSTRAINT refresh_tokens_session_id_fkey
    FOREIGN KEY (session_id) REFERENCES sessions (id) ON DELETE CASCADE NOT VALID
"""
LEFT = "SELECT relname, n_tup_ins - n_tup_del FROM pg_stat_user_tables WHERE relname = ANY (%s)"

_longest = {"s": 0.0}


def _watch_transactions() -> None:
    def begin(connection: Any) -> None:
        connection.info["began"] = time.perf_counter()

    def end(connection: Any) -> None:
        _longest["s"] = max(_longest["s"], time.perf_counter() - connection.info.get("began", time.perf_counter()))

    sqlalchemy_event.listen(Engine, "begin", begin)
    sqlalchemy_event.listen(Engine, "commit", end)


def left_in(session: psycopg.Connection[Any]) -> dict[str, int]:
    """Return about how many rows each table has."""
    return dict(session.execute(LEFT, (list(FILLS),)).fetchall())


async def _repeat(call: Callable[[], Awaitable[object]], took: list[float], *, every_s: float) -> None:
    while True:
        began = time.perf_counter()
        await call()
        took.append(time.perf_counter() - began)
        await asyncio.sleep(every_s)


async def serve(url: str) -> None:
    """Serve, call, and print a line every ten seconds; end when every table is empty."""
    _watch_transactions()
    reads: list[float] = []
    logins: list[float] = []
    async with user_service(database_settings(url)) as address, plain_channel(address, token="") as channel:
        users, sessions = UserServiceStub(channel), SessionServiceStub(channel)
        user = await users.CreateUser(create_user_request(email=f"{new_uuid()}@shop.example"))
        get = user_service_pb2.GetUserRequest(id=user.id)
        log_in = session_service_pb2.CreateSessionRequest(email=user.email, password=PASSWORD)
        token = (await sessions.CreateSession(log_in)).access_token
        tasks = [
            asyncio.ensure_future(_repeat(lambda: users.GetUser(get, metadata=bearer(token)), reads, every_s=0.05)),
            asyncio.ensure_future(_repeat(lambda: sessions.CreateSession(log_in), logins, every_s=0.2)),
        ]
        with psycopg.connect(url, autocommit=True) as session:
            while True:
                await asyncio.sleep(10)
                left = left_in(session)
                print(
                    f"{time.monotonic():.0f} {left} longest transaction {_longest['s'] * 1000:.0f} ms, "
                    f"GetUser p50 {statistics.median(reads) * 1000:.1f} max {max(reads) * 1000:.0f} ms, "
                    f"CreateSession p50 {statistics.median(logins) * 1000:.1f} max {max(logins) * 1000:.0f} ms",
                    flush=True,
                )
                _longest["s"] = 0.0
                reads[:-1], logins[:-1] = [], []
                if max(left.values()) < 1000:
                    break
        for task in tasks:
            task.cancel()


def fill(url: str, rows: int) -> None:
    with psycopg.connect(url, autocommit=True) as session:
        session.execute("SET maintenance_work_mem = '512MB'")
        session.execute(
            "INSERT INTO users (id, display_name, state, roles, password_hash, created_at, updated_at, version)"
            " VALUES (gen_random_uuid(), 'Ada', 'ACTIVE', '{USER}', '', now(), now(), 1)"
        )
        for table, statement in FILLS.items():
            indexes = session.execute(INDEXES, (table,)).fetchall()
            [(key, key_name)] = session.execute(KEYS, (table,)).fetchall()
            for _, name in indexes:
                session.execute(f'DROP INDEX "{name}"'.encode())
            session.execute(f"ALTER TABLE {table} DROP CONSTRAINT {key_name} CASCADE".encode())
            if "%s" not in statement:
                session.execute(statement.encode())
            else:
                for first in range(1, rows + 1, 500_000):
                    session.execute(statement.encode(), (first, min(rows, first + 499_999)))
            session.execute(f"ALTER TABLE {table} ADD CONSTRAINT {key_name} {key}".encode())
            for definition, _ in indexes:
                session.execute(definition.encode())
            session.execute(f"VACUUM ANALYZE {table}".encode())
            print(f"filled {table}", flush=True)
        session.execute(FOREIGN_KEY.encode())


def main() -> None:
    if len(sys.argv) > 2:
        asyncio.run(serve(sys.argv[2]))
        return
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000_000
    with tempfile.TemporaryDirectory() as home, PostgresServer(Path(home) / "postgres") as server:
        with psycopg.connect(server.superuser_url(), autocommit=True) as session:
            session.execute("ALTER SYSTEM SET fsync = off")
            session.execute("ALTER SYSTEM SET full_page_writes = off")
            session.execute("ALTER SYSTEM SET max_wal_size = '8GB'")
            session.execute("SELECT pg_reload_conf()")
        server.create_database("user_svc")
        url = server.superuser_url("user_svc")
        migrations.upgrade("user_svc", database_settings(url))
        fill(url, rows)
        replica = [sys.executable, "-m", "tests.chaos.sweep_cost", "serve", url]
        with subprocess.Popen(replica) as first, psycopg.connect(url, autocommit=True) as session:
            while first.poll() is None and left_in(session)["sessions"] > rows // 2:
                time.sleep(2)
            first.kill()
            print(f"killed with {left_in(session)}", flush=True)
        subprocess.run(replica, check=True)


if __name__ == "__main__":
    main()
