"""What calls without asyncio end with: the callers' own errors, refused tokens, and futures that still run."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub
from shop.user.v1.session_service_pb2 import Session
from shop.user.v1.session_service_pb2_grpc import SessionServiceServicer, add_SessionServiceServicer_to_server
from shop.user.v1.user_pb2 import User
from shop.user.v1.user_service_pb2 import GetUserRequest
from shop.user.v1.user_service_pb2_grpc import UserServiceServicer, UserServiceStub, add_UserServiceServicer_to_server
from typing_extensions import override

from chassis.errors import TokenExpired
from chassis.server.status import status_of
from chassis.testing import LOOPBACK, new_uuid
from protos.client import Login, ShopError, connect, connect_sync

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Gate(SessionServiceServicer, UserServiceServicer):
    """Refuses the first token; a call waits until the gate is open."""

    def __init__(self) -> None:
        self.is_open = threading.Event()
        self.issued = 0

    @override
    def CreateSession(self, request: Any, context: grpc.ServicerContext) -> Session:
        session = Session(access_token=f"token-{self.issued}", refresh_token="next")
        session.access_expires_at.GetCurrentTime()
        session.access_expires_at.seconds += 900
        self.issued += 1
        return session

    @override
    def RefreshSession(self, request: Any, context: grpc.ServicerContext) -> Session:
        return self.CreateSession(request, context)

    @override
    def GetUser(self, request: Any, context: grpc.ServicerContext) -> User:
        self.is_open.wait(5)
        if ("authorization", "Bearer token-0") in context.invocation_metadata():
            details = status_of(TokenExpired()).SerializeToString()
            context.set_trailing_metadata((("grpc-status-details-bin", details),))
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "The token has expired.")
        return User(id=request.id)


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def users(gate: Gate) -> Iterator[UserServiceStub]:
    server = grpc.server(ThreadPoolExecutor(2))
    add_SessionServiceServicer_to_server(gate, server)
    add_UserServiceServicer_to_server(gate, server)
    address = f"{LOOPBACK}:{server.add_insecure_port(f'{LOOPBACK}:0')}"
    server.start()
    with connect_sync(address, token=Login("ada@example.com", "correct horse battery")) as channel:
        yield UserServiceStub(channel)
    gate.is_open.set()
    server.stop(None)


def result(future: Any) -> object:
    return future.result(timeout=5)


def exception(future: Any) -> object:
    raise future.exception(timeout=5)


def in_callback(future: Any) -> object:
    """Return the result, or raise the exception, that a callback gets."""
    ended = threading.Event()
    seen: list[Any] = []

    def take(call: Any) -> None:
        try:
            seen.append(call.result())
        except Exception as error:  # noqa: BLE001  raised below
            seen.append(error)
        ended.set()

    future.add_done_callback(take)
    assert ended.wait(5)
    if isinstance(seen[0], Exception):
        raise seen[0]
    return seen[0]


@pytest.mark.parametrize("outcome", [result, exception, in_callback])
def test_a_future_whose_token_is_refused_says_so_and_the_next_call_has_another_one(
    users: UserServiceStub, gate: Gate, outcome: Callable[[Any], object]
) -> None:
    future = users.GetUser.future(GetUserRequest(id=new_uuid()))
    gate.is_open.set()

    with pytest.raises(ShopError, match="TOKEN_EXPIRED"):
        outcome(future)

    assert future.code() is grpc.StatusCode.UNAUTHENTICATED
    assert users.GetUser.future(GetUserRequest(id="later")).result(timeout=5).id == "later"
    assert gate.issued == 2


def test_a_call_whose_token_is_refused_is_repeated(users: UserServiceStub, gate: Gate) -> None:
    gate.is_open.set()

    user, call = users.GetUser.with_call(GetUserRequest(id="now"))

    assert (user.id, call.code(), gate.issued) == ("now", grpc.StatusCode.OK, 2)


def test_a_callback_gets_the_result_of_its_future(users: UserServiceStub, gate: Gate) -> None:
    gate.is_open.set()
    users.GetUser(GetUserRequest(id="first"))

    assert in_callback(users.GetUser.future(GetUserRequest(id="now"))) == User(id="now")


class NoVault(Exception):
    """The caller's own function has failed."""


def without_token() -> str:
    raise NoVault


@pytest.mark.parametrize(
    "call",
    [
        lambda channel: UserServiceStub(channel).GetUser(GetUserRequest()),
        lambda channel: UserServiceStub(channel).GetUser.with_call(GetUserRequest()),
        lambda channel: result(UserServiceStub(channel).GetUser.future(GetUserRequest())),
        lambda channel: exception(UserServiceStub(channel).GetUser.future(GetUserRequest())),
        lambda channel: in_callback(UserServiceStub(channel).GetUser.future(GetUserRequest())),
        lambda channel: next(HealthStub(channel).Watch(HealthCheckRequest())),
    ],
    ids=["call", "with_call", "result", "exception", "callback", "stream"],
)
def test_an_error_of_the_token_function_is_raised_as_it_is(call: Callable[[grpc.Channel], object]) -> None:
    with connect_sync(f"{LOOPBACK}:1", token=without_token) as channel, pytest.raises(NoVault):
        call(channel)


async def test_an_error_of_the_token_function_is_raised_under_asyncio() -> None:
    async with connect(f"{LOOPBACK}:1", token=without_token) as channel:
        with pytest.raises(NoVault):
            await UserServiceStub(channel).GetUser(GetUserRequest())
        with pytest.raises(NoVault):
            await anext(aiter(HealthStub(channel).Watch(HealthCheckRequest())))
