"""Sessions of a client: they log in, and renew their tokens in time.

A refresh token works once, so a renewal is made by one caller and awaited by all others. If the answer of a renewal is
lost, the next one sends the same refresh token: within 10 s the shop returns the same successor, later it ends the
session, and the client logs in again.
"""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Final

from shop.user.v1.session_service_pb2 import CreateSessionRequest, RefreshSessionRequest, Session
from shop.user.v1.session_service_pb2_grpc import SessionServiceStub

from protos.client.errors import ShopError

if TYPE_CHECKING:
    import grpc
    from grpc import aio
    from shop.user.v1.session_service_pb2_grpc import SessionServiceAsyncStub

    from protos.client.credentials import Login

# A token is renewed when it has this much of its time left, but at most 60 s: the longest that a call may take.
_MARGIN: Final = 0.25
_LONGEST_MARGIN_S: Final = 60.0
# A machine whose clock is ahead believes that every token has expired. It must not renew one for each call.
_SHORTEST_USE_S: Final = 5.0


class _Tokens:
    """The tokens of one session, and when to renew them."""

    def __init__(self, login: Login) -> None:
        self._login = login
        self._session: Session | None = None
        self._renew_at_s = 0.0
        self._expires_at_s = 0.0

    def usable(self) -> str:
        """Return an access token that need not be renewed yet; empty without one."""
        return self._token_until(self._renew_at_s)

    def unexpired(self) -> str:
        """Return an access token that should be renewed, and still works; empty without one."""
        return self._token_until(self._expires_at_s)

    def _token_until(self, time_s: float) -> str:
        return "" if self._session is None or time.monotonic() >= time_s else self._session.access_token

    def refuse(self, token: str) -> None:
        """Do not use this access token again. If it is not the current one, it has been renewed already."""
        if self._session is not None and self._session.access_token == token:
            self._renew_at_s = self._expires_at_s = 0.0

    def renewal(self) -> RefreshSessionRequest | None:
        """Return the request that renews the tokens; None without a session."""
        return None if self._session is None else RefreshSessionRequest(refresh_token=self._session.refresh_token)

    def log_in(self) -> CreateSessionRequest:
        """Return the request that begins a session."""
        return CreateSessionRequest(email=self._login.email, password=self._login.password)

    def keep(self, session: Session) -> str:
        """Keep the tokens of an answer; return the access token."""
        expires_at_s = session.access_expires_at.ToNanoseconds() / 1e9
        lifetime_s = max(expires_at_s - time.time(), 0)
        use_s = lifetime_s - min(lifetime_s * _MARGIN, _LONGEST_MARGIN_S)
        self._session = session
        self._renew_at_s = time.monotonic() + max(use_s, _SHORTEST_USE_S)
        self._expires_at_s = time.monotonic() + lifetime_s
        return session.access_token

    def end(self) -> None:
        """Forget the session, which the shop has ended."""
        self._session = None


class AioSession:
    """The session of a channel of grpc.aio, which is open_on() before the first call."""

    _stub: SessionServiceAsyncStub

    def __init__(self, login: Login) -> None:
        self._tokens: Final = _Tokens(login)
        self._renewing: asyncio.Task[str] | None = None

    def open_on(self, channel: aio.Channel) -> None:
        """Log in over this channel."""
        self._stub = SessionServiceStub(channel)

    def refuse(self, token: str) -> None:
        """Do not use this access token again, with which a call was refused."""
        self._tokens.refuse(token)

    async def token(self) -> str:
        """Return an access token.

        Raises:
            ShopError: the user cannot log in, or the shop does not answer.
        """
        if token := self._tokens.usable():
            return token
        if self._renewing is None or self._renewing.done():
            self._renewing = asyncio.create_task(self._renew())
            self._renewing.add_done_callback(_retrieve)
        # A caller that leaves must not take the answer, with the next refresh token, from the others.
        return await asyncio.shield(self._renewing)

    async def _renew(self) -> str:
        renewal = self._tokens.renewal()
        if renewal is not None:
            try:
                return self._tokens.keep(await self._stub.RefreshSession(renewal))
            except ShopError as error:
                if error.may_pass and (token := self._tokens.unexpired()):
                    return token
                if error.may_pass:
                    raise
                self._tokens.end()
        return self._tokens.keep(await self._stub.CreateSession(self._tokens.log_in()))


def _retrieve(renewing: asyncio.Task[str]) -> None:
    """Take the error of a renewal whose callers have all left, about which asyncio would complain."""
    if not renewing.cancelled():
        renewing.exception()


class SyncSession:
    """The session of a channel without asyncio, as AioSession."""

    _stub: SessionServiceStub

    def __init__(self, login: Login) -> None:
        self._tokens: Final = _Tokens(login)
        self._lock: Final = threading.Lock()

    def open_on(self, channel: grpc.Channel) -> None:
        """Log in over this channel."""
        self._stub = SessionServiceStub(channel)

    def refuse(self, token: str) -> None:
        """Do not use this access token again, with which a call was refused."""
        with self._lock:
            self._tokens.refuse(token)

    def token(self) -> str:
        """Return an access token, as AioSession.token() does."""
        with self._lock:  # callers that wait for it get the token that the first one renews
            return self._tokens.usable() or self._renew()

    def _renew(self) -> str:
        renewal = self._tokens.renewal()
        if renewal is not None:
            try:
                return self._tokens.keep(self._stub.RefreshSession(renewal))
            except ShopError as error:
                if error.may_pass and (token := self._tokens.unexpired()):
                    return token
                if error.may_pass:
                    raise
                self._tokens.end()
        return self._tokens.keep(self._stub.CreateSession(self._tokens.log_in()))
