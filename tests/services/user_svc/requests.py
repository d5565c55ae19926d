"""Requests that the user service answers with success."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from shop.user.v1 import session_service_pb2 as sessions
from shop.user.v1 import user_service_pb2 as users
from shop.user.v1.session_service_pb2_grpc import SessionServiceStub

from chassis.testing import new_uuid
from tests.support.requests import PASSWORD, create_user_request

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from google.protobuf.message import Message

    from tests.e2e.world import World
    from tests.support.access_table import Subject


def _update_user(world: World) -> Message:
    user = world.user()
    return users.UpdateUserRequest(
        id=user.id, email=f"eve-{new_uuid()}@example.com", display_name="Eve", etag=user.etag, request_id=new_uuid()
    )


def _change_password(world: World) -> Message:
    return users.ChangePasswordRequest(
        id=world.owner(), current_password=PASSWORD, new_password=PASSWORD + "!", request_id=new_uuid()
    )


def _create_session(world: World) -> Message:
    return sessions.CreateSessionRequest(email=world.user().email, password=PASSWORD)


def _refresh_session(world: World) -> Message:
    session = SessionServiceStub(world.edge.channel).CreateSession(_create_session(world), timeout=10)
    return sessions.RefreshSessionRequest(refresh_token=session.refresh_token)


def _create_user(_world: World) -> Message:
    request = create_user_request(display_name="Žofie 👩🏽", request_id=new_uuid())
    request.profile.update({"theme": "dark", "sizes": [1, 2.5, None, True], "deep": {"er": {}}})
    return request


def _list_users(world: World) -> Message:
    return users.ListUsersRequest(page_size=2, email=world.user().email, state=cast("Any", 1))


def _batch_get_users(world: World) -> Message:
    return users.BatchGetUsersRequest(ids=[new_uuid(), world.user().id, world.deleted_user()])


REQUESTS: Final[Mapping[str, Callable[[World], Message]]] = {
    "CreateUser": _create_user,
    "GetUser": lambda world: users.GetUserRequest(id=world.user().id),
    "BatchGetUsers": _batch_get_users,
    "ListUsers": _list_users,
    "UpdateUser": _update_user,
    "ChangePassword": _change_password,
    # As an admin, who needs no password: a DELETE has no place for one.
    "DeleteUser": lambda world: users.DeleteUserRequest(id=world.user().id, request_id=new_uuid()),
    "CreateSession": _create_session,
    "RefreshSession": _refresh_session,
    "DeleteSession": lambda _world: sessions.DeleteSessionRequest(id=new_uuid()),
    "GetJwks": lambda _world: sessions.GetJwksRequest(),
}

OF_SUBJECT: Final[Mapping[str, Callable[[Subject], Message]]] = {
    "shop.user.v1.UserService.CreateUser": lambda _: create_user_request(),
    "shop.user.v1.UserService.GetUser": lambda subject: users.GetUserRequest(id=subject.owner.id),
    "shop.user.v1.UserService.BatchGetUsers": lambda subject: users.BatchGetUsersRequest(ids=[subject.owner.id]),
    "shop.user.v1.UserService.ListUsers": lambda _: users.ListUsersRequest(),
    "shop.user.v1.UserService.UpdateUser": lambda subject: users.UpdateUserRequest(
        id=subject.owner.id, display_name="Eve was here"
    ),
    "shop.user.v1.UserService.ChangePassword": lambda subject: users.ChangePasswordRequest(
        id=subject.owner.id, current_password=PASSWORD, new_password="another horse battery"
    ),
    "shop.user.v1.UserService.DeleteUser": lambda subject: users.DeleteUserRequest(
        id=subject.owner.id, current_password=PASSWORD
    ),
    "shop.user.v1.SessionService.CreateSession": lambda subject: sessions.CreateSessionRequest(
        email=subject.owner.email, password=PASSWORD
    ),
    "shop.user.v1.SessionService.RefreshSession": lambda subject: sessions.RefreshSessionRequest(
        refresh_token=subject.session.refresh_token
    ),
    "shop.user.v1.SessionService.DeleteSession": lambda subject: sessions.DeleteSessionRequest(id=subject.session.id),
    "shop.user.v1.SessionService.GetJwks": lambda _: sessions.GetJwksRequest(),
}
