"""The user service for tests of every service: its database, its stubs, a key for the tokens of tests."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import psycopg
import pytest
from cryptography.fernet import Fernet
from shop.user.v1.session_service_pb2_grpc import SessionServiceStub
from shop.user.v1.user_service_pb2_grpc import UserServiceStub

from chassis.testing import SIGNER, ManualClock, plain_channel
from tests.integration.databases import TestDatabase, fresh_database
from tests.integration.inprocess import database_settings
from tests.integration.user_svc.inprocess import KEY_SETTINGS, user_service
from tests.support.requests import create_user_request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from shop.user.v1.session_service_pb2_grpc import SessionServiceAsyncStub
    from shop.user.v1.user_pb2 import User
    from shop.user.v1.user_service_pb2_grpc import UserServiceAsyncStub

    from devstack.postgres import PostgresServer


def prepare(server: PostgresServer) -> None:
    """Make this process's test key the only signing key of the template that databases are copied from."""
    sealed = Fernet(KEY_SETTINGS.secret.get_secret_value()).encrypt(SIGNER.private.private_bytes_raw())
    statement = "INSERT INTO signing_keys VALUES (%s, %s, now(), now() - interval '1 hour')"
    with contextlib.closing(psycopg.connect(server.superuser_url("user_svc"), autocommit=True)) as connection:
        connection.execute("DELETE FROM signing_keys")
        connection.execute(statement, (SIGNER.kid, sealed))


@pytest.fixture
def users_database(shared_databases: dict[str, TestDatabase]) -> Iterator[TestDatabase]:
    """The user service's database, empty."""
    yield shared_databases["user_svc"]
    shared_databases["user_svc"].empty()


@pytest.fixture
def users_copy(postgres: PostgresServer) -> Iterator[TestDatabase]:
    """A database of the user service for a test that breaks it."""
    with fresh_database(postgres, "user_svc") as database:
        yield database


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
async def ada(users: UserServiceAsyncStub) -> User:
    """A user."""
    return await users.CreateUser(create_user_request())
