"""The public keys of access tokens, for a service that does not sign tokens: fetched from the one that does."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import contextvars
import time
from typing import TYPE_CHECKING, Final, Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from typing_extensions import override

from chassis.auth.access_tokens import KeyRing
from chassis.errors import KeysUnavailable
from chassis.runtime.periodic import Failures, every

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from google.protobuf.message import Message

# Half of the time for which a new key is published before it signs (`publish_lead_s` of user_svc).
_REFRESH_INTERVAL_S: Final = 30.0
# The minimum between two fetches. Tokens with unknown key ids trigger a fetch, and any caller can send such tokens.
_MIN_INTERVAL_S: Final = 1.0
_TIMEOUT_S: Final = 2.0


class Published(Protocol):
    """An Ed25519 key as the service that signs publishes it: a message with the fields of a JWK (RFC 7517, RFC 8037).

    Attributes:
        x: the 32 bytes of the key, in base64url without padding.
    """

    kid: str
    x: str


class KeySet(Protocol):
    """A message with the published keys, a JWK Set."""

    @property
    def keys(self) -> Iterable[Published]:
        """The keys."""


class RemoteKeyRing(KeyRing):
    """The public keys of another service.

    While that service does not answer, the keys fetched before stay in use, so that no user is logged out.

    Args:
        rpc: of a stub of that service, and its request.
    """

    def __init__(self, rpc: Callable[..., Awaitable[KeySet]], request: Message) -> None:
        self._rpc = rpc
        self._request = request
        self._keys: dict[str, Ed25519PublicKey] = {}
        self._fetched_at = float("-inf")
        self._has_answer = False
        self._fetching: asyncio.Task[None] | None = None

    @override
    async def key(self, kid: str) -> Ed25519PublicKey | None:
        if kid not in self._keys and time.monotonic() - self._fetched_at > _MIN_INTERVAL_S:
            with contextlib.suppress(Exception):  # without an answer the call is refused below
                # Shielded: all callers share the fetch, and the cancellation of one must not cancel it.
                await asyncio.shield(self.refresh())
        if kid not in self._keys and not self._has_answer:
            raise KeysUnavailable
        return self._keys.get(kid)

    async def refresh_forever(self) -> None:
        """Fetch the keys every 30 s until cancelled; after a failure, every second."""
        failures = Failures(
            failed="keyring.not_refreshed",
            recovered="keyring.refreshed",
            first_s=_MIN_INTERVAL_S,
            longest_s=_MIN_INTERVAL_S,
        )
        await every(_REFRESH_INTERVAL_S, self.refresh, failures=failures)

    def refresh(self) -> asyncio.Task[None]:
        """Return the fetch of the keys that runs; start one if none runs. If it fails, the keys before stay in use."""
        if self._fetching is None or self._fetching.done():
            # In an empty context: the deadline of the call that needs a key must not apply to other waiting calls.
            self._fetching = asyncio.create_task(self._update(), context=contextvars.Context())
        return self._fetching

    async def _update(self) -> None:
        try:
            # Services start in any order. Until there are keys, wait for the user service instead of failing.
            found = await self._rpc(self._request, timeout=_TIMEOUT_S, wait_for_ready=not self._keys)
            self._keys = {
                key.kid: Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(key.x + "=")) for key in found.keys
            }
            self._has_answer = True
        except Exception:
            self._has_answer = False
            raise
        finally:
            self._fetched_at = time.monotonic()
