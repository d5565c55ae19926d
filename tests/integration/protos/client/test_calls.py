"""Calls, lists and logins of `shop.client` against the services, with stubs of both kinds."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from shop.user.v1.user_service_pb2 import GetUserRequest, ListUsersRequest
from shop.user.v1.user_service_pb2_grpc import UserServiceStub

from chassis.testing import admins_token, new_uuid
from protos.client import FieldViolation, Login, ShopError, connect, connect_sync, pages
from tests.support.requests import PASSWORD, create_user_request

if TYPE_CHECKING:
    from collections.abc import Callable

    from shop.user.v1.user_pb2 import User
    from shop.user.v1.user_service_pb2_grpc import UserServiceAsyncStub

    from chassis.testing import ManualClock
    from tests.integration.databases import TestDatabase

NOWHERE = "127.0.0.1:1"


class Forward:
    """The time of the client, which a test moves forward."""

    def __init__(self) -> None:
        self.by_s = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.by_s

    def time(self) -> float:
        return time.time() + self.by_s


@pytest.fixture
def client_time(monkeypatch: pytest.MonkeyPatch) -> Forward:
    forward = Forward()
    monkeypatch.setattr("protos.client.login.time", forward)
    return forward


async def call(address: str, token: Any, work: Callable[[UserServiceStub], Any], *, is_sync: bool) -> Any:
    """Return what the call of a stub returns."""
    if is_sync:

        def run() -> Any:
            with connect_sync(address, token=token) as channel:
                return work(UserServiceStub(channel))

        return await asyncio.to_thread(run)
    async with connect(address, token=token) as channel:
        return await work(UserServiceStub(channel))


both = pytest.mark.parametrize("is_sync", [False, True], ids=["aio", "sync"])


@both
async def test_a_refusal_is_an_error_with_reason_and_facts(users_address: str, *, is_sync: bool) -> None:
    user_id = new_uuid()

    with pytest.raises(ShopError) as failed:
        await call(
            users_address, admins_token(), lambda stub: stub.GetUser(GetUserRequest(id=user_id)), is_sync=is_sync
        )

    error = failed.value
    assert (error.code, error.domain, error.reason) == (grpc.StatusCode.NOT_FOUND, "shop.user.v1", "USER_NOT_FOUND")
    assert (error.metadata, error.message, error.retry_after) == ({"userId": user_id}, "There is no such user.", None)
    assert str(error) == "USER_NOT_FOUND: There is no such user."
    assert isinstance(error.__cause__, grpc.RpcError)
    assert not error.may_pass


async def test_a_future_has_the_same_errors(users_address: str) -> None:
    def errors() -> list[ShopError]:
        with connect_sync(users_address, token=admins_token()) as channel:
            call = UserServiceStub(channel).GetUser.future(GetUserRequest(id=new_uuid()))
            with pytest.raises(ShopError) as raised:
                call.result(timeout=10)
            told = call.exception()
            assert isinstance(told, ShopError)
            return [raised.value, told]

    assert [error.reason for error in await asyncio.to_thread(errors)] == ["USER_NOT_FOUND"] * 2


@both
async def test_each_wrong_field_is_named(users_address: str, *, is_sync: bool) -> None:
    request = create_user_request(email="", display_name=" ")

    with pytest.raises(ShopError) as failed:
        await call(users_address, None, lambda stub: stub.CreateUser(request), is_sync=is_sync)

    assert failed.value.reason == "INVALID_FIELDS"
    assert failed.value.fields == (
        FieldViolation("email", "must be at least 3 characters", "string.min_len"),
        FieldViolation("displayName", "must not be blank", "string.not_blank"),
    )


@both
async def test_a_call_that_reaches_no_server_has_no_reason(*, is_sync: bool) -> None:
    with pytest.raises(ShopError) as failed:
        await call(NOWHERE, None, lambda stub: stub.GetUser(GetUserRequest(id=new_uuid())), is_sync=is_sync)

    assert (failed.value.code, failed.value.reason) == (grpc.StatusCode.UNAVAILABLE, "")
    assert failed.value.may_pass


@both
async def test_a_refusal_says_when_to_try_again(users_address: str, ada: User, *, is_sync: bool) -> None:
    async def guess() -> ShopError:
        wrong = Login(ada.email, "a wrong password")
        with pytest.raises(ShopError) as failed:
            await call(users_address, wrong, lambda stub: stub.GetUser(GetUserRequest(id=ada.id)), is_sync=is_sync)
        return failed.value

    reasons = [(await guess()).reason for _ in range(5)]
    error = await guess()

    assert reasons == ["INVALID_CREDENTIALS"] * 5
    assert (error.reason, error.retry_after) == ("TOO_MANY_ATTEMPTS", 1)


async def test_concurrent_calls_log_in_once_and_renew_once(
    users_address: str, users_database: TestDatabase, ada: User, client_time: Forward
) -> None:
    def tokens() -> list[tuple[int, int]]:
        return users_database.query("SELECT count(DISTINCT session_id), count(*) FROM refresh_tokens")

    async with connect(users_address, token=Login(ada.email, PASSWORD)) as channel:
        stub = UserServiceStub(channel)

        async def call_often() -> None:
            await asyncio.gather(*[stub.GetUser(GetUserRequest(id=ada.id)) for _ in range(20)])

        await call_often()
        logged_in = tokens()
        client_time.by_s += 900 - 61
        await call_often()
        still_good = tokens()
        client_time.by_s += 2
        await call_often()
        renewed = tokens()
        client_time.by_s += 900
        await call_often()

    assert (logged_in, still_good, renewed) == ([(1, 1)], [(1, 1)], [(1, 2)])
    assert tokens() == [(1, 3)]


async def test_concurrent_threads_log_in_once_and_renew_once(
    users_address: str, users_database: TestDatabase, ada: User, client_time: Forward
) -> None:
    def tokens() -> list[tuple[int, int]]:
        return users_database.query("SELECT count(DISTINCT session_id), count(*) FROM refresh_tokens")

    with connect_sync(users_address, token=Login(ada.email, PASSWORD)) as channel:
        stub = UserServiceStub(channel)

        async def call_often() -> None:
            request = GetUserRequest(id=ada.id)
            await asyncio.gather(*[asyncio.to_thread(stub.GetUser, request) for _ in range(8)])

        await call_often()
        logged_in = tokens()
        client_time.by_s += 900
        await call_often()

    assert logged_in == [(1, 1)]
    assert tokens() == [(1, 2)]


async def test_a_caller_that_leaves_does_not_take_the_renewal_from_others(
    users_address: str, users_database: TestDatabase, ada: User, client_time: Forward
) -> None:
    async with connect(users_address, token=Login(ada.email, PASSWORD)) as channel:
        stub = UserServiceStub(channel)
        await stub.GetUser(GetUserRequest(id=ada.id))
        client_time.by_s += 900

        leaving, staying = (asyncio.ensure_future(stub.GetUser(GetUserRequest(id=ada.id))) for _ in range(2))
        await asyncio.sleep(0)
        leaving.cancel()

        assert (await staying).id == ada.id
    assert users_database.query("SELECT count(*) FROM sessions") == [(1,)]


@both
async def test_a_session_that_the_shop_has_ended_is_begun_again(
    users_address: str, users_database: TestDatabase, ada: User, client_time: Forward, *, is_sync: bool
) -> None:
    def end_session() -> None:
        users_database.query("UPDATE sessions SET ended_at = now()")
        client_time.by_s += 900

    async def twice(stub: Any) -> User:
        await stub.GetUser(GetUserRequest(id=ada.id))
        end_session()
        user: User = await stub.GetUser(GetUserRequest(id=ada.id))
        return user

    def twice_sync(stub: Any) -> User:
        stub.GetUser(GetUserRequest(id=ada.id))
        end_session()
        user: User = stub.GetUser(GetUserRequest(id=ada.id))
        return user

    work = twice_sync if is_sync else twice
    user = await call(users_address, Login(ada.email, PASSWORD), work, is_sync=is_sync)

    assert user.id == ada.id
    assert users_database.query("SELECT count(*) FROM sessions") == [(2,)]


@both
async def test_a_call_whose_token_is_refused_is_made_once_more_with_another(
    users_address: str, ada: User, clock: ManualClock, *, is_sync: bool
) -> None:
    # The shop's clock is behind, so its tokens are expired for every service that checks them.
    clock.advance(-timedelta(hours=2))
    request = GetUserRequest(id=ada.id)

    async def work(stub: Any) -> User:
        with pytest.raises(ShopError, match="TOKEN_EXPIRED"):
            await stub.GetUser(request)
        clock.advance(timedelta(hours=2))
        user: User = await stub.GetUser(request)
        return user

    def work_sync(stub: Any) -> User:
        with pytest.raises(ShopError, match="TOKEN_EXPIRED"):
            stub.GetUser(request)
        clock.advance(timedelta(hours=2))
        user: User = stub.GetUser(request)
        return user

    login = Login(ada.email, PASSWORD)
    user = await call(users_address, login, work_sync if is_sync else work, is_sync=is_sync)

    assert user.id == ada.id


async def test_the_pages_of_a_list_follow_each_other(users_address: str, users: UserServiceAsyncStub) -> None:
    created = [(await users.CreateUser(create_user_request())).id for _ in range(5)]
    request = ListUsersRequest(page_size=2)

    async with connect(users_address, token=admins_token()) as channel:
        found = [[each.id for each in page.users] async for page in pages(UserServiceStub(channel).ListUsers, request)]

    def in_a_thread() -> list[list[str]]:
        with connect_sync(users_address, token=admins_token()) as channel:
            return [[each.id for each in page.users] for page in pages(UserServiceStub(channel).ListUsers, request)]

    newest_first = created[::-1]
    assert found == [newest_first[:2], newest_first[2:4], newest_first[4:]]
    assert await asyncio.to_thread(in_a_thread) == found
    assert request == ListUsersRequest(page_size=2)


async def test_pages_begin_where_the_request_says(users_address: str, users: UserServiceAsyncStub) -> None:
    created = [(await users.CreateUser(create_user_request())).id for _ in range(3)]

    async with connect(users_address, token=admins_token()) as channel:
        stub = UserServiceStub(channel)
        first = await stub.ListUsers(ListUsersRequest(page_size=1))
        rest = pages(stub.ListUsers, ListUsersRequest(page_size=2, page_token=first.next_page_token))

        assert [each.id async for page in rest for each in page.users] == created[-2::-1]


async def test_pages_of_something_else_are_a_mistake() -> None:
    async with connect(NOWHERE) as channel:
        with pytest.raises(TypeError, match=r"shop.user.v1.GetUserRequest has no page_token: this rpc is no list"):
            pages(UserServiceStub(channel).GetUser, GetUserRequest())  # mypy refuses it too
