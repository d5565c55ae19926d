"""One PostgreSQL server for the session, with migrated databases to copy; every test finds its databases empty.

A copy costs 120 ms, so the tests share one and empty it. A test that breaks its database asks for a copy of its own.
"""

from __future__ import annotations

import contextlib
import shutil
from typing import TYPE_CHECKING, Final

import psycopg
import pytest
from psycopg.sql import SQL, Literal
from redis import Redis

from chassis.database import migrations
from chassis.service import services
from chassis.testing import ManualClock
from devstack.postgres import PostgresServer
from devstack.redis import RedisServer, find_redis
from tests.integration.databases import TestDatabase, fresh_database
from tests.integration.inprocess import NOTES, NOTES_PACKAGE, database_settings
from tests.integration.running import running_postgres, running_redis
from tests.support.guards import modules

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLES: Final = tuple(modules("fixtures"))


def pytest_configure(config: pytest.Config) -> None:
    """Let all tests find the fixtures of the services, which are beside their other facts and go with the service."""
    for module in EXAMPLES:
        config.pluginmanager.register(module)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A server with a migrated database of each service, to be copied."""
    if running := running_postgres():
        prepare_examples(running)
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
    server.create_database(NOTES)
    migrations.upgrade(NOTES_PACKAGE, database_settings(server.superuser_url(NOTES)))
    prepare_examples(server)


def prepare_examples(server: PostgresServer) -> None:
    """Do what tests of a service need in the database that they copy."""
    for module in EXAMPLES:
        if hasattr(module, "prepare"):
            module.prepare(server)


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


@pytest.fixture(scope="session")
def shared_databases(postgres: PostgresServer) -> Iterator[dict[str, TestDatabase]]:
    """A database of each service, by the service's name."""
    with contextlib.ExitStack() as copies:
        yield {each.name: copies.enter_context(fresh_database(postgres, each.name)) for each in services()}


@pytest.fixture
def empty_database(postgres: PostgresServer) -> Iterator[TestDatabase]:
    """A database without tables."""
    with fresh_database(postgres, "template1") as database:
        yield database


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()
