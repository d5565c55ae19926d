"""The claims of access tokens: JWTs (RFC 7519) in the profile of RFC 9068, signed with EdDSA (RFC 8037)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from uuid import UUID

    from chassis.auth.access_tokens import TokenSettings
    from chassis.context import Role

ALGORITHM: Final = "EdDSA"
TYPE: Final = "at+jwt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """The claims of a new token of a user.

    Attributes:
        issued_at_s: the current time, in seconds since 1970.
        lifetime_s: seconds from then until the token expires.
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
