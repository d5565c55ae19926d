"""Access tokens and refresh tokens that the user service accepts and refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shop.user.v1 import session_service_pb2 as sessions_pb
from shop.user.v1 import user_service_pb2 as pb

from chassis.testing import SIGNER, bearer, refusal_of, token_of
from tests.support.requests import PASSWORD
from tests.support.tokens import corpus, reasons

if TYPE_CHECKING:
    from shop.user.v1.session_service_pb2_grpc import SessionServiceAsyncStub
    from shop.user.v1.user_pb2 import User
    from shop.user.v1.user_service_pb2_grpc import UserServiceAsyncStub


async def test_the_user_service_refuses_bad_tokens(users: UserServiceAsyncStub, ada: User) -> None:
    tokens = corpus(ada.id)

    refused = await reasons(lambda metadata: users.GetUser(pb.GetUserRequest(id=ada.id), metadata=metadata), tokens)

    assert len(tokens) > 80
    assert refused == dict.fromkeys(tokens, "TOKEN_INVALID")


async def test_a_refresh_token_is_no_access_token(
    users: UserServiceAsyncStub, sessions: SessionServiceAsyncStub, ada: User
) -> None:
    login = sessions_pb.CreateSessionRequest(email=ada.email, password=PASSWORD)
    session = await sessions.CreateSession(login)

    refusal = await refusal_of(users.GetUser(pb.GetUserRequest(id=ada.id), metadata=bearer(session.refresh_token)))

    assert refusal.reason == "TOKEN_INVALID"


async def test_an_access_token_is_no_refresh_token(sessions: SessionServiceAsyncStub, ada: User) -> None:
    request = sessions_pb.RefreshSessionRequest(refresh_token=token_of(ada.id))

    refusal = await refusal_of(sessions.RefreshSession(request))

    assert (refusal.reason, refusal.fields) == ("INVALID_FIELDS", ("refreshToken",))


async def test_a_public_method_ignores_the_token(sessions: SessionServiceAsyncStub) -> None:
    # A client that sends an expired token along must still get a new one.
    jwks = await sessions.GetJwks(sessions_pb.GetJwksRequest(), metadata=bearer("garbage"))

    assert [key.kid for key in jwks.keys] == [SIGNER.kid]
