"""SessionService over gRPC: messages to the model and back, nothing else."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any
from uuid import UUID

from google.protobuf.empty_pb2 import Empty
from shop.user.v1 import session_service_pb2 as pb
from shop.user.v1.session_service_pb2_grpc import SessionServiceServicer
from typing_extensions import override

from chassis.context import current_owner
from chassis.server.conversions import set_timestamp
from user_svc.model import UserId
from user_svc.sessions.model import SessionId

if TYPE_CHECKING:
    from grpc import aio

    from user_svc.keys import SigningKey, SigningKeys
    from user_svc.sessions.model import LoggedIn
    from user_svc.sessions.service import SessionService

    Context = aio.ServicerContext[Any, Any]


class SessionServicer(SessionServiceServicer):
    """Answers SessionService."""

    def __init__(self, service: SessionService, keys: SigningKeys) -> None:
        self._service = service
        self._keys = keys

    @override
    async def CreateSession(self, request: pb.CreateSessionRequest, context: Context) -> pb.Session:
        return _to_message(await self._service.log_in(email=request.email, password=request.password))

    @override
    async def RefreshSession(self, request: pb.RefreshSessionRequest, context: Context) -> pb.Session:
        return _to_message(await self._service.refresh(request.refresh_token))

    @override
    async def DeleteSession(self, request: pb.DeleteSessionRequest, context: Context) -> Empty:
        owned_by = current_owner()
        await self._service.log_out(SessionId(UUID(request.id)), owner=UserId(owned_by) if owned_by else None)
        return Empty()

    @override
    async def GetJwks(self, request: pb.GetJwksRequest, context: Context) -> pb.Jwks:
        return pb.Jwks(keys=[_to_jwk(key) for key in await self._keys.published()])


def _to_message(logged_in: LoggedIn) -> pb.Session:
    session = logged_in.session
    message = pb.Session(
        id=str(session.id),
        user_id=str(session.user_id),
        access_token=logged_in.access_token,
        refresh_token=logged_in.refresh_token,
    )
    set_timestamp(message.access_expires_at, logged_in.access_expires_at)
    set_timestamp(message.expires_at, session.expires_at)
    return message


def _to_jwk(key: SigningKey) -> pb.Jwk:
    x = base64.urlsafe_b64encode(key.public.public_bytes_raw()).decode().rstrip("=")
    return pb.Jwk(kty="OKP", crv="Ed25519", kid=key.kid, use="sig", alg="EdDSA", x=x)
