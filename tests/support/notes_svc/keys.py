"""The one key of access tokens, from the settings."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

if TYPE_CHECKING:
    from tests.support.notes_svc.settings import KeySettings

KID: Final = "test"


class TheKey:
    """A ring with one key.

    Attributes:
        x: the key as a JWK has it.
    """

    def __init__(self, settings: KeySettings) -> None:
        self.x = settings.public_key
        self._key = Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(self.x + "="))

    async def key(self, kid: str) -> Ed25519PublicKey | None:
        """Return the key, if this is its name."""
        return self._key if kid == KID else None
