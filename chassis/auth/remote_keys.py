"""The public keys of access tokens, as a service that does not sign any knows them: asked for and remembered."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import time
from typing import TYPE_CHECKING, Final, Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from chassis.errors import KeysUnavailable
from chassis.runtime.periodic import Failures, every

if TYPE_CHECKING:
    from collections.abc import Mapping

# Half of the time for which a new key is published before it signs (`publish_lead_s` of user_svc).
_EVERY_S: Final = 30.0
# How often tokens with unknown keys may make us ask: anybody can send those.
_PAUSE_S: Final = 1.0
_TIMEOUT_S: Final = 2.0


class FetchKeys(Protocol):
    """Asks the service that signs access tokens for its public keys."""

    async def __call__(self, *, timeout_s: float, wait_for_ready: bool) -> Mapping[str, bytes]:
        """Return the raw Ed25519 public keys, 32 bytes each, by their ids.

        Args:
            timeout_s: how long it may take.
            wait_for_ready: whether to wait for a service that has not started yet.
        """


class RemoteKeyRing:
    """The public keys of another service.

    Known keys stay known while that service does not answer, so that its absence logs no user out.

    Args:
        fetch: asks for the keys.
    """

    def __init__(self, fetch: FetchKeys) -> None:
        self._ask_for_keys = fetch
        self._keys: dict[str, Ed25519PublicKey] = {}
        self._asked_at = float("-inf")
        self._has_answer = False
        self._asking: asyncio.Task[None] | None = None

    async def key(self, kid: str) -> Ed25519PublicKey | None:
        """Return the key of this id, or None if there is none.

        Raises:
            KeysUnavailable: the service that signs does not answer.
        """
        if kid not in self._keys and time.monotonic() - self._asked_at > _PAUSE_S:
            # Shielded: it is asked on behalf of all, and one of them giving up must not end it.
            with contextlib.suppress(Exception):  # without an answer the call is refused, below
                await asyncio.shield(self._ask())
        if kid not in self._keys and not self._has_answer:
            raise KeysUnavailable
        return self._keys.get(kid)

    async def refresh_forever(self) -> None:
        """Ask for the keys every 30 s, and every second while there is no answer, until cancelled."""
        failures = Failures(
            failed="keyring.not_refreshed", recovered="keyring.refreshed", first_s=_PAUSE_S, longest_s=_PAUSE_S
        )
        await every(_EVERY_S, self._ask, failures=failures)

    def _ask(self) -> asyncio.Task[None]:
        if self._asking is None or self._asking.done():
            # Not in the context of the call that needs a key: its deadline is not that of the others who wait.
            self._asking = asyncio.create_task(self._fetch(), context=contextvars.Context())
        return self._asking

    async def _fetch(self) -> None:
        try:
            # Services start in any order: the first calls wait for the user service rather than fail.
            keys = await self._ask_for_keys(timeout_s=_TIMEOUT_S, wait_for_ready=not self._keys)
            self._keys = {kid: Ed25519PublicKey.from_public_bytes(key) for kid, key in keys.items()}
            self._has_answer = True
        except Exception:
            self._has_answer = False
            raise
        finally:
            self._asked_at = time.monotonic()
