"""Pages of a list, by keyset: a page begins where the one before ended, whatever was added meanwhile.

A page is bounded by rows and by bytes: it fits the 4 MiB that gRPC clients take unless told otherwise, and making it
never holds the loop. A page with fewer rows than were asked for is not the last one if it has a token.

A page token is opaque to callers. It holds the last key and the time, and is bound by a digest to its list and filter.
The digest is no secret: a forged token can only name another place in a list that its caller may read anyway.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import struct
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Protocol, TypeVar
from uuid import UUID

from chassis.errors import InvalidPageToken

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from google.protobuf.message import Message

T = TypeVar("T")
M = TypeVar("M", bound="Message")

DEFAULT_SIZE: Final = 50
MAX_SIZE: Final = 200
TOKEN_LIFETIME: Final = timedelta(days=1)
# A quarter of what stock gRPC clients take, and some 5 ms of encoding.
MAX_BYTES: Final = 1024 * 1024

# Other calls have their turn after so many bytes of messages: some 0.5 ms, if they consist of small parts. gRPC takes
# one new call in a turn of the loop: while four pages are made these are some 500 a second.
_TURN_BYTES: Final = 4 * 1024

_VERSION: Final = 1
_DIGEST_BYTES: Final = 8
# Version, issued at (seconds since 1970), last key.
_PAYLOAD: Final = struct.Struct(">BQ16s")


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Which page of a list.

    Attributes:
        size: how many at most, 1 to 200.
        after: the last key of the page before, or None for the first page.
    """

    size: int
    after: UUID | None

    def split(self, found: Sequence[T]) -> tuple[Sequence[T], bool]:
        """Return the page out of size + 1 rows that were asked for, and whether there is another page."""
        return found[: self.size], len(found) > self.size


class Row(Protocol):
    """One row of a list."""

    @property
    def id(self) -> UUID:
        """The key by which the list is sorted."""


async def messages_of(rows: Sequence[T], show: Callable[[T], M], *, max_bytes: int = MAX_BYTES) -> list[M]:
    """Return the messages of the first rows, as many as fit into a page; of the first one in any case.

    Other calls have their turn in between.
    """
    messages: list[M] = []
    left, turn = max_bytes, _TURN_BYTES
    for row in rows:
        message = show(row)
        size = message.ByteSize()
        if size > left and messages:
            break
        messages.append(message)
        left -= size
        turn -= size
        if turn <= 0:
            await asyncio.sleep(0)
            turn = _TURN_BYTES
    return messages


@dataclass(frozen=True, slots=True)
class PageTokens:
    """The tokens of one list with one filter.

    Args:
        query: what makes the list what it is: its method and every filter, as text.
        now: the time, aware.
    """

    query: tuple[str, ...]
    now: datetime

    def page(self, *, page_size: int, page_token: str) -> PageRequest:
        """Return the page that a request asks for: size 0 stands for 50, more than 200 for 200.

        Raises:
            InvalidPageToken: the token is not of this list with this filter, or is over a day old.
        """
        size = min(page_size or DEFAULT_SIZE, MAX_SIZE)
        return PageRequest(size, self._decoded(page_token) if page_token else None)

    def after_page(self, rows: Sequence[Row], *, shown: int, has_more: bool) -> str:
        """Return the token of the page that follows; empty if there is none.

        Args:
            rows: that were found for this page.
            shown: how many of them it has.
            has_more: whether there are rows after them.
        """
        return self.after(rows[shown - 1].id) if has_more or shown < len(rows) else ""

    def after(self, last: UUID) -> str:
        """Return the token of the page that begins after this key."""
        payload = _PAYLOAD.pack(_VERSION, int(self.now.timestamp()), last.bytes)
        return base64.urlsafe_b64encode(payload + self._digest(payload)).decode().rstrip("=")

    def _decoded(self, token: str) -> UUID:
        try:
            raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError) as error:
            raise InvalidPageToken from error
        payload, digest = raw[:-_DIGEST_BYTES], raw[-_DIGEST_BYTES:]
        if len(payload) != _PAYLOAD.size or digest != self._digest(payload):
            raise InvalidPageToken
        version, issued_at_s, last = _PAYLOAD.unpack(payload)
        age_s = self.now.timestamp() - issued_at_s
        if version != _VERSION or age_s > TOKEN_LIFETIME.total_seconds():
            raise InvalidPageToken
        return UUID(bytes=last)

    def _digest(self, payload: bytes) -> bytes:
        query = "\0".join(self.query).encode()
        return hashlib.blake2b(payload + query, digest_size=_DIGEST_BYTES).digest()
