"""The keys that sign access tokens: made here, published for the processes that check tokens, replaced in time.

A new key is published for a while before it signs, so that every process knows it before its first token; an old one
stays published until its last token has expired. In the database keys are sealed with a secret that is not in it.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Final

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import SecretStr, field_validator
from sqlalchemy import Connection, delete, insert, select, text

from chassis.database import locks
from chassis.database.statements import execute
from chassis.errors import DatabaseUnavailable, StartupError
from chassis.settings import Constant, Section
from user_svc.tables import signing_keys

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from chassis.clock import Clock
    from chassis.database import Database
    from chassis.database.statement_pool import Rows

# How long a process keeps the keys before it reads them again; tokens with unknown keys make it read no more often.
_FRESH_S: Final = 1.0
_ALL: Final = "SELECT kid, sealed_key, active_from FROM signing_keys ORDER BY active_from DESC"


class KeySettings(Section, env_prefix="KEYS_"):
    """How signing keys are kept and replaced."""

    secret: SecretStr
    """Encrypts the signing keys in the database: 32 random bytes in base64 or base64url, as `openssl rand -base64 32`
    prints them."""
    publish_lead_s: Constant[float] = 60
    """How long a new key is published before it signs: twice the time for which the edge and order_svc remember keys,
    30 s."""

    @field_validator("secret")
    @classmethod
    def _seals(cls, secret: SecretStr) -> SecretStr:
        # Fernet leaves out the characters in which the two alphabets differ, and would take what is left for too short.
        text = secret.get_secret_value().translate(str.maketrans("+/", "-_"))
        try:
            Fernet(text)
        except ValueError:
            raise ValueError("must be 32 random bytes in base64: openssl rand -base64 32") from None
        return SecretStr(text)


@dataclass(frozen=True)
class SigningKey:
    """One key.

    Attributes:
        kid: its id, in the header of each token.
        active_from: signs from then on, until the next one does.
    """

    kid: str
    private: Ed25519PrivateKey
    active_from: datetime

    @cached_property
    def public(self) -> Ed25519PublicKey:
        """The part that is published."""
        return self.private.public_key()


class SigningKeys:
    """The keys in the database, remembered for a second. A key stays published for a token's lifetime after its end."""

    def __init__(self, database: Database, settings: KeySettings, clock: Clock, *, token_lifetime_s: float) -> None:
        self._database = database
        self._seal = Fernet(settings.secret.get_secret_value())
        self._lead = timedelta(seconds=settings.publish_lead_s)
        self._clock = clock
        # The leeway of the processes that check tokens, and the time they remember keys, with a margin.
        self._kept = timedelta(seconds=token_lifetime_s + 120)
        self._keys: list[SigningKey] = []
        self._public: dict[str, tuple[Ed25519PublicKey, datetime | None]] = {}
        self._loaded_at = float("-inf")
        self._loading = asyncio.Lock()

    async def current(self) -> SigningKey:
        """Return the key to sign with now."""
        now = self._clock.now()
        keys = await self._known()
        # The oldest, for a clock that was set back.
        return next((key for key in keys if key.active_from <= now), keys[-1])

    async def published(self) -> Sequence[SigningKey]:
        """Return every key that a good token may be signed with, now or soon, the newest first."""
        return self._needed(await self._known())

    async def key(self, kid: str) -> Ed25519PublicKey | None:
        """Return the public key of this id, or None if no good token can be signed with it."""
        await self._known()
        # Computed once a second, because every call needs it.
        public, needed_until = self._public.get(kid, (None, None))
        return public if needed_until is None or self._clock.now() < needed_until else None

    async def rotate(self) -> SigningKey:
        """Make the next key and return it. It signs once every process knows it.

        Raises:
            StartupError: the others are sealed with another secret.
        """

        def work(connection: Connection) -> SigningKey:
            _wait_for_others(connection)
            needed = [key.kid for key in self._needed(self._opened(execute(connection, _ALL)))]
            connection.execute(delete(signing_keys).where(signing_keys.c.kid.not_in(needed)))
            return self._insert(connection, active_from=self._clock.now() + self._lead)

        return await self._database.transaction(work)

    def _needed(self, keys: Sequence[SigningKey]) -> list[SigningKey]:
        """Return the keys that tokens which are still good may be signed with."""
        now = self._clock.now()
        return [key for key, until in self._needed_until(keys) if until is None or now < until]

    def _needed_until(self, keys: Sequence[SigningKey]) -> list[tuple[SigningKey, datetime | None]]:
        """Return with each key until when good tokens may be signed with it; None with the newest."""
        retired_at = [None, *(key.active_from for key in keys)]  # by the next one
        return [(key, retired and retired + self._kept) for key, retired in zip(keys, retired_at, strict=False)]

    async def _known(self) -> list[SigningKey]:
        """Return every key, the newest first. One of them signs."""
        if self._is_fresh():
            return self._keys
        async with self._loading:
            if not self._is_fresh():
                try:
                    self._keys = await self._loaded()
                except DatabaseUnavailable:
                    if not self._keys:
                        raise
                    # Keys that are known stay known while the database does not answer.
                self._public = {key.kid: (key.public, until) for key, until in self._needed_until(self._keys)}
                self._loaded_at = time.monotonic()
        return self._keys

    def _is_fresh(self) -> bool:
        return time.monotonic() - self._loaded_at <= _FRESH_S

    async def _loaded(self) -> list[SigningKey]:
        keys = self._opened(await self._database.fetch(_ALL))
        now = self._clock.now()
        if any(key.active_from <= now for key in keys):
            return keys
        await self._database.transaction(self._make_first)
        return self._opened(await self._database.fetch(_ALL))

    def _opened(self, rows: Rows) -> list[SigningKey]:
        return [SigningKey(kid, self._unsealed(sealed), active_from) for kid, sealed, active_from in rows]

    def _unsealed(self, sealed_key: bytes) -> Ed25519PrivateKey:
        try:
            return Ed25519PrivateKey.from_private_bytes(self._seal.decrypt(sealed_key))
        except InvalidToken as error:
            raise StartupError("KEYS_SECRET is not the secret that the signing keys are sealed with") from error

    def _make_first(self, connection: Connection) -> None:
        _wait_for_others(connection)
        now = self._clock.now()
        active = select(signing_keys.c.kid).where(signing_keys.c.active_from <= now).limit(1)
        if connection.execute(active).one_or_none() is None:
            self._insert(connection, active_from=now)

    def _insert(self, connection: Connection, *, active_from: datetime) -> SigningKey:
        key = SigningKey(secrets.token_hex(8), Ed25519PrivateKey.generate(), active_from)
        connection.execute(
            insert(signing_keys).values(
                kid=key.kid,
                sealed_key=self._seal.encrypt(key.private.private_bytes_raw()),
                created_at=self._clock.now(),
                active_from=active_from,
            )
        )
        return key


def _wait_for_others(connection: Connection) -> None:
    """Lock the making of keys until the transaction ends: replicas start together, operators repeat commands."""
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": locks.SIGNING_KEYS})
