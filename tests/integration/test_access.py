"""Access to the services: every rpc by every kind of caller, and no access to other users' resources."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf import descriptor_pool, message_factory
from grpc import StatusCode, aio
from shop.user.v1 import session_service_pb2 as sessions_pb
from shop.user.v1 import user_service_pb2 as users_pb
from shop.user.v1.session_service_pb2_grpc import SessionServiceStub
from shop.user.v1.user_service_pb2_grpc import UserServiceStub

from chassis.context import Role
from chassis.server import contract
from chassis.service import Service, services
from chassis.testing import (
    SIGNER,
    admins_token,
    bearer,
    new_uuid,
    plain_channel,
    refusal_from,
    refusal_of,
    services_token,
    token_of,
)
from tests.support.access_table import CALLERS, FOREIGN, MADE_FOR, NOTHING, REQUESTS, Subject, expected
from tests.support.requests import PASSWORD, create_user_request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from google.protobuf.descriptor import MethodDescriptor
    from google.protobuf.message import Message
    from shop.user.v1.user_pb2 import User
    from shop.user.v1.user_service_pb2_grpc import UserServiceAsyncStub

    from tests.integration.databases import TestDatabase

USERS = "shop.user.v1.UserService"

# Of the users' own resources; e2e/test_access.py has every rpc of the contract.
METHODS: dict[str, MethodDescriptor] = {
    method.full_name: method
    for service in contract.service_names()
    for method in descriptor_pool.Default().FindServiceByName(service).methods
    if method.full_name in REQUESTS
}


# The services that have them.
SERVICES: tuple[Service, ...] = tuple(
    each for each in services() if any(method.rpartition(".")[0] in each.serves for method in METHODS)
)


@dataclass(frozen=True, slots=True)
class World:
    """A user with what the user owns, and the services.

    Attributes:
        channels: a channel without a token to each gRPC service but SystemService, which all replicas serve.
        subject: whose things the calls are about.
    """

    channels: Mapping[str, aio.Channel]
    subject: Subject

    @property
    def owner(self) -> User:
        return self.subject.owner

    async def call(self, method: str, request: Message, *, token: str) -> Message:
        """Make a call with the token; an empty one is anonymous."""
        service, _, name = method.rpartition(".")
        channel = self.channels.get(service, self.channels[USERS])
        invoke = (channel.unary_stream if METHODS[method].server_streaming else channel.unary_unary)(
            f"/{service}/{name}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=message_factory.GetMessageClass(METHODS[method].output_type).FromString,
        )
        call: Any = invoke(request, metadata=bearer(token) if token else ())
        return await (_first_news(call) if METHODS[method].server_streaming else call)

    def token(self, caller: str) -> str:
        tokens = {
            "anonymous": "",
            "other": token_of(new_uuid()),
            "owner": token_of(self.owner.id),
            "support": SIGNER.token(roles=(Role.USER, Role.SUPPORT)),
            "admin": admins_token(),
            "service": services_token(),
        }
        return tokens[caller]


async def _first_news(stream: Any) -> Message:
    """Return the message after the first heartbeat: a change or, without one, another heartbeat, which is empty."""
    await stream.read()
    message: Message = await stream.read()
    stream.cancel()
    message.ClearField("resume_token")
    return message


@dataclass(frozen=True, slots=True)
class Worlds:
    """Makes worlds."""

    channels: Mapping[str, aio.Channel]

    async def new(self) -> World:
        users = self.channels[USERS]
        owner = await UserServiceStub(users).CreateUser(create_user_request())
        login = sessions_pb.CreateSessionRequest(email=owner.email, password=PASSWORD)
        session = await SessionServiceStub(users).CreateSession(login)
        owned: dict[str, Message] = {}
        world = World(self.channels, Subject(owner, session, owned))
        for method, make in MADE_FOR.items():
            owned[method] = await world.call(method, make(owner), token=session.access_token)
        return world


@pytest.fixture
def addresses(request: pytest.FixtureRequest) -> dict[str, str]:
    """The address of each service, by the full names of what it serves."""
    return {
        served: request.getfixturevalue(f"{service.collection}_address")
        for service in SERVICES
        for served in service.serves
    }


@pytest.fixture
async def worlds(addresses: dict[str, str]) -> AsyncIterator[Worlds]:
    async with AsyncExitStack() as stack:
        yield Worlds(
            {
                served: await stack.enter_async_context(plain_channel(address, token=""))
                for served, address in addresses.items()
            }
        )


@pytest.fixture
def databases(request: pytest.FixtureRequest) -> list[TestDatabase]:
    return [request.getfixturevalue(f"{service.collection}_database") for service in SERVICES]


@pytest.mark.parametrize("method", METHODS)
async def test_an_rpc_admits_the_callers_of_the_contract(
    worlds: Worlds, databases: list[TestDatabase], method: str
) -> None:
    outcomes: dict[str, str] = {}

    for caller in CALLERS:
        world = await worlds.new()
        before = [each.everything() for each in databases]
        outcomes[caller] = outcome = await outcome_of(world, method, caller)
        if outcome != "OK":
            assert [each.everything() for each in databases] == before

    assert outcomes == {caller: expected(method, caller) for caller in CALLERS}


async def outcome_of(world: World, method: str, caller: str) -> str:
    """Return the reason of the refusal, NOTHING, or OK."""
    try:
        answer = await world.call(method, REQUESTS[method](world.subject), token=world.token(caller))
    except aio.AioRpcError as error:
        refusal = refusal_from(error)
        codes = {"TOKEN_INVALID": StatusCode.UNAUTHENTICATED, "ROLE_REQUIRED": StatusCode.PERMISSION_DENIED}
        assert refusal.code is codes.get(refusal.reason, refusal.code)
        return refusal.reason
    is_foreign = expected(method, caller) == NOTHING
    return NOTHING if is_foreign and not answer.ByteSize() else "OK"


@pytest.mark.parametrize("method", FOREIGN)
async def test_another_users_resource_is_answered_as_a_missing_one(worlds: Worlds, method: str) -> None:
    world = await worlds.new()
    foreign = REQUESTS[method](world.subject)
    absent = REQUESTS[method](world.subject)
    field = "id" if "id" in foreign.DESCRIPTOR.fields_by_name else "user_id"
    owned, made_up = getattr(foreign, field), new_uuid()
    setattr(absent, field, made_up)
    token = world.token("other")

    of_foreign = await bytes_of(world.call(method, foreign, token=token))
    of_absent = await bytes_of(world.call(method, absent, token=token))

    assert of_foreign.replace(owned.encode(), b"<id>") == of_absent.replace(made_up.encode(), b"<id>")


async def bytes_of(call: Any) -> bytes:
    """Return everything that the caller gets to see."""
    try:
        return bytes((await call).SerializeToString())
    except aio.AioRpcError as error:
        return repr((error.code(), error.details(), sorted(error.trailing_metadata() or ()))).encode()


async def test_a_request_id_of_one_caller_does_not_return_the_response_of_another(
    users: UserServiceAsyncStub, ada: User
) -> None:
    update = users_pb.UpdateUserRequest(id=ada.id, display_name="B", request_id=new_uuid())
    await users.UpdateUser(update, metadata=bearer(token_of(ada.id)))

    refusal = await refusal_of(users.UpdateUser(update, metadata=bearer(token_of(new_uuid()))))

    assert refusal.reason == "USER_NOT_FOUND"


async def test_anonymous_callers_learn_nothing_about_validity(users: UserServiceAsyncStub) -> None:
    nobody = (("authorization", ""),)
    by_get = await refusal_of(users.GetUser(users_pb.GetUserRequest(id="no uuid"), metadata=nobody))
    by_list = await refusal_of(users.ListUsers(users_pb.ListUsersRequest(page_size=-1), metadata=nobody))

    assert {by_get.reason, by_list.reason} == {"TOKEN_INVALID"}


async def test_a_missing_role_is_named(users: UserServiceAsyncStub) -> None:
    request = users_pb.BatchGetUsersRequest(ids=[new_uuid()])

    refusal = await refusal_of(users.BatchGetUsers(request, metadata=bearer(token_of(new_uuid()))))

    assert (refusal.code, refusal.domain) == (StatusCode.PERMISSION_DENIED, "shop.system.v1")
    assert (refusal.reason, refusal.metadata) == ("ROLE_REQUIRED", {"roles": "ADMIN,SERVICE"})
