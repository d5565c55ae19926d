"""Password hashes, argon2id, made in threads of their own: a hash takes a core for tens of milliseconds."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

import argon2

from chassis.concurrency.limiter import CapacityLimiter
from chassis.errors import Overloaded
from user_svc import metrics
from user_svc.text import composed

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from user_svc.settings import PasswordSettings

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Match:
    """Result of checking a password against a hash.

    Attributes:
        is_correct: whether the hash is of the password.
        is_outdated: whether the hash should be replaced: its cost is not today's, or it is of a text that is not NFC.
    """

    is_correct: bool
    is_outdated: bool = False


_WRONG: Final = Match(is_correct=False)


class Passwords:
    """Makes and checks password hashes, a few at a time. A password is hashed in NFC, however it was typed.

    Calls take turns; how many wait, and how long, is bounded. Work that has begun continues after its caller leaves and
    keeps its turn, so callers who leave cannot run more hashes than there are workers.
    """

    def __init__(self, settings: PasswordSettings) -> None:
        self._hasher: Final = argon2.PasswordHasher(
            time_cost=settings.passes,
            memory_cost=settings.memory_kib,
            parallelism=settings.lanes,
        )
        # Checked when there is no user, so that it takes as long as if there were one.
        self._nobodys_hash: Final = self._hasher.hash(secrets.token_hex(16))
        self._threads: Final = ThreadPoolExecutor(settings.workers, thread_name_prefix="argon2")
        self._limiter: Final = CapacityLimiter(
            settings.workers, max_waiting=settings.max_waiting, max_wait_s=settings.max_wait_s
        )
        self._places = settings.workers + settings.max_waiting
        self._running: Final[set[asyncio.Task[Any]]] = set()
        metrics.watch_hashes(lambda: self._limiter.waiting)

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """Take a place among the calls that wait for a hash or have one, for the block.

        For calls that ask the database before: a flood is refused before it fills the queue of the database too, where
        the calls that hold a thread would wait behind it.

        Raises:
            Overloaded: no place is free.
        """
        if not self._places:
            raise Overloaded
        self._places -= 1
        try:
            yield
        finally:
            self._places += 1

    async def hash(self, password: str) -> str:
        """Return the password's hash in PHC form, with a salt of its own.

        Raises:
            Overloaded: too many others wait already.
        """
        return await self.in_turn(lambda: self._in_thread(lambda: self._hasher.hash(composed(password))))

    async def in_turn(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return the result of the work, which may use match(). It continues if the caller leaves.

        Raises:
            Overloaded: too many others wait already, or the turn did not come in time. The work was not begun.
        """
        await self._limiter.acquire()
        running = asyncio.create_task(work())
        # The loop itself keeps weak references only.
        self._running.add(running)
        running.add_done_callback(self._end)
        return await asyncio.shield(running)

    async def match(self, password: str, *, password_hash: str) -> Match:
        """Return what the hash says about the password. For the work of in_turn().

        An empty hash matches no password, and takes as long to check. A hash that was made before passwords were put
        into NFC is of the text as it was typed.
        """
        known = password_hash or self._nobodys_hash
        in_nfc = composed(password)
        is_correct = await self._is_of(known, in_nfc)
        is_as_typed = not is_correct and password != in_nfc and await self._is_of(known, password)
        if not password_hash or not (is_correct or is_as_typed):
            return _WRONG
        return Match(is_correct=True, is_outdated=is_as_typed or self._hasher.check_needs_rehash(password_hash))

    async def close(self) -> None:
        """Wait for what is under way; begin nothing more."""
        await asyncio.gather(*self._running, return_exceptions=True)
        self._threads.shutdown()

    def _end(self, running: asyncio.Task[Any]) -> None:
        self._running.discard(running)
        self._limiter.release()

    async def _in_thread(self, work: Callable[[], T]) -> T:
        started = time.monotonic()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            metrics.hash_took(time.monotonic() - started)

    async def _is_of(self, password_hash: str, password: str) -> bool:
        try:
            return await self._in_thread(lambda: self._hasher.verify(password_hash, password))
        except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
            return False
