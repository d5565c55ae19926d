"""The access tokens of a shop in memory."""

from __future__ import annotations

import dataclasses
import secrets
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final, cast

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from chassis.auth.claims import ALGORITHM, TYPE, Claims
from chassis.clock import new_id
from chassis.context import Caller, Role
from chassis.errors import TokenExpired, TokenInvalid

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from chassis.auth.access_tokens import TokenSettings
    from protos.testing.shop import Shop

LEEWAY: Final = timedelta(seconds=5)
"""How long a token is taken after it has expired: the default of the user service."""


@dataclass(frozen=True, slots=True)
class _TokenSettings:
    issuer: str = "https://shop.local"
    audience: str = "shop"
    client_id: str = "shop"


@dataclass(frozen=True, slots=True)
class _Key:
    kid: str
    public: Ed25519PublicKey


class TokensInMemory:
    """Issues access tokens and knows them again. They are signed: an app may verify them with the keys of GetJwks."""

    def __init__(self, shop: Shop) -> None:
        self._clock = shop.clock
        self._private = Ed25519PrivateKey.generate()
        self._key = _Key(secrets.token_hex(8), self._private.public_key())
        self._issued: dict[str, tuple[Caller, datetime]] = {}

    def issue(self, subject: UUID, *, roles: Sequence[Role], session_id: UUID, lifetime: timedelta) -> str:
        """Return a new token, which expires by the clock."""
        now = self._clock.now()
        claims = Claims(
            subject=subject,
            session_id=session_id,
            roles=tuple(roles),
            token_id=new_id(),
            issued_at_s=int(now.timestamp()),
            lifetime_s=round(lifetime.total_seconds()),
        )
        header = {"kid": self._key.kid, "typ": TYPE}
        payload = claims.payload(cast("TokenSettings", _TokenSettings()))
        token = jwt.encode(payload, self._private, algorithm=ALGORITHM, headers=header)
        caller = Caller(subject=str(subject), session_id=str(session_id), roles=frozenset(roles))
        self._issued[token] = (caller, now + lifetime)
        return token

    async def caller(self, token: str) -> Caller:
        """Return the caller that a token identifies.

        Raises:
            TokenExpired: the token was valid and has expired.
            TokenInvalid: the token is not one of this shop's.
        """
        if token not in self._issued:
            raise TokenInvalid
        caller, expires_at = self._issued[token]
        left = expires_at + LEEWAY - self._clock.now()
        if left <= timedelta(0):
            raise TokenExpired
        return dataclasses.replace(caller, expires_at_s=time.time() + left.total_seconds())

    async def published(self) -> Sequence[_Key]:
        """Return the keys that tokens can be verified with."""
        return [self._key]
