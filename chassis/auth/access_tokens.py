"""Access tokens: JWTs (RFC 7519) in the profile of RFC 9068, signed with EdDSA (RFC 8037).

The user service signs them; every service checks them, though the edge already has: a token that reached a service some
other way is worth no more.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, cast
from uuid import UUID

import jwt

from chassis.context import Caller, Role
from chassis.errors import TokenExpired, TokenInvalid
from chassis.settings import Constant, Section

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

ALGORITHM: Final = "EdDSA"
TYPE: Final = "at+jwt"

# Ours have some 500 characters. Whatever is far longer is refused before it is looked at.
_MAX_LENGTH: Final = 4096
# As many users as call one replica within a token's life, on a busy day; some 5 MB. The oldest goes first.
_REMEMBERED: Final = 4096
# Not `client_id`: tokens of the release before have none, and nothing is decided by it.
_CLAIMS: Final = ("iss", "aud", "sub", "exp", "iat", "jti", "sid", "roles")


class TokenSettings(Section, env_prefix="TOKEN_"):
    """What all services agree on about access tokens."""

    issuer: Constant[str] = "https://shop.local"
    """The issuer of access tokens. The edge has the same, and refuses every other token with 401."""
    audience: Constant[str] = "shop"
    """The audience of access tokens. The edge has the same."""
    client_id: Constant[str] = "shop"
    """The claim `client_id` of new tokens. RFC 9068 requires one; users log in to the shop itself, its only client."""
    leeway_s: Constant[float] = 5
    """How far the clocks of two machines may be apart."""


class KeyRing(Protocol):
    """The public keys that tokens are signed with, as far as they are known."""

    async def key(self, kid: str) -> Ed25519PublicKey | None:
        """Return the key of this id, or None if there is none."""


@dataclass(slots=True)
class _Checked:
    """A token whose signature is known to be good."""

    caller: Caller
    kid: str
    key: Ed25519PublicKey


class AccessTokens:
    """Checks access tokens. A signature costs more than the rest of a call, so each is checked once.

    Args:
        settings: what all services agree on.
        keys: the keys that are published. A token whose key no longer is counts for nothing, checked or not.
    """

    def __init__(self, settings: TokenSettings, keys: KeyRing) -> None:
        self._settings = settings
        self._keys = keys
        self._checked: dict[str, _Checked] = {}  # in the order in which they were

    async def caller(self, token: str) -> Caller:
        """Return whom a token stands for.

        Raises:
            TokenExpired: it was good once.
            TokenInvalid: it is none of ours.
        """
        known = self._checked.get(token)
        if known is not None and await self._is_still_good(known):
            return known.caller
        kid = _kid(token)
        key = await self._keys.key(kid)
        if key is None:
            raise TokenInvalid
        claims = self._claims(token, key)
        caller = _caller(claims, leeway_s=self._settings.leeway_s)
        if len(self._checked) >= _REMEMBERED:
            del self._checked[next(iter(self._checked))]
        self._checked[token] = _Checked(caller, kid, key)
        return caller

    async def _is_still_good(self, known: _Checked) -> bool:
        key = await self._keys.key(known.kid)
        # A ring that has asked for its keys again has the same ones as other objects, whose comparison costs something.
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
    """Return the id of the key that a token claims to be signed with, if its header is as ours are."""
    if len(token) > _MAX_LENGTH:
        raise TokenInvalid
    try:
        header = jwt.get_unverified_header(token)
    except (jwt.InvalidTokenError, RecursionError) as error:  # the latter for `[[[[…`
        raise TokenInvalid from error
    kid = header.get("kid")
    # `crit` names extensions that must be understood (RFC 7515, 4.1.11): we know none.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """What a new token says.

    Attributes:
        subject: the user.
        session_id: the session that it belongs to.
        roles: what the user may do.
        token_id: unique.
        issued_at_s: now, in seconds since 1970.
        lifetime_s: from then on.
    """

    subject: UUID
    session_id: UUID
    roles: tuple[Role, ...]
    token_id: UUID
    issued_at_s: int
    lifetime_s: int

    def payload(self, settings: TokenSettings) -> dict[str, object]:
        """Return the claims by their registered names."""
        return {
            "iss": settings.issuer,
            "aud": settings.audience,
            "sub": str(self.subject),
            "sid": str(self.session_id),
            "roles": [role.value for role in self.roles],
            "client_id": settings.client_id,
            "jti": str(self.token_id),
            "iat": self.issued_at_s,
            "exp": self.issued_at_s + self.lifetime_s,
        }
