"""How the reasons of the user service for refusing a call come about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from shop.user.v1 import session_service_pb2 as sessions
from shop.user.v1 import user_service_pb2 as users

from chassis.testing import new_uuid
from tests.e2e.contract import BY_NAME
from tests.e2e.scenarios import produces
from tests.support.requests import create_user_request

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from tests.e2e.callers import Outcome
    from tests.e2e.world import World

USER: Final = "shop.user.v1"


@produces(USER, "EMAIL_TAKEN", fields=("email",))
def an_email_is_taken(world: World) -> list[Outcome]:
    taken = world.user().email.upper()

    return [
        *world.both("CreateUser", create_user_request(email=taken)),
        *world.both("UpdateUser", users.UpdateUserRequest(id=world.user().id, email=taken)),
    ]


@produces(USER, "USER_NOT_ACTIVE")
def a_deleted_user_is_to_change(world: World) -> list[Outcome]:
    return world.both("UpdateUser", users.UpdateUserRequest(id=world.deleted_user(), display_name="Eve"))


@produces(USER, "INVALID_CREDENTIALS")
def a_password_is_wrong(world: World) -> list[Outcome]:
    return world.both(
        "ChangePassword",
        users.ChangePasswordRequest(id=world.owner(), current_password="guessed", new_password="a brand new password"),
    )


@produces(USER, "TOO_MANY_ATTEMPTS")
def passwords_are_guessed(world: World) -> list[Outcome]:
    guess = sessions.CreateSessionRequest(email=f"{new_uuid()}@example.com", password="guessed")
    for _ in range(6):
        world.both("CreateSession", guess)

    return world.both("CreateSession", guess)


@produces(USER, "TOKEN_REUSED")
def a_refresh_token_is_used_again(world: World) -> list[Outcome]:
    rpc = BY_NAME["RefreshSession"]

    def used_twice() -> Message:
        request = world.request("RefreshSession")
        answer = world.edge.grpc(rpc, request)
        # Use of the successor shows that the answer had arrived.
        world.edge.grpc(rpc, sessions.RefreshSessionRequest(refresh_token=answer.body["refreshToken"]))
        return request

    return [world.both("RefreshSession", used_twice())[0], world.edge.grpc(rpc, used_twice())]
