"""In every state of the database a caller learns whether to try again, and calls succeed once it has recovered."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import signal
import time
from typing import TYPE_CHECKING, Final

import psycopg
import pytest
from grpc import StatusCode
from shop.order.v1 import order_pb2
from shop.order.v1 import order_service_pb2 as orders_pb
from shop.order.v1.order_service_pb2_grpc import OrderServiceStub
from shop.user.v1 import session_service_pb2 as sessions_pb
from shop.user.v1 import user_service_pb2 as users_pb
from shop.user.v1.session_service_pb2_grpc import SessionServiceStub
from shop.user.v1.user_service_pb2_grpc import UserServiceStub

from chassis.context import set_batch_deadline
from chassis.database import Database
from chassis.database.database import execute
from chassis.errors import DatabaseUnavailable, OutcomeUnknown
from chassis.testing import plain_channel, refusal_of
from tests.integration.conftest import fresh_database
from tests.integration.inprocess import database_settings, order_service, user_service
from tests.support.database_cases import cases
from tests.support.requests import PASSWORD, create_order_request, create_user_request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from sqlalchemy import Connection

    from devstack.postgres import PostgresServer
    from tests.integration.conftest import TestDatabase

# PostgreSQL's classes of what ends by itself (Appendix A of its manual): connection, credentials, rollback, resources,
# locks and recovery, intervention, the system, its configuration.
PASSING_CLASSES: Final = {"08", "28", "40", "53", "55", "57", "58", "F0"}
# A read-only or hot standby server; a transaction that took too long; a statement prepared in another session.
PASSING: Final = {"25006", "25P03", "25P04", "26000", "42P05", "72000"}
OWN_PID: Final = "SELECT pg_backend_pid()"
WRITE: Final = "CREATE TABLE should_not_be ()"


@pytest.fixture
async def database(empty_database: TestDatabase) -> AsyncIterator[Database]:
    database = Database(database_settings(empty_database.url, statement_timeout_s=0.5), name="test")
    yield database
    await database.close()


def own_pid(connection: Connection) -> int:
    return int(execute(connection, OWN_PID)[0][0])


def every_way(database: Database, statement: str) -> list[Callable[[], Awaitable[object]]]:
    """Return how a statement can be run: in a batch that reads or writes, and in a thread."""
    return [
        lambda: database.fetch(statement),
        lambda: database.fetch_for_write(statement),
        lambda: database.fetch_on_shared_pool(statement),
        lambda: database.read(lambda connection: execute(connection, statement)),
    ]


def every_sqlstate() -> list[str]:
    errors = [each for _, each in inspect.getmembers(psycopg.errors, inspect.isclass)]
    return sorted({each.sqlstate for each in errors if issubclass(each, psycopg.Error) and each.sqlstate})


def one_of_each_class(states: list[str]) -> list[str]:
    """Return the first SQLSTATE of each class, and those of a class of defects that are transient."""
    return sorted({*{state[:2]: state for state in reversed(states)}.values(), *PASSING})


async def test_every_sqlstate_is_a_state_that_passes_or_a_defect(
    database: Database, empty_database: TestDatabase
) -> None:
    empty_database.query("""
        CREATE FUNCTION fail(state text) RETURNS void LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'as you like' USING ERRCODE = state;
        END $$
    """)
    wrong: list[str] = []
    states = every_sqlstate()
    for sqlstate in cases(states, everyday=one_of_each_class(states)):
        passes = sqlstate in PASSING or sqlstate[:2] in PASSING_CLASSES
        for way in every_way(database, f"SELECT fail('{sqlstate}')"):
            try:
                await way()
            except DatabaseUnavailable as error:
                wrong += [] if passes and not isinstance(error, OutcomeUnknown) else [f"{sqlstate} is {error!r}"]
            except Exception as error:  # noqa: BLE001  a defect may be of any class
                wrong += [f"{sqlstate} is {error!r}"] if passes else []

    assert len(states) > 200
    assert wrong == []


@pytest.mark.parametrize("way", cases(range(4), everyday=(1, 3)))
async def test_a_server_that_has_become_read_only_is_left_for_one_that_writes(
    database: Database, empty_database: TestDatabase, way: int
) -> None:
    with read_only(empty_database):
        with pytest.raises(DatabaseUnavailable):
            await every_way(database, WRITE)[way]()
        assert await database.fetch("SELECT 1") == [(1,)]

    await every_way(database, WRITE)[way]()


@contextlib.contextmanager
def read_only(database: TestDatabase) -> Iterator[None]:
    """Let the database take no writes in the block, as that of a standby and a disk that is full."""
    name = database.query("SELECT quote_ident(current_database())")[0][0]
    others = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = current_database()"
    database.query(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    database.query(f"{others} AND pid <> pg_backend_pid()")
    try:
        yield
    finally:
        with database.connect() as connection:
            connection.execute("SET default_transaction_read_only = off")
            connection.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only".encode())
        database.close()  # a connection from within the block would stay read-only


async def test_writes_to_a_read_only_database_are_unavailable_and_come_back_without_a_restart(
    postgres: PostgresServer,
) -> None:
    with fresh_database(postgres, "user_svc") as users_rows, fresh_database(postgres, "order_svc") as orders_rows:
        async with (
            user_service(database_settings(users_rows.url)) as users_address,
            order_service(database_settings(orders_rows.url), users=users_address) as orders_address,
            plain_channel(users_address) as to_users,
            plain_channel(orders_address) as to_orders,
        ):
            users, sessions = UserServiceStub(to_users), SessionServiceStub(to_users)
            orders = OrderServiceStub(to_orders)
            request = create_user_request()
            user = await users.CreateUser(request)
            login = sessions_pb.CreateSessionRequest(email=request.email, password=PASSWORD)
            session = await sessions.CreateSession(login)
            order = await orders.CreateOrder(create_order_request(user.id))

            writes: dict[str, Callable[[], Awaitable[object]]] = {
                "CreateUser": lambda: users.CreateUser(create_user_request()),
                "UpdateUser": lambda: users.UpdateUser(users_pb.UpdateUserRequest(id=user.id, display_name="B")),
                "CreateSession": lambda: sessions.CreateSession(login),
                "RefreshSession": lambda: sessions.RefreshSession(
                    sessions_pb.RefreshSessionRequest(refresh_token=session.refresh_token)
                ),
                "CreateOrder": lambda: orders.CreateOrder(create_order_request(user.id)),
                "UpdateOrderStatus": lambda: orders.UpdateOrderStatus(
                    orders_pb.UpdateOrderStatusRequest(id=order.id, status=order_pb2.ORDER_STATUS_CONFIRMED)
                ),
                "CancelOrder": lambda: orders.CancelOrder(orders_pb.CancelOrderRequest(id=order.id)),
                "DeleteUser": lambda: users.DeleteUser(users_pb.DeleteUserRequest(id=user.id)),
            }
            with read_only(users_rows), read_only(orders_rows):
                refusals = {name: await refusal_of(write()) for name, write in writes.items()}
                assert await users.GetUser(users_pb.GetUserRequest(id=user.id)) == user
                assert await orders.GetOrder(orders_pb.GetOrderRequest(id=order.id)) == order
            for write in writes.values():
                await write()

    for name, refusal in refusals.items():
        assert (name, refusal.code, refusal.reason) == (name, StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE")
        assert (refusal.retry_after_s, refusal.retry_after_header) == (1, "1")


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Let a process of the server do nothing in the block; the kernel still acknowledges what is sent to it."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_a_read_without_an_answer_is_repeated_over_another_connection(database: Database) -> None:
    [(pid,)] = await database.fetch(OWN_PID)

    with stopped(pid):
        async with asyncio.timeout(5):
            [(other,)] = await database.fetch(OWN_PID)

    assert other != pid


async def test_a_write_without_an_answer_has_an_unknown_outcome_and_delays_no_other_call(database: Database) -> None:
    [(pid,)] = await database.fetch_for_write(OWN_PID)

    with stopped(pid):
        async with asyncio.timeout(5):
            with pytest.raises(OutcomeUnknown):
                await database.fetch_for_write(OWN_PID)
            [(other,)] = await database.fetch_for_write(OWN_PID)

    assert other != pid


async def test_a_transaction_without_an_answer_is_repeated_over_another_connection(database: Database) -> None:
    pid = await database.transaction(own_pid)

    with stopped(pid):
        async with asyncio.timeout(5):
            other = await database.transaction(own_pid)

    assert other != pid


async def test_a_commit_without_an_answer_has_an_unknown_outcome(database: Database) -> None:
    def stop_yourself(connection: Connection) -> int:
        pid = own_pid(connection)
        os.kill(pid, signal.SIGSTOP)
        pids.append(pid)
        return pid

    pids: list[int] = []
    try:
        async with asyncio.timeout(5):
            with pytest.raises(OutcomeUnknown):
                await database.transaction(stop_yourself)
    finally:
        os.kill(pids[0], signal.SIGCONT)

    assert len(pids) == 1


@pytest.mark.parametrize(("left_s", "attempts"), [(0, 1), (1, 2)])
@pytest.mark.parametrize("way", [0, 2, 3])
async def test_a_statement_is_tried_again_only_while_a_caller_waits(
    empty_database: TestDatabase, way: int, left_s: float, attempts: int
) -> None:
    # The first attempt loses its connection; the next takes longer than the caller waits, who has a second at most.
    empty_database.query("CREATE SEQUENCE attempts")
    statement = """
        SELECT CASE
            WHEN nextval('attempts') = 1 THEN CAST(pg_terminate_backend(pg_backend_pid()) AS text)
            ELSE CAST(pg_sleep(10) AS text)
        END
    """
    database = Database(database_settings(empty_database.url, statement_timeout_s=10), name="test")
    set_batch_deadline(time.monotonic() + left_s)

    async with asyncio.timeout(5):
        with pytest.raises(DatabaseUnavailable):
            await every_way(database, statement)[way]()

    assert empty_database.query("SELECT last_value FROM attempts") == [(attempts,)]
    await database.close()


async def test_a_statement_whose_plan_was_outdated_by_a_migration_is_planned_anew(
    database: Database, empty_database: TestDatabase
) -> None:
    empty_database.query("CREATE TABLE scratch AS SELECT 1 AS number")
    ways = every_way(database, "SELECT number FROM scratch")
    for _ in range(6):  # the driver prepares what comes again and again
        for way in ways:
            await way()

    empty_database.query("ALTER TABLE scratch ALTER COLUMN number TYPE text")

    for way in ways:
        assert [tuple(row) for row in await way()] == [("1",)]  # type: ignore[attr-defined]  # rows of either kind


async def test_a_server_without_a_free_connection_is_unavailable(
    postgres: PostgresServer, empty_database: TestDatabase
) -> None:
    name = empty_database.query("SELECT quote_ident(current_database())")[0][0]
    empty_database.query("CREATE ROLE crowded LOGIN PASSWORD 'crowded' CONNECTION LIMIT 0")
    try:
        url = f"postgresql://crowded:crowded@127.0.0.1:{postgres.port}/{name}"
        database = Database(database_settings(url), name="test")
        for way in every_way(database, "SELECT 1"):
            with pytest.raises(DatabaseUnavailable):
                await way()
        empty_database.query("ALTER ROLE crowded CONNECTION LIMIT 10")
        for way in every_way(database, "SELECT 1"):
            await way()
        await database.close()
    finally:
        empty_database.query("DROP ROLE crowded")


async def test_a_commit_that_the_server_refuses_is_undone_and_its_connection_goes_on(
    database: Database, empty_database: TestDatabase
) -> None:
    """A disk that is full at the commit, a deferred constraint that waits for a lock: errors that come last."""
    empty_database.query("CREATE TABLE written (state text)")
    empty_database.query("""
        CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'as you like' USING ERRCODE = new.state;
        END $$
    """)
    empty_database.query("""
        CREATE CONSTRAINT TRIGGER fail AFTER INSERT ON written DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW WHEN (new.state <> '') EXECUTE FUNCTION fail()
    """)
    insert = "INSERT INTO written VALUES (%s)"
    states = [state for state in every_sqlstate() if state[:2] in PASSING_CLASSES]

    for sqlstate in cases(states, everyday=[*one_of_each_class(states), "53100"]):
        for write in (
            lambda: database.fetch_for_write(insert, sqlstate),  # noqa: B023  run in this turn
            lambda: database.transaction(lambda connection: execute(connection, insert, sqlstate)),  # noqa: B023
        ):
            with pytest.raises(DatabaseUnavailable):
                await write()
            assert empty_database.query("SELECT count(*) FROM written") == [(0,)]

    await database.fetch_for_write(insert, "")
    await database.transaction(lambda connection: execute(connection, insert, ""))
    assert empty_database.query("SELECT count(*) FROM written") == [(2,)]
