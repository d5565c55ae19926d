"""One PostgreSQL server for the session, with migrated databases to copy; every test finds its databases empty.

A copy costs 120 ms, so the tests share one and empty it. A test that breaks its database asks for a copy of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shutil
from typing import TYPE_CHECKING, Any, Final

import psycopg
import pytest
from cryptography.fernet import Fernet
from psycopg.pq import TransactionStatus
from psycopg.sql import SQL, Literal
from redis import Redis
from shop.order.v1.order_service_pb2_grpc import OrderServiceStub
from shop.user.v1.session_service_pb2_grpc import SessionServiceStub
from shop.user.v1.user_service_pb2_grpc import UserServiceStub

from chassis.database import migrations
from chassis.service import services
from chassis.testing import SIGNER, ManualClock, plain_channel, until
from devstack.postgres import PostgresServer
from devstack.redis import RedisServer, find_redis
from tests.integration.inprocess import KEY_SETTINGS, database_settings, order_service, user_service
from tests.integration.running import running_postgres, running_redis
from tests.support.requests import create_user_request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from shop.order.v1.order_service_pb2_grpc import OrderServiceAsyncStub
    from shop.user.v1.session_service_pb2_grpc import SessionServiceAsyncStub
    from shop.user.v1.user_pb2 import User
    from shop.user.v1.user_service_pb2_grpc import UserServiceAsyncStub

_numbers = itertools.count(1)


# Only tables with rows are truncated: an empty one costs a millisecond of CPU, and a service has eleven.
_EMPTY: Final = """
    DO $$
    DECLARE
        name text;
        has_rows boolean;
    BEGIN
        FOR name IN
            SELECT format('%%I.%%I', schemaname, tablename)
            FROM pg_tables
            WHERE schemaname = 'public' AND tablename NOT IN ('alembic_version', 'signing_keys')
        LOOP
            EXECUTE 'SELECT EXISTS (SELECT FROM ' || name || ')' INTO has_rows;
            IF has_rows THEN
                EXECUTE 'TRUNCATE ' || name || ' CASCADE';
            END IF;
        END LOOP;
        FOR name IN SELECT format('%%I.%%I', schemaname, sequencename) FROM pg_sequences WHERE last_value IS NOT NULL
        LOOP
            EXECUTE 'ALTER SEQUENCE ' || name || ' RESTART';
        END LOOP;
    END
    $$
"""


class TestDatabase:
    """A service's database, for one test.

    Attributes:
        url: where a service finds it.
    """

    __test__ = False

    def __init__(self, url: str) -> None:
        self.url = url
        # At most one, for the next query: a connection costs 8 ms of CPU, and conditions are polled.
        self._idle: list[psycopg.Connection[Any]] = []

    def query(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Return the statement's rows; an empty list if it returns none. It is committed at once.

        Concurrent queries run on connections of their own.
        """
        if connection := self._take():
            with contextlib.suppress(psycopg.OperationalError):  # the server has ended the idle connection
                return self._rows(connection, statement, parameters)
        return self._rows(psycopg.connect(self.url, autocommit=True), statement, parameters)

    def connect(self) -> contextlib.closing[psycopg.Connection[Any]]:
        """Return a connection of its own; each statement is committed at once, outside of BEGIN."""
        return contextlib.closing(psycopg.connect(self.url, autocommit=True))

    def everything(self) -> str:
        """Return every row of every table, as text."""
        tables = self.query("SELECT quote_ident(tablename) FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
        rows = [row for (table,) in tables for row in self.query(f"SELECT t::text FROM {table} AS t")]
        return "\n".join(text for (text,) in rows)

    def empty(self) -> None:
        """Remove every row that a test has left, and restart every sequence."""
        self.query(_EMPTY)

    def waiting(self) -> int:
        """Return the number of this database's sessions that wait for a lock."""
        [(count,)] = self.query(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return int(count)

    async def until_waiting(self, number: int = 1) -> None:
        """Return once this number of the database's sessions wait for a lock."""

        async def do_wait() -> bool:
            return await asyncio.to_thread(self.waiting) == number

        await until(do_wait)

    def close(self) -> None:
        """Close the idle connection."""
        while connection := self._take():
            connection.close()

    def _take(self) -> psycopg.Connection[Any] | None:
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _rows(
        self, connection: psycopg.Connection[Any], statement: str, parameters: Sequence[object]
    ) -> list[tuple[Any, ...]]:
        try:
            cursor = connection.execute(statement.encode(), parameters, prepare=False)
            return cursor.fetchall() if cursor.description else []
        finally:
            is_clean = connection.info.transaction_status is TransactionStatus.IDLE
            if is_clean and not self._idle:
                self._idle.append(connection)
            else:
                connection.close()


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A server with a migrated database of each service, to be copied."""
    if running := running_postgres():
        publish_test_key(running)
        yield running
        return
    home = tmp_path_factory.mktemp("postgres")
    with PostgresServer(home) as server:
        prepare(server)
        yield server
    shutil.rmtree(home)


def prepare(server: PostgresServer) -> None:
    """Make the databases that tests copy."""
    with contextlib.closing(psycopg.connect(server.superuser_url(), autocommit=True)) as connection:
        # No test cuts the machine's power, and waiting for the disk would be half of a test's time.
        connection.execute("ALTER SYSTEM SET fsync = off")
        # Below the services' lock_timeout: otherwise a deadlock would be reported as a lock timeout.
        connection.execute("ALTER SYSTEM SET deadlock_timeout = '100ms'")
        connection.execute("SELECT pg_reload_conf()")
        # Tests open ten connections each; hashing the password 4,096 times would be a third of their CPU.
        connection.execute("SET scram_iterations = 1")
        connection.execute(SQL("ALTER ROLE CURRENT_USER PASSWORD {}").format(Literal(connection.info.password)))
    for service in services():
        server.create_database(service.name)
        migrations.upgrade(service.name, database_settings(server.superuser_url(service.name)))
    publish_test_key(server)


def publish_test_key(server: PostgresServer) -> None:
    """Make this process's test key the only signing key of the template that databases are copied from."""
    sealed = Fernet(KEY_SETTINGS.secret.get_secret_value()).encrypt(SIGNER.private.private_bytes_raw())
    statement = "INSERT INTO signing_keys VALUES (%s, %s, now(), now() - interval '1 hour')"
    with contextlib.closing(psycopg.connect(server.superuser_url("user_svc"), autocommit=True)) as connection:
        connection.execute("DELETE FROM signing_keys")
        connection.execute(statement, (SIGNER.kid, sealed))


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis for the session."""
    if running := running_redis():
        yield running
        return
    program = find_redis()
    if program is None:
        pytest.skip("this machine has no redis-server")
    server = RedisServer(program, tmp_path_factory.mktemp("redis"))
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """The URL of the Redis, which is empty."""
    with Redis.from_url(redis_server.url) as client:
        client.flushall()
    return redis_server.url


@pytest.fixture
def stored(redis_url: str) -> Iterator[Redis]:
    """A client of the Redis, to look at its content."""
    with Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


@contextlib.contextmanager
def fresh_database(server: PostgresServer, template: str) -> Iterator[TestDatabase]:
    """Make a copy of the template, for the time of the block."""
    name = f"{template}_{os.getpid()}_{next(_numbers)}"
    server.create_database(name, template=template)
    database = TestDatabase(server.superuser_url(name))
    try:
        yield database
    finally:
        database.close()
        server.drop_database(name)


@pytest.fixture(scope="session")
def shared_databases(postgres: PostgresServer) -> Iterator[dict[str, TestDatabase]]:
    """A database of each service, by the service's name."""
    with contextlib.ExitStack() as copies:
        yield {each.name: copies.enter_context(fresh_database(postgres, each.name)) for each in services()}


@pytest.fixture
def users_database(shared_databases: dict[str, TestDatabase]) -> Iterator[TestDatabase]:
    """The user service's database, empty."""
    yield shared_databases["user_svc"]
    shared_databases["user_svc"].empty()


@pytest.fixture
def orders_database(shared_databases: dict[str, TestDatabase]) -> Iterator[TestDatabase]:
    """The order service's database, empty."""
    yield shared_databases["order_svc"]
    shared_databases["order_svc"].empty()


@pytest.fixture
def users_copy(postgres: PostgresServer) -> Iterator[TestDatabase]:
    """A database of the user service for a test that breaks it."""
    with fresh_database(postgres, "user_svc") as database:
        yield database


@pytest.fixture
def empty_database(postgres: PostgresServer) -> Iterator[TestDatabase]:
    """A database without tables."""
    with fresh_database(postgres, "template1") as database:
        yield database


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def users_address(users_database: TestDatabase, clock: ManualClock) -> AsyncIterator[str]:
    async with user_service(database_settings(users_database.url), clock=clock) as address:
        yield address


@pytest.fixture
async def users(users_address: str) -> AsyncIterator[UserServiceAsyncStub]:
    """The user service."""
    async with plain_channel(users_address) as channel:
        yield UserServiceStub(channel)


@pytest.fixture
async def sessions(users_address: str) -> AsyncIterator[SessionServiceAsyncStub]:
    """The user service's sessions, for callers without a token."""
    async with plain_channel(users_address, token="") as channel:
        yield SessionServiceStub(channel)


@pytest.fixture
async def orders_address(users_address: str, orders_database: TestDatabase, clock: ManualClock) -> AsyncIterator[str]:
    async with order_service(database_settings(orders_database.url), users=users_address, clock=clock) as address:
        yield address


@pytest.fixture
async def orders(orders_address: str) -> AsyncIterator[OrderServiceAsyncStub]:
    """The order service, with a user service behind it."""
    async with plain_channel(orders_address) as channel:
        yield OrderServiceStub(channel)


@pytest.fixture
async def buyer(users: UserServiceAsyncStub) -> User:
    """A user who may order."""
    return await users.CreateUser(create_user_request())
