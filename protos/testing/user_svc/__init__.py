"""The user service in memory: users, their sessions, the access tokens of every caller."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from shop.user.v1.session_service_pb2 import CreateSessionRequest, RefreshSessionRequest
from shop.user.v1.session_service_pb2_grpc import add_SessionServiceServicer_to_server
from shop.user.v1.user_service_pb2_grpc import add_UserServiceServicer_to_server

from chassis.errors import TokenExpired, TokenInvalid
from protos.testing.tokens import TokensInMemory
from protos.testing.user_svc.sessions import SessionsInMemory
from protos.testing.user_svc.users import UsersInMemory
from user_svc.errors import InvalidCredentials, LoginRefused, RefreshTokenInvalid, SessionOver
from user_svc.rpc import UserServicer
from user_svc.sessions.rpc import SessionServicer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from chassis.errors import DomainError
    from protos.testing.shop import Shop


def serve(shop: Shop) -> None:
    """Serve UserService and SessionService."""
    users, sessions, tokens = shop.part(UsersInMemory), shop.part(SessionsInMemory), shop.part(TokensInMemory)
    shop.users = users
    shop.serve(add_UserServiceServicer_to_server, UserServicer(cast("Any", users), shop.clock))
    shop.serve(add_SessionServiceServicer_to_server, SessionServicer(cast("Any", sessions), cast("Any", tokens)))


REFUSALS: Final[Mapping[type[DomainError], Callable[[Any], DomainError]]] = {
    InvalidCredentials: lambda request: (LoginRefused if _is_login(request) else InvalidCredentials)(),
    TokenExpired: lambda request: (SessionOver if _is_refresh(request) else TokenExpired)(),
    TokenInvalid: lambda request: (RefreshTokenInvalid if _is_refresh(request) else TokenInvalid)(),
}
"""For ShopServer.refuse(): makes the refusal of a log-in or of a refresh, which other calls have with other words."""


def _is_login(request: object) -> bool:
    return isinstance(request, CreateSessionRequest)


def _is_refresh(request: object) -> bool:
    return isinstance(request, RefreshSessionRequest)
