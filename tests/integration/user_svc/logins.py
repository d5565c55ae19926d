"""Logging in to the user service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from shop.user.v1 import session_service_pb2 as pb

from tests.support.requests import PASSWORD

if TYPE_CHECKING:
    from shop.user.v1.session_service_pb2_grpc import SessionServiceAsyncStub

EMAIL: Final = "ada@example.com"


async def log_in(sessions: SessionServiceAsyncStub, email: str = EMAIL, password: str = PASSWORD) -> pb.Session:
    return await sessions.CreateSession(pb.CreateSessionRequest(email=email, password=password))
