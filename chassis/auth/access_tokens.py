"""Access tokens: JWTs (RFC 7519) in the profile of RFC 9068, signed with EdDSA (RFC 8037).

The user service signs them. The edge verifies them, and every service verifies them again, because a token may also
reach a service by another way than the edge.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, cast
from uuid import UUID

import jwt

from chassis.auth.claims import ALGORITHM, TYPE
from chassis.context import Caller, Role
from chassis.errors import TokenExpired, TokenInvalid
from chassis.settings import Constant, Section

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

# Our tokens have some 500 characters. A far longer one is refused before it is parsed.
_MAX_LENGTH: Final = 4096
# Verified tokens kept in memory: the users that call one replica within a token's lifetime on a busy day; some 5 MB.
# The oldest is evicted first.
_CACHE_SIZE: Final = 4096
# Not `client_id`: tokens of the previous release lack it, and no decision depends on it.
_CLAIMS: Final = ("iss", "aud", "sub", "exp", "iat", "jti", "sid", "roles")


class TokenSettings(Section, env_prefix="TOKEN_"):
    """The properties of access tokens that all services agree on."""

    issuer: Constant[str] = "https://shop.local"
    """The issuer of access tokens. The edge has the same, and refuses every other token with 401."""
    audience: Constant[str] = "shop"
    """The audience of access tokens. The edge has the same."""
    client_id: Constant[str] = "shop"
    """The claim `client_id` of new tokens. RFC 9068 requires one; users log in to the shop itself, its only client."""
    leeway_s: Constant[float] = 5
    """How far the clocks of two machines may be apart."""


class KeyRing(Protocol):
    """The public keys that verify tokens."""

    async def key(self, kid: str) -> Ed25519PublicKey | None:
        """Return the key of this id, or None if there is none.

        Raises:
            KeysUnavailable: the key is unknown, and the service that signs does not answer.
        """


@dataclass(slots=True)
class _VerifiedToken:
    """A token whose signature has been verified."""

    caller: Caller
    kid: str
    key: Ed25519PublicKey


class AccessTokens:
    """Verifies access tokens. A signature costs more than the rest of a call, so each one is verified once.

    Args:
        settings: issuer, audience and leeway; the same in all services.
        keys: the published keys. If a key is not published any more, its tokens are refused, verified before or not.
    """

    def __init__(self, settings: TokenSettings, keys: KeyRing) -> None:
        self._settings = settings
        self._keys = keys
        self._verified: dict[str, _VerifiedToken] = {}  # oldest first

    async def caller(self, token: str) -> Caller:
        """Return the caller that a token identifies.

        Raises:
            TokenExpired: the token was valid and has expired.
            TokenInvalid: the token is not one of ours.
        """
        known = self._verified.get(token)
        if known is not None and await self._is_still_valid(known):
            return known.caller
        kid = _kid(token)
        key = await self._keys.key(kid)
        if key is None:
            raise TokenInvalid
        claims = self._claims(token, key)
        caller = _caller(claims, leeway_s=self._settings.leeway_s)
        if len(self._verified) >= _CACHE_SIZE:
            del self._verified[next(iter(self._verified))]
        self._verified[token] = _VerifiedToken(caller, kid, key)
        return caller

    async def _is_still_valid(self, known: _VerifiedToken) -> bool:
        key = await self._keys.key(known.kid)
        # After a refresh the ring has equal keys as new objects. Keep the new object: comparing identities is cheaper.
        if key is None or (key is not known.key and key != known.key):
            return False
        known.key = key
        return time.time() < known.caller.expires_at_s

    def _claims(self, token: str, key: Ed25519PublicKey) -> dict[str, object]:
        try:
            claims: dict[str, object] = jwt.decode(
                token,
                key,
                algorithms=[ALGORITHM],
                issuer=self._settings.issuer,
                audience=self._settings.audience,
                leeway=self._settings.leeway_s,
                options={"require": list(_CLAIMS)},
            )
        except jwt.ExpiredSignatureError as error:
            raise TokenExpired from error
        except jwt.InvalidTokenError as error:
            raise TokenInvalid from error
        return claims


def _kid(token: str) -> str:
    """Return the id of the key that a token names; raise TokenInvalid if its header is not like our tokens' headers."""
    if len(token) > _MAX_LENGTH:
        raise TokenInvalid
    try:
        header = jwt.get_unverified_header(token)
    except (jwt.InvalidTokenError, RecursionError) as error:  # the latter for `[[[[…`
        raise TokenInvalid from error
    kid = header.get("kid")
    # `crit` names extensions that a verifier must understand (RFC 7515, 4.1.11): this one understands none.
    is_ours = header.get("typ") == TYPE and header.get("alg") == ALGORITHM and "crit" not in header
    if not is_ours or not isinstance(kid, str):
        raise TokenInvalid
    return kid


def _caller(claims: Mapping[str, object], *, leeway_s: float) -> Caller:
    roles = claims["roles"]
    if not isinstance(roles, list):
        raise TokenInvalid
    try:
        return Caller(
            subject=str(UUID(str(claims["sub"]))),
            session_id=str(UUID(str(claims["sid"]))),
            roles=frozenset(Role(str(role)) for role in roles),
            expires_at_s=int(cast("float | str", claims["exp"])) + leeway_s,
        )
    except ValueError as error:
        raise TokenInvalid from error
