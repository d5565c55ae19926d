"""For the tests of any service: a server on a free port, a clock to set, tokens, refusals to read.

No service imports this.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, cast

import grpc
import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.rpc import error_details_pb2
from google.rpc.status_pb2 import Status
from grpc import aio
from typing_extensions import override

from chassis.auth.access_tokens import TokenSettings
from chassis.auth.claims import ALGORITHM, TYPE, Claims
from chassis.client.errors import detail_of
from chassis.client.interceptors import AioStreamDefaults
from chassis.context import Role
from chassis.server.settings import ServerSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
    from datetime import timedelta

    from chassis.server.server import Server

LOOPBACK: Final = "127.0.0.1"


class ManualClock:
    """A clock that a test advances. It begins with the current time."""

    def __init__(self) -> None:
        self._now = datetime.now(UTC)

    def now(self) -> datetime:
        """Return the time that was set, aware, in UTC."""
        return self._now

    def advance(self, by: timedelta) -> None:
        """Let time pass."""
        self._now += by


def server_settings(**changes: Any) -> ServerSettings:
    """Return settings of a server that only this machine reaches and that stops as soon as its last call is done."""
    return ServerSettings(**{"host": LOOPBACK, "drain_s": 0, "stop_grace_s": 5, **changes})


@contextlib.asynccontextmanager
async def serving(server: Server, *, port: int = 0) -> AsyncIterator[str]:
    """Serve on the port, or on any free one, while the block runs; yield the address, as host:port."""
    bound = await server.start(port=port)
    try:
        yield f"{LOOPBACK}:{bound}"
    finally:
        await server.stop()


class Signer:
    """Makes access tokens, with a key that a test has put where the services look."""

    def __init__(self) -> None:
        self.kid = "test"
        self.private = Ed25519PrivateKey.generate()

    def token(self, *, subject: str = "", roles: Sequence[Role] = (Role.USER,), **changes: Any) -> str:
        """Return an access token with these roles, valid for an hour; `changes` are other claims."""
        claims = Claims(
            subject=uuid.UUID(subject or new_uuid()),
            session_id=uuid.uuid4(),
            roles=tuple(roles),
            token_id=uuid.uuid4(),
            issued_at_s=int(time.time()),
            lifetime_s=3600,
        )
        payload = {**claims.payload(TokenSettings()), **changes}
        return jwt.encode(payload, self.private, algorithm=ALGORITHM, headers={"kid": self.kid, "typ": TYPE})


SIGNER: Final = Signer()


def token_of(user_id: str) -> str:
    """Return an access token of a user."""
    return SIGNER.token(subject=user_id)


def admins_token() -> str:
    """Return an access token of an admin."""
    return SIGNER.token(roles=(Role.USER, Role.ADMIN))


def services_token() -> str:
    """Return an access token that stands for the certificate of another service, where there is no TLS."""
    return SIGNER.token(roles=(Role.SERVICE,))


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    """Return the metadata of one call by another caller than the channel's."""
    return (("authorization", f"Bearer {token}"),)


class _Bearer(aio.UnaryUnaryClientInterceptor):
    def __init__(self, token: str) -> None:
        self._token = token

    @override
    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        metadata = aio.Metadata(*(client_call_details.metadata or ()))
        if metadata.get("authorization") is None:
            metadata["authorization"] = f"Bearer {self._token}"
        return await continuation(client_call_details._replace(metadata=metadata), request)


def plain_channel(address: str, *, token: str | None = None) -> aio.Channel:
    """Return a channel that does nothing of its own: no retries, no deadlines, no request ids.

    Without an access token the caller is an admin; with an empty one, anonymous.
    """
    options = [("grpc.enable_http_proxy", 0), ("grpc.enable_retries", 0), ("grpc.max_reconnect_backoff_ms", 200)]
    bearer = admins_token() if token is None else token
    interceptors: list[aio.ClientInterceptor] = [_Bearer(bearer), AioStreamDefaults(bearer)] if bearer else []
    return aio.insecure_channel(address, options=options, interceptors=interceptors)


def new_uuid() -> str:
    """Return an id that nothing has yet."""
    return str(uuid.uuid4())


async def until(holds: Callable[[], Awaitable[bool]], *, timeout_s: float = 10) -> None:
    """Return once the condition holds.

    Raises:
        TimeoutError: it did not in this time.
    """
    async with asyncio.timeout(timeout_s):
        while not await holds():  # noqa: ASYNC110  what is waited for has no event
            await asyncio.sleep(0.01)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """An error as its caller sees it.

    Attributes:
        fields: the fields that a BadRequest names.
        retry_after_s: of the RetryInfo; None without one.
        retry_after_header: the trailer that REST callers see as Retry-After; None without one.
    """

    code: grpc.StatusCode
    message: str
    domain: str
    reason: str
    metadata: dict[str, str]
    fields: tuple[str, ...]
    retry_after_s: float | None
    retry_after_header: str | None
    status: Status


def refusal_from(error: grpc.RpcError) -> Refusal:
    """Return why the call failed.

    Raises:
        AssertionError: the error has no ErrorInfo, so it is none of ours.
    """
    # The trailers are pairs, whatever grpcio's types say.
    trailers = dict(cast("Iterable[tuple[str, Any]]", error.trailing_metadata() or ()))
    status = Status.FromString(trailers.get("grpc-status-details-bin", b""))
    info = detail_of(status, error_details_pb2.ErrorInfo)
    assert info is not None, f"no ErrorInfo: {error}"  # noqa: S101  this is for tests
    bad_request = detail_of(status, error_details_pb2.BadRequest)
    retry = detail_of(status, error_details_pb2.RetryInfo)
    return Refusal(
        code=error.code(),
        message=error.details() or "",
        domain=info.domain,
        reason=info.reason,
        metadata=dict(info.metadata),
        fields=tuple(each.field for each in bad_request.field_violations) if bad_request else (),
        retry_after_s=retry.retry_delay.ToNanoseconds() / 1e9 if retry else None,
        retry_after_header=trailers.get("retry-after"),
        status=status,
    )


async def refusal_of(call: Awaitable[object]) -> Refusal:
    """Return why the call failed.

    Raises:
        AssertionError: it did not, or its error is none of ours.
    """
    try:
        answer = await call
    except aio.AioRpcError as error:
        return refusal_from(error)
    raise AssertionError(f"answered instead of refused: {answer}")
