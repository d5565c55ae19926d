"""The database is slow, locked, restarted, gone or broken: calls end soon, with a reason, and recover by themselves."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest
from grpc import StatusCode, aio
from shop.user.v1 import user_service_pb2 as pb
from shop.user.v1.user_service_pb2_grpc import UserServiceStub
from sqlalchemy import text
from structlog.testing import capture_logs

from chassis.database import Database
from chassis.errors import DatabaseUnavailable
from chassis.testing import new_uuid, plain_channel, refusal_of, server_settings
from devstack.postgres import PostgresServer
from tests.integration.conftest import fresh_database, prepare
from tests.integration.inprocess import database_settings, user_service
from tests.support.requests import create_user_request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from shop.user.v1.user_service_pb2_grpc import UserServiceAsyncStub
    from sqlalchemy import Connection

    from chassis.testing import Refusal
    from tests.integration.conftest import TestDatabase

# connect_timeout_s is 2, and who finds the connections of the pool dead tries to open one; no attempt comes after that.
SOON_S = 5


@pytest.fixture(scope="module")
def mortal_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A server of this module's own, to be killed."""
    home = tmp_path_factory.mktemp("mortal")
    with PostgresServer(home) as server:
        prepare(server)
        yield server
    shutil.rmtree(home)


@pytest.fixture
async def mortal_users(mortal_postgres: PostgresServer) -> AsyncIterator[UserServiceAsyncStub]:
    """A user service on a server that the test kills."""
    with fresh_database(mortal_postgres, "user_svc") as database:
        async with (
            user_service(database_settings(database.url)) as address,
            plain_channel(address) as channel,
        ):
            yield UserServiceStub(channel)


async def test_calls_succeed_after_a_restart_of_the_database(
    mortal_users: UserServiceAsyncStub, mortal_postgres: PostgresServer
) -> None:
    user = await mortal_users.CreateUser(create_user_request())
    get = pb.GetUserRequest(id=user.id)
    await asyncio.gather(*(mortal_users.GetUser(get) for _ in range(16)))

    await asyncio.to_thread(mortal_postgres.restart)

    answers = await asyncio.gather(
        *(mortal_users.GetUser(get) for _ in range(16)),
        *(mortal_users.CreateUser(create_user_request()) for _ in range(16)),
    )
    assert answers[:16] == [user] * 16


async def test_without_a_database_calls_are_refused_soon_and_recover_with_it(
    mortal_users: UserServiceAsyncStub, mortal_postgres: PostgresServer
) -> None:
    user = await mortal_users.CreateUser(create_user_request())
    get = pb.GetUserRequest(id=user.id)
    update = pb.UpdateUserRequest(id=user.id, display_name="B", request_id=new_uuid())

    await asyncio.to_thread(mortal_postgres.kill)
    try:
        began = time.monotonic()
        refusals = await asyncio.gather(
            *(refusal_of(mortal_users.GetUser(get)) for _ in range(16)),
            *(refusal_of(mortal_users.UpdateUser(update)) for _ in range(16)),
        )
        took_s = time.monotonic() - began
    finally:
        await asyncio.to_thread(mortal_postgres.start)

    assert took_s < SOON_S
    for refusal in refusals:
        require_database_unavailable(refusal)
    assert await mortal_users.GetUser(get) == user
    assert (await mortal_users.UpdateUser(update)).etag == "v2"


async def test_a_wait_for_a_locked_row_is_bounded(users: UserServiceAsyncStub, users_database: TestDatabase) -> None:
    user = await users.CreateUser(create_user_request())
    with users_database.connect() as other:
        other.execute("BEGIN")
        other.execute("SELECT 1 FROM users FOR UPDATE")

        began = time.monotonic()
        refusal = await refusal_of(users.UpdateUser(pb.UpdateUserRequest(id=user.id, display_name="B")))
        took_s = time.monotonic() - began

        assert await users.GetUser(pb.GetUserRequest(id=user.id)) == user
    require_database_unavailable(refusal)
    assert 0.5 <= took_s < SOON_S
    assert (await users.UpdateUser(pb.UpdateUserRequest(id=user.id, display_name="B"))).display_name == "B"


async def test_a_statement_is_waited_for_only_so_long(users_database: TestDatabase) -> None:
    database = Database(database_settings(users_database.url, statement_timeout_s=0.1), name="test")

    with pytest.raises(DatabaseUnavailable):
        await database.read(lambda connection: connection.execute(text("SELECT pg_sleep(10)")))

    await database.ping()
    await database.close()


async def test_a_connection_over_a_dead_network_is_closed(users_database: TestDatabase) -> None:
    database = Database(database_settings(users_database.url, statement_timeout_s=2), name="t")

    def option(connection: Connection) -> int:
        connected = connection.connection.driver_connection
        with socket.socket(fileno=os.dup(connected.pgconn.socket)) as wire:
            return wire.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)

    assert await database.read(option) == 3000
    await database.close()


async def test_a_transaction_that_a_deadlock_ends_is_run_again(users_database: TestDatabase) -> None:
    database = Database(database_settings(users_database.url, lock_timeout_s=5), name="test")
    users_database.query("CREATE TABLE scratch (id int PRIMARY KEY, touched int NOT NULL)")
    users_database.query("INSERT INTO scratch VALUES (1, 0), (2, 0)")
    both_hold_one = threading.Barrier(2)
    attempts: list[int] = []

    def touching(first: int, second: int) -> Callable[[Connection], None]:
        def work(connection: Connection) -> None:
            attempts.append(first)
            connection.execute(text("UPDATE scratch SET touched = touched + 1 WHERE id = :id"), {"id": first})
            if attempts.count(first) == 1:
                both_hold_one.wait(timeout=5)
            connection.execute(text("UPDATE scratch SET touched = touched + 1 WHERE id = :id"), {"id": second})

        return work

    await asyncio.gather(database.transaction(touching(1, 2)), database.transaction(touching(2, 1)))

    assert len(attempts) >= 3
    assert users_database.query("SELECT touched FROM scratch") == [(2,), (2,)]
    users_database.query("DROP TABLE scratch")
    await database.close()


async def test_a_defect_is_a_fixed_sentence_for_the_caller_and_a_cause_in_the_log(
    users_copy: TestDatabase,
) -> None:
    users_copy.query("DROP TABLE users CASCADE")
    settings = database_settings(users_copy.url)
    async with user_service(settings) as address, plain_channel(address) as channel:
        users = UserServiceStub(channel)

        with capture_logs() as logged:
            refusals = [
                await refusal_of(users.GetUser(pb.GetUserRequest(id=new_uuid()))),
                await refusal_of(users.CreateUser(create_user_request())),
            ]

    for refusal in refusals:
        assert (refusal.code, refusal.domain, refusal.reason) == (StatusCode.INTERNAL, "shop.system.v1", "INTERNAL")
        assert refusal.message == "The service has a defect. Report the request id; trying again may help."
        for leak in ("psycopg", "sqlalchemy", "Undefined", "SELECT", "INSERT", "relation", "users", ".py", "Error"):
            assert leak not in str(refusal.status).replace("ErrorInfo", "")
    defects = [entry for entry in logged if entry["event"] == "rpc.defect"]
    assert len(defects) == 2
    for defect in defects:
        assert 'relation "users" does not exist' in str(defect["exc_info"])
    assert [entry["code"] for entry in logged if entry["event"] == "rpc.handled"] == ["INTERNAL", "INTERNAL"]


async def test_a_defect_shows_no_parameters_of_its_statement(users_copy: TestDatabase) -> None:
    users_copy.query("DROP TABLE users CASCADE")
    settings = database_settings(users_copy.url)
    async with user_service(settings) as address, plain_channel(address) as channel:
        with capture_logs() as logged:
            await refusal_of(UserServiceStub(channel).CreateUser(create_user_request(email="canary@example.com")))

    [cause] = [str(entry["exc_info"]) for entry in logged if entry["event"] == "rpc.defect"]
    assert "INSERT INTO users" in cause
    assert "canary" not in cause
    assert "argon2" not in cause


async def test_a_caller_that_gives_up_can_find_out_with_its_request_id(users_database: TestDatabase) -> None:
    settings = database_settings(users_database.url, lock_timeout_s=5)
    async with user_service(settings) as address, plain_channel(address) as channel:
        users = UserServiceStub(channel)
        user = await users.CreateUser(create_user_request())
        update = pb.UpdateUserRequest(id=user.id, display_name="B", request_id=new_uuid())
        with users_database.connect() as other:
            other.execute("BEGIN")
            other.execute("SELECT 1 FROM users FOR UPDATE")
            with pytest.raises(aio.AioRpcError) as failure:
                await users.UpdateUser(update, timeout=0.2)

        answer = await users.UpdateUser(update)

    assert failure.value.code() is StatusCode.DEADLINE_EXCEEDED
    assert (answer.display_name, answer.etag) == ("B", "v2")
    assert users_database.query("SELECT version FROM users") == [(2,)]
    assert users_database.query("SELECT count(*) FROM outbox") == [(2,)]


async def test_a_call_without_a_deadline_gets_the_services(users_database: TestDatabase) -> None:
    settings = database_settings(users_database.url, lock_timeout_s=5)
    server = server_settings(max_call_s=0.2)
    async with user_service(settings, server=server) as address, plain_channel(address) as channel:
        users = UserServiceStub(channel)
        user = await users.CreateUser(create_user_request())
        with users_database.connect() as other:
            other.execute("BEGIN")
            other.execute("SELECT 1 FROM users FOR UPDATE")

            refusal = await refusal_of(users.UpdateUser(pb.UpdateUserRequest(id=user.id, display_name="B")))

    assert (refusal.code, refusal.domain) == (StatusCode.DEADLINE_EXCEEDED, "shop.system.v1")
    assert refusal.reason == "DEADLINE_EXCEEDED"


async def test_a_call_whose_caller_left_before_its_turn_does_nothing(users_database: TestDatabase) -> None:
    settings = database_settings(users_database.url, lock_timeout_s=5, pool_size=4)  # one lane for what is slow
    async with user_service(settings) as address, plain_channel(address) as channel:
        users = UserServiceStub(channel)
        user = await users.CreateUser(create_user_request())
        with users_database.connect() as other:
            other.execute("BEGIN")
            other.execute("SELECT 1 FROM users FOR UPDATE")
            waiting = asyncio.ensure_future(users.UpdateUser(pb.UpdateUserRequest(id=user.id, display_name="B")))
            await users_database.until_waiting()

            with pytest.raises(aio.AioRpcError):
                await users.DeleteUser(pb.DeleteUserRequest(id=user.id), timeout=0.2)
        await waiting

        assert (await users.GetUser(pb.GetUserRequest(id=user.id))).display_name == "B"


def require_database_unavailable(refusal: Refusal) -> None:
    assert (refusal.code, refusal.domain) == (StatusCode.UNAVAILABLE, "shop.system.v1")
    assert (refusal.reason, refusal.retry_after_s) == ("DATABASE_UNAVAILABLE", 1)
    assert refusal.retry_after_header == "1"
