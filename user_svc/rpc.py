"""UserService over gRPC: messages to the model and back, nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast
from uuid import UUID

from google.protobuf.empty_pb2 import Empty
from shop.system.v1 import access_pb2
from shop.user.v1 import user_pb2
from shop.user.v1 import user_service_pb2 as pb
from shop.user.v1.user_service_pb2_grpc import UserServiceServicer
from typing_extensions import override

from chassis import context
from chassis.context import Role
from chassis.errors import InvalidFields
from chassis.idempotency.key import IdempotencyKey, key_of
from chassis.server.conversions import set_timestamp, struct_to_dict
from chassis.server.large_messages import LargeMessages
from chassis.server.pagination import ListRequest, messages_of
from user_svc.commands import NewUser, PasswordChange, UserChange, UserDeletion
from user_svc.model import (
    MAX_DISPLAY_NAME,
    MAX_PROFILE_BYTES,
    Email,
    User,
    UserId,
    UserState,
    has_many_values,
    profile_too_large,
)
from user_svc.sessions.model import SessionId
from user_svc.text import typed

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from google.protobuf.struct_pb2 import Struct
    from grpc import aio

    from chassis.clock import Clock
    from user_svc.service import UserService

    Context = aio.ServicerContext[Any, Any]

_STATES = {state: user_pb2.UserState.Value(f"USER_STATE_{state}") for state in UserState}
_STATES_BACK = {message: state for state, message in _STATES.items()}
_ROLES = {role: access_pb2.Role.Value(f"ROLE_{role}") for role in Role}

# A number that takes two bytes of JSON, `1,`, takes eleven of a message; everything else grows less.
_MAX_PROFILE_MESSAGE_BYTES: Final = 6 * MAX_PROFILE_BYTES

# Of users asked for by their ids, who have no pages. Below the 4 MiB that gRPC clients take, with room for the ids that
# do not exist. 200 profiles of 16 KiB fit, unless they are full of numbers.
_MAX_BATCH_BYTES: Final = 4_000_000


class UserServicer(UserServiceServicer):
    """Answers UserService."""

    def __init__(self, service: UserService, clock: Clock) -> None:
        self._service = service
        self._clock = clock
        self._large_messages = LargeMessages()

    @override
    async def CreateUser(self, request: pb.CreateUserRequest, context: Context) -> user_pb2.User:
        new = NewUser(
            email=Email.parse(request.email),
            password=request.password,
            display_name=_display_name(request.display_name),
            profile=_profile(request.profile),
        )
        return await self._shown(await self._service.create_user(new, key=self._key(request)))

    @override
    async def GetUser(self, request: pb.GetUserRequest, context: Context) -> user_pb2.User:
        return await self._shown(await self._service.get_user(_user_id(request.id), owner=_owner()))

    @override
    async def BatchGetUsers(self, request: pb.BatchGetUsersRequest, context: Context) -> pb.BatchGetUsersResponse:
        wanted = dict.fromkeys(_user_id(each) for each in request.ids)
        if request.view == user_pb2.USER_VIEW_STATE:
            states = await self._service.get_states(wanted)
            return pb.BatchGetUsersResponse(
                users=[user_pb2.User(id=str(each), state=_STATES[states[each]]) for each in wanted if each in states],
                missing_ids=[str(each) for each in wanted if each not in states],
            )
        users = await self._service.get_users(list(wanted))
        found = {user.id for user in users}
        shown = await messages_of(users, _to_message, max_bytes=_MAX_BATCH_BYTES)
        if len(shown) < len(users):
            message = f"belong to users who take over {_MAX_BATCH_BYTES} bytes: ask for fewer at a time"
            raise InvalidFields.of("ids", message, "ids.size")
        return pb.BatchGetUsersResponse(
            users=shown,
            missing_ids=[str(user_id) for user_id in wanted if user_id not in found],
        )

    @override
    async def ListUsers(self, request: pb.ListUsersRequest, context: Context) -> pb.ListUsersResponse:
        email = Email.parse(request.email) if request.email else None
        state = _STATES_BACK.get(request.state)
        listing = ListRequest(request, now=self._clock.now())
        found = await self._service.list_users(listing.page, email=email, state=state)
        users, next_page_token = await listing.answer(found, _to_message)
        return pb.ListUsersResponse(users=users, next_page_token=next_page_token)

    @override
    async def UpdateUser(self, request: pb.UpdateUserRequest, context: Context) -> user_pb2.User:
        has = request.HasField
        change = UserChange(
            user_id=_user_id(request.id),
            email=Email.parse(request.email) if has("email") else None,
            display_name=_display_name(request.display_name) if has("display_name") else None,
            profile=_profile(request.profile) if has("profile") else None,
            etag=request.etag,
            current_password=request.current_password,
        )
        return await self._shown(await self._service.update_user(change, owner=_owner(), key=self._key(request)))

    @override
    async def ChangePassword(self, request: pb.ChangePasswordRequest, context: Context) -> user_pb2.User:
        change = PasswordChange(
            user_id=_user_id(request.id),
            current=request.current_password,
            new=request.new_password,
            session_id=_own_session(),
        )
        return await self._shown(await self._service.change_password(change, owner=_owner(), key=self._key(request)))

    @override
    async def DeleteUser(self, request: pb.DeleteUserRequest, context: Context) -> Empty:
        deletion = UserDeletion(
            user_id=_user_id(request.id),
            etag=request.etag,
            current_password=request.current_password,
        )
        await self._service.delete_user(deletion, owner=_owner(), key=self._key(request))
        return Empty()

    async def _shown(self, user: User) -> user_pb2.User:
        # A small message does not wait behind large ones.
        if user.profile is None or not has_many_values(user.profile):
            return _to_message(user)
        return await self._large_messages.make(_to_message, user)

    def _key(self, request: Message) -> IdempotencyKey:
        return key_of(request, now=self._clock.now())


def _display_name(text: str) -> str:
    return typed(text, field="displayName", max_length=MAX_DISPLAY_NAME)


def _user_id(text: str) -> UserId:
    return UserId(UUID(text))


def _owner() -> UserId | None:
    owner = context.current_owner()
    return UserId(owner) if owner else None


def _own_session() -> SessionId | None:
    call = context.current_call()
    return SessionId(UUID(call.caller.session_id)) if call and call.caller.session_id else None


def _profile(struct: Struct) -> dict[str, object]:
    # Checked first: turning a megabyte into objects would block every other call.
    if struct.ByteSize() > _MAX_PROFILE_MESSAGE_BYTES:
        raise profile_too_large()
    return struct_to_dict(struct, field="profile")


def _to_message(user: User) -> user_pb2.User:
    message = user_pb2.User(
        id=str(user.id),
        email=user.email.text if user.email else "",
        display_name=user.display_name,
        state=_STATES[user.state],
        roles=[_ROLES[role] for role in user.roles],
        etag=user.etag,
        order_count=user.order_count,
    )
    if user.profile is not None:
        message.profile.SetInParent()  # an empty one is not an absent one
        message.profile.update(cast("dict[str, Any]", user.profile))
    set_timestamp(message.created_at, user.created_at)
    set_timestamp(message.updated_at, user.updated_at)
    return message
