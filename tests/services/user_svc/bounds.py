"""Requests about users at the bounds of the contract: the last that are accepted and the first that are refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from shop.user.v1 import session_service_pb2 as session_pb
from shop.user.v1 import user_pb2
from shop.user.v1 import user_service_pb2 as user_pb

from tests.support.builders import SOME_ID
from tests.support.requests import create_user_request

if TYPE_CHECKING:
    from google.protobuf.message import Message


def change_password(*, current: str = "old", new: str = "n" * 8) -> user_pb.ChangePasswordRequest:
    return user_pb.ChangePasswordRequest(id=SOME_ID, current_password=current, new_password=new)


def update_user(**changes: str) -> user_pb.UpdateUserRequest:
    return user_pb.UpdateUserRequest(id=SOME_ID, **changes)


ACCEPTED: Final[list[Message]] = [
    create_user_request(),
    create_user_request(password="p"),  # how many characters it needs, the service says
    # 128 characters in NFC, if each is as long in NFD as a character can be; the service counts them.
    create_user_request(password="p" * 512),
    create_user_request(password="é" * 512),
    create_user_request(email="a@b"),  # whether it is an address, the service says
    create_user_request(email="a" * 254),
    create_user_request(display_name="n" * 100),
    create_user_request(display_name=" n "),
    create_user_request(request_id=SOME_ID),
    create_user_request(request_id=SOME_ID.upper()),
    user_pb.GetUserRequest(id=SOME_ID),
    user_pb.BatchGetUsersRequest(ids=[SOME_ID]),
    user_pb.BatchGetUsersRequest(ids=[SOME_ID] * 200),
    user_pb.ListUsersRequest(),
    user_pb.ListUsersRequest(page_size=2**31 - 1),
    user_pb.ListUsersRequest(page_token="t" * 512),
    user_pb.ListUsersRequest(state=user_pb2.USER_STATE_DELETED),
    update_user(),
    update_user(email="a" * 254),
    update_user(display_name="n" * 100),
    update_user(etag="e" * 64),
    change_password(current="o", new="n"),
    change_password(current="o" * 512, new="n" * 512),
    update_user(current_password="o" * 512),
    user_pb.DeleteUserRequest(id=SOME_ID, current_password="o" * 512),
    session_pb.CreateSessionRequest(email="e" * 1016, password="p" * 512),
    user_pb.DeleteUserRequest(id=SOME_ID, etag="e" * 64),
]

REFUSED: Final[list[tuple[Message, str, str]]] = [
    (create_user_request(password=""), "password", "required"),
    (create_user_request(password="p" * 513), "password", "string.max_len"),
    (create_user_request(email="ab"), "email", "string.min_len"),
    (create_user_request(email="a" * 255), "email", "string.max_len"),
    (create_user_request(email="a\0@b.example"), "email", "string.no_nul"),
    (create_user_request(display_name=""), "displayName", "string.not_blank"),
    (create_user_request(display_name=" \t\n"), "displayName", "string.not_blank"),
    (create_user_request(display_name="n" * 101), "displayName", "string.max_len"),
    (create_user_request(display_name="n\0"), "displayName", "string.no_nul"),
    (create_user_request(request_id="1"), "requestId", "string.uuid"),
    (user_pb.GetUserRequest(), "id", "string.uuid_empty"),
    (user_pb.GetUserRequest(id=SOME_ID + "\n"), "id", "string.uuid"),
    (user_pb.GetUserRequest(id=SOME_ID[:-1]), "id", "string.uuid"),
    (user_pb.GetUserRequest(id="{" + SOME_ID + "}"), "id", "string.uuid"),
    (user_pb.BatchGetUsersRequest(), "ids", "repeated.min_items"),
    (user_pb.BatchGetUsersRequest(ids=[SOME_ID] * 201), "ids", "repeated.max_items"),
    (user_pb.BatchGetUsersRequest(ids=[SOME_ID, "1"]), "ids[1]", "string.uuid"),
    (user_pb.ListUsersRequest(page_size=-1), "pageSize", "int32.gte"),
    (user_pb.ListUsersRequest(page_token="t" * 513), "pageToken", "string.max_len"),
    (user_pb.ListUsersRequest(email="a" * 255), "email", "string.max_len"),
    (user_pb.ListUsersRequest(state=99), "state", "enum.defined_only"),
    (update_user(email=""), "email", "string.min_len"),
    (update_user(display_name=""), "displayName", "string.not_blank"),
    (update_user(etag="e" * 65), "etag", "string.max_len"),
    (change_password(current=""), "currentPassword", "string.min_len"),
    (change_password(current="o" * 513), "currentPassword", "string.max_len"),
    (change_password(new=""), "newPassword", "required"),
    (change_password(new="n" * 513), "newPassword", "string.max_len"),
    (update_user(current_password="o" * 513), "currentPassword", "string.max_len"),
    (user_pb.DeleteUserRequest(id=SOME_ID, current_password="o" * 513), "currentPassword", "string.max_len"),
    (session_pb.CreateSessionRequest(email="e" * 1017, password="p"), "email", "string.max_len"),
    (session_pb.CreateSessionRequest(email="e", password="p" * 513), "password", "string.max_len"),
]
