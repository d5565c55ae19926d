"""Password hashes, argon2id, made in threads of their own: a hash takes a core for tens of milliseconds."""

from __future__ import annotations

import asyncio
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar, TypeVarTuple

import argon2

from user_svc import metrics

if TYPE_CHECKING:
    from collections.abc import Callable

    from user_svc.settings import PasswordSettings

T = TypeVar("T")
Texts = TypeVarTuple("Texts")


class Passwords:
    """Makes and checks password hashes, a few at a time."""

    def __init__(self, settings: PasswordSettings) -> None:
        self._hasher = argon2.PasswordHasher(
            time_cost=settings.passes,
            memory_cost=settings.memory_kib,
            parallelism=settings.lanes,
        )
        # Checked when there is no user, so that it takes as long as if there were one.
        self._nobodys_hash = self._hasher.hash(secrets.token_hex(16))
        self._threads = ThreadPoolExecutor(settings.workers, thread_name_prefix="argon2")
        metrics.watch_hashes(self._threads._work_queue.qsize)  # noqa: SLF001  there is no other way to ask

    async def hash(self, password: str) -> str:
        """Return the password's hash in PHC form, with a salt of its own."""
        return await self._in_thread(self._hasher.hash, password)

    async def is_correct(self, password: str, *, password_hash: str) -> bool:
        """Return whether the hash is of this password. An empty hash is of none, and takes as long to find out."""
        known = password_hash or self._nobodys_hash
        is_correct = await self._in_thread(self._verify, known, password)
        return is_correct and bool(password_hash)

    async def rehashed(self, password: str, *, password_hash: str) -> str:
        """Return a new hash if this one was made with other parameters than today's; else an empty text."""
        return await self.hash(password) if self._hasher.check_needs_rehash(password_hash) else ""

    def close(self) -> None:
        """Wait for the hashes that are being made."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    async def _in_thread(self, work: Callable[[*Texts], T], *texts: *Texts) -> T:
        started = time.monotonic()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work, *texts)
        finally:
            metrics.hash_took(time.monotonic() - started)

    def _verify(self, password_hash: str, password: str) -> bool:
        try:
            return self._hasher.verify(password_hash, password)
        except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
            return False
