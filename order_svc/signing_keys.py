"""The public keys of access tokens, as the user service publishes them."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from shop.user.v1.session_service_pb2 import GetJwksRequest
from shop.user.v1.session_service_pb2_grpc import SessionServiceStub

if TYPE_CHECKING:
    from grpc import aio

    from chassis.auth.remote_keys import FetchKeys


def keys_of_user_service(channel: aio.Channel) -> FetchKeys:
    """Return what asks the user service for its keys, over the channel."""
    stub = SessionServiceStub(channel)

    async def fetch(*, timeout_s: float, wait_for_ready: bool) -> dict[str, bytes]:
        jwks = await stub.GetJwks(GetJwksRequest(), timeout=timeout_s, wait_for_ready=wait_for_ready)
        return {key.kid: base64.urlsafe_b64decode(key.x + "=") for key in jwks.keys}

    return fetch
