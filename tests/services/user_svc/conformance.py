"""Calls of the user service that the contract does not say: passwords, sessions, deletions, filters."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.struct_pb2 import Struct, Value
from shop.user.v1 import session_service_pb2 as sessions
from shop.user.v1 import user_pb2
from shop.user.v1 import user_service_pb2 as users

from chassis.context import Role
from tests.integration.conformance.requests import struct
from tests.integration.conformance.worlds import new_uuid, settled
from tests.support.requests import PASSWORD, create_user_request

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from google.protobuf.message import Message

    from tests.integration.conformance.worlds import Person, World

OTHER_PASSWORD: Final = "another horse battery"


def of_a_user(make: Callable[[Person], Message]) -> Callable[[World, Person], Awaitable[Message]]:
    async def request(_world: World, who: Person) -> Message:
        return make(who)

    return request


REQUESTS: Final = {
    "CreateUser": of_a_user(lambda _: create_user_request(email=f"new-{new_uuid()}@example.com")),
    "GetUser": of_a_user(lambda who: users.GetUserRequest(id=who.id)),
    "BatchGetUsers": of_a_user(lambda who: users.BatchGetUsersRequest(ids=[who.id, new_uuid(), who.id])),
    "ListUsers": of_a_user(lambda who: users.ListUsersRequest(email=who.email)),
    "UpdateUser": of_a_user(lambda who: users.UpdateUserRequest(id=who.id, display_name="Augusta")),
    "ChangePassword": of_a_user(
        lambda who: users.ChangePasswordRequest(id=who.id, current_password=PASSWORD, new_password=OTHER_PASSWORD)
    ),
    "DeleteUser": of_a_user(lambda who: users.DeleteUserRequest(id=who.id, current_password=PASSWORD)),
    "CreateSession": of_a_user(lambda who: sessions.CreateSessionRequest(email=who.email, password=PASSWORD)),
    "RefreshSession": of_a_user(lambda _: sessions.RefreshSessionRequest(refresh_token="none of ours")),
    "DeleteSession": of_a_user(lambda _: sessions.DeleteSessionRequest(id=new_uuid())),
    "GetJwks": of_a_user(lambda _: sessions.GetJwksRequest()),
}


def _as_somebody_else(request: Any) -> None:
    request.display_name = "Somebody else"


def _to_a_third_password(request: Any) -> None:
    request.new_password = "a third horse battery"


def _of_the_first_version(request: Any) -> None:
    request.etag = "v1"


CHANGES: Final = {
    "CreateUser": _as_somebody_else,
    "UpdateUser": _as_somebody_else,
    "ChangePassword": _to_a_third_password,
    "DeleteUser": _of_the_first_version,
}


async def pages_of_users(world: World) -> None:
    """Read lists of users with each filter, and with the tokens of other lists."""
    people = []
    for _ in range(3):
        await settled()
        people.append(await world.person())
    admin = world.token(Role.USER, Role.ADMIN)
    await world.call("DeleteUser", users.DeleteUserRequest(id=people[0].id), token=admin)
    lists = [
        users.ListUsersRequest(),
        users.ListUsersRequest(state=user_pb2.USER_STATE_ACTIVE),
        users.ListUsersRequest(state=user_pb2.USER_STATE_DELETED),
        users.ListUsersRequest(email=people[1].email.upper()),
    ]
    tokens: list[str] = []
    for request in lists:
        for size in (1, 2, 0, 1000):
            tokens += await world.read_pages("ListUsers", request, token=admin, size=size)
    for request in lists:
        for page_token in tokens:
            request.page_token = page_token
            await world.call("ListUsers", request, token=admin, note="ListUsers with the token of some list")


async def etags_of_a_user(world: World) -> None:
    """Change one user again and again, with the etag of each version, and by each way."""
    ada = await world.person()
    rename = users.UpdateUserRequest(id=ada.id, display_name="Ada")
    delete = users.DeleteUserRequest(id=ada.id, current_password=PASSWORD)
    for rpc, request in (("UpdateUser", rename), ("DeleteUser", delete)):
        for etag in ("v3", "v2", "v1"):
            request.etag = etag
            await world.call(rpc, request, token=ada.token, note=f"{rpc} etag {etag}")


async def accounts(world: World) -> None:
    """Take an email twice, change and delete users, with right and wrong passwords."""
    ada, bob = await world.person(), await world.person(name="bob")
    admin = world.token(Role.USER, Role.ADMIN)
    steps: list[tuple[str, Message, str]] = [
        ("CreateUser", create_user_request(email=ada.email.upper()), ""),
        ("CreateUser", create_user_request(email="  Zo\u00eb@B\u00fccher.example  "), ""),
        ("CreateUser", create_user_request(email="zoe\u0308@xn--bcher-kva.example"), ""),
        ("UpdateUser", users.UpdateUserRequest(id=ada.id), ada.token),
        ("UpdateUser", users.UpdateUserRequest(id=ada.id, email="a@example.com"), ada.token),
        ("UpdateUser", users.UpdateUserRequest(id=ada.id, email="a@example.com", current_password="wrong"), ada.token),
        ("UpdateUser", users.UpdateUserRequest(id=ada.id, email=bob.email, current_password=PASSWORD), ada.token),
        ("UpdateUser", users.UpdateUserRequest(id=ada.id, email="a@example.com", current_password=PASSWORD), ada.token),
        ("UpdateUser", users.UpdateUserRequest(id=ada.id, email="b@example.com"), admin),
        (
            "UpdateUser",
            users.UpdateUserRequest(id=ada.id, profile=struct({"likes": ["tea", 2.5, None, True]})),
            ada.token,
        ),
        ("UpdateUser", users.UpdateUserRequest(id=ada.id, profile=Struct(fields={"no kind": Value()})), ada.token),
        ("GetUser", users.GetUserRequest(id=ada.id), ada.token),
        ("DeleteUser", users.DeleteUserRequest(id=ada.id), ada.token),
        ("DeleteUser", users.DeleteUserRequest(id=ada.id, current_password="wrong"), ada.token),
        ("DeleteUser", users.DeleteUserRequest(id=bob.id), admin),
        ("DeleteUser", users.DeleteUserRequest(id=bob.id), admin),
        ("DeleteUser", users.DeleteUserRequest(id=bob.id), bob.token),
        ("DeleteUser", users.DeleteUserRequest(id=new_uuid()), admin),
        ("GetUser", users.GetUserRequest(id=bob.id), admin),
        ("UpdateUser", users.UpdateUserRequest(id=bob.id, display_name="Bob"), admin),
        ("UpdateUser", users.UpdateUserRequest(id=bob.id, email=bob.email, current_password=PASSWORD), bob.token),
        (
            "ChangePassword",
            users.ChangePasswordRequest(id=bob.id, current_password=PASSWORD, new_password=OTHER_PASSWORD),
            bob.token,
        ),
        ("ListUsers", users.ListUsersRequest(state=user_pb2.USER_STATE_DELETED), admin),
        ("BatchGetUsers", users.BatchGetUsersRequest(ids=[bob.id, ada.id, new_uuid()]), admin),
        ("CreateSession", sessions.CreateSessionRequest(email=bob.email, password=PASSWORD), ""),
        ("CreateUser", create_user_request(email=bob.email), ""),
    ]
    for rpc, request, token in steps:
        await world.call(rpc, request, token=token)


async def erasures(world: World) -> None:
    """Repeat writes about a user who was deleted since."""
    admin = world.token(Role.USER, Role.ADMIN)
    create = create_user_request(email="gone@example.com", request_id=new_uuid())
    user = await world.call("CreateUser", create)
    change = users.UpdateUserRequest(id=user.id, display_name="Gone", request_id=new_uuid())
    await world.call("UpdateUser", change, token=admin)
    delete = users.DeleteUserRequest(id=user.id, request_id=new_uuid())
    for _ in range(2):
        await world.call("DeleteUser", delete, token=admin)
    await world.call("CreateUser", create)
    await world.call("UpdateUser", change, token=admin)


async def logins(world: World) -> None:
    """Refresh, reuse, end and outlive sessions, and guess passwords until the shop makes callers wait."""
    ada, bob = await world.person(), await world.person()
    login = sessions.CreateSessionRequest(email=f" {ada.email.upper()} ", password=PASSWORD)
    first = await world.call("CreateSession", login)
    first_refresh = sessions.RefreshSessionRequest(refresh_token=first.refresh_token)
    second = await world.call("RefreshSession", first_refresh)
    repeated = await world.call("RefreshSession", first_refresh, note="the answer was lost")
    assert second.refresh_token == repeated.refresh_token
    second_refresh = sessions.RefreshSessionRequest(refresh_token=second.refresh_token)
    third = await world.call("RefreshSession", second_refresh)
    await world.call("RefreshSession", first_refresh, note="its successor was used")
    await world.call("RefreshSession", sessions.RefreshSessionRequest(refresh_token=third.refresh_token))
    late = await world.call("CreateSession", login)
    late_refresh = sessions.RefreshSessionRequest(refresh_token=late.refresh_token)
    await world.call("RefreshSession", late_refresh)
    world.advance(timedelta(seconds=11))
    await world.call("RefreshSession", late_refresh, note="too late for a lost answer")
    for caller in (bob.token, ada.token, world.token(Role.USER, Role.ADMIN)):
        ended = await world.call("CreateSession", login)
        await world.call("DeleteSession", sessions.DeleteSessionRequest(id=ended.id), token=caller)
        await world.call("RefreshSession", sessions.RefreshSessionRequest(refresh_token=ended.refresh_token))
    old = await world.call("CreateSession", login)
    world.advance(timedelta(days=30))
    await world.call("RefreshSession", sessions.RefreshSessionRequest(refresh_token=old.refresh_token))
    for email in (ada.email, "nobody@example.com", "no email"):
        wrong = sessions.CreateSessionRequest(email=email, password="wrong")
        for attempt in range(6):
            await world.call("CreateSession", wrong, note=f"guess {attempt}")
    await world.call("CreateSession", login, note="the right one, too early")
    world.advance(timedelta(seconds=2))
    await world.call("CreateSession", login, note="the right one")


async def endings(world: World) -> None:
    """End sessions by a new password, which spares the calling one, and by a deletion."""
    ada = await world.person()
    admin = world.token(Role.USER, Role.ADMIN)
    login = sessions.CreateSessionRequest(email=ada.email, password=PASSWORD)
    own, other = [await world.call("CreateSession", login) for _ in range(2)]
    change = users.ChangePasswordRequest(id=ada.id, current_password=PASSWORD, new_password=OTHER_PASSWORD)
    await world.call("ChangePassword", change, token=own.access_token)
    for session in (own, other):
        refresh = sessions.RefreshSessionRequest(refresh_token=session.refresh_token)
        own = await world.call("RefreshSession", refresh) or own
    await world.call("CreateSession", login, note="with the old password")
    await world.call("DeleteUser", users.DeleteUserRequest(id=ada.id), token=admin)
    await world.call("RefreshSession", sessions.RefreshSessionRequest(refresh_token=own.refresh_token))
    await world.call("GetUser", users.GetUserRequest(id=ada.id), token=own.access_token)


SCENARIOS: Final = {
    each.__name__: each for each in (pages_of_users, etags_of_a_user, accounts, erasures, logins, endings)
}
