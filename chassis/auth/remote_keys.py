"""The public keys of access tokens, for a service that does not sign tokens: fetched from the one that does."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import contextvars
import time
from typing import TYPE_CHECKING, Final, Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from chassis.errors import KeysUnavailable
from chassis.runtime.periodic import Failures, every

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from google.protobuf.message import Message

# Half of the time for which a new key is published before it signs (`publish_lead_s` of user_svc).
_REFRESH_INTERVAL_S: Final = 30.0
# The minimum between two fetches. Tokens with unknown key ids trigger a fetch, and any caller can send such tokens.
_MIN_INTERVAL_S: Final = 1.0
_TIMEOUT_S: Final = 2.0


class FetchKeys(Protocol):
    """Fetches the public keys of the service that signs access tokens."""

    async def __call__(self, *, timeout_s: float, wait_for_ready: bool) -> Mapping[str, bytes]:
        """Return the raw Ed25519 public keys, 32 bytes each, by key id.

        Args:
            timeout_s: the timeout of the call.
            wait_for_ready: if the service does not listen yet, wait for it instead of failing.
        """


class Published(Protocol):
    """A key as the service that signs publishes it: in a message with the fields of a JWK (RFC 7517, RFC 8037)."""

    kid: str
    x: str


class KeySet(Protocol):
    """A message with the published keys, a JWK Set."""

    @property
    def keys(self) -> Iterable[Published]:
        """The keys."""


def published_by(rpc: Callable[..., Awaitable[KeySet]], request: Message) -> FetchKeys:
    """Return what fetches the keys by an rpc that answers with a JWK Set of Ed25519 keys.

    Args:
        rpc: of a stub.
        request: that it takes.
    """

    async def fetch(*, timeout_s: float, wait_for_ready: bool) -> dict[str, bytes]:
        found = await rpc(request, timeout=timeout_s, wait_for_ready=wait_for_ready)
        return {key.kid: base64.urlsafe_b64decode(key.x + "=") for key in found.keys}

    return fetch


class RemoteKeyRing:
    """The public keys of another service.

    While that service does not answer, the keys fetched before stay in use, so that no user is logged out.

    Args:
        fetch: fetches the keys.
    """

    def __init__(self, fetch: FetchKeys) -> None:
        self._fetch_keys = fetch
        self._keys: dict[str, Ed25519PublicKey] = {}
        self._fetched_at = float("-inf")
        self._has_answer = False
        self._fetching: asyncio.Task[None] | None = None

    async def key(self, kid: str) -> Ed25519PublicKey | None:
        """Return the key of this id, or None if there is none.

        Raises:
            KeysUnavailable: the key is unknown and the service that signs does not answer.
        """
        if kid not in self._keys and time.monotonic() - self._fetched_at > _MIN_INTERVAL_S:
            with contextlib.suppress(Exception):  # without an answer the call is refused below
                # Shielded: all callers share the fetch, and the cancellation of one must not cancel it.
                await asyncio.shield(self._fetch())
        if kid not in self._keys and not self._has_answer:
            raise KeysUnavailable
        return self._keys.get(kid)

    async def refresh(self) -> None:
        """Fetch the keys now.

        Raises:
            Exception: what `fetch` raised; the keys fetched before stay in use.
        """
        await self._fetch()

    async def refresh_forever(self) -> None:
        """Fetch the keys every 30 s until cancelled; after a failure, every second."""
        failures = Failures(
            failed="keyring.not_refreshed",
            recovered="keyring.refreshed",
            first_s=_MIN_INTERVAL_S,
            longest_s=_MIN_INTERVAL_S,
        )
        await every(_REFRESH_INTERVAL_S, self._fetch, failures=failures)

    def _fetch(self) -> asyncio.Task[None]:
        """Return the running fetch; start one if none runs."""
        if self._fetching is None or self._fetching.done():
            # In an empty context: the deadline of the call that needs a key must not apply to other waiting calls.
            self._fetching = asyncio.create_task(self._update(), context=contextvars.Context())
        return self._fetching

    async def _update(self) -> None:
        try:
            # Services start in any order. Until there are keys, wait for the user service instead of failing.
            keys = await self._fetch_keys(timeout_s=_TIMEOUT_S, wait_for_ready=not self._keys)
            self._keys = {kid: Ed25519PublicKey.from_public_bytes(key) for kid, key in keys.items()}
            self._has_answer = True
        except Exception:
            self._has_answer = False
            raise
        finally:
            self._fetched_at = time.monotonic()
