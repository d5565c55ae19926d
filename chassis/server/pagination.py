"""Pages of a list, by keyset: a page begins after the last key of the page before, even if rows were added meanwhile.

A page is bounded by rows and by bytes: it fits the 4 MiB that gRPC clients accept by default, and making it does not
hold the loop. A page may have fewer rows than requested although it has a token for the next page.

A page token is opaque to callers. It holds the last key and the time, and a digest binds it to its list and filter. The
digest is not secret: a forged token can only name another position in a list that its caller may read anyway.
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
# A quarter of what gRPC clients accept by default; encoding it takes some 5 ms.
MAX_BYTES: Final = 1024 * 1024

# After this many bytes of messages the loop serves other calls: some 0.5 ms with small fields. gRPC takes one new call
# per turn of the loop: while four pages are made these are some 500 a second.
_TURN_BYTES: Final = 4 * 1024

_VERSION: Final = 1
_DIGEST_BYTES: Final = 8
# Version, issued at (seconds since 1970), last key.
_PAYLOAD: Final = struct.Struct(">BQ16s")


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Which page of a list.

    Attributes:
        size: the maximum number of rows, 1 to 200.
        after: the last key of the page before; None for the first page.
    """

    size: int
    after: UUID | None

    def split(self, found: Sequence[T]) -> tuple[Sequence[T], bool]:
        """Return the rows of the page, out of up to size + 1 rows found, and whether another page follows."""
        return found[: self.size], len(found) > self.size


class Row(Protocol):
    """One row of a list."""

    @property
    def id(self) -> UUID:
        """The key by which the list is sorted."""


async def messages_of(rows: Sequence[T], show: Callable[[T], M], *, max_bytes: int = MAX_BYTES) -> list[M]:
    """Return messages for as many of the first rows as fit into `max_bytes`; always at least one, if there is a row.

    The loop serves other calls in between.
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
        query: the list's method and every filter, as text.
        now: the current time, aware.
    """

    query: tuple[str, ...]
    now: datetime

    def page(self, *, page_size: int, page_token: str) -> PageRequest:
        """Return the page that a request asks for. Size 0 becomes 50, and a size above 200 becomes 200.

        Raises:
            InvalidPageToken: the token is for another list or filter, or is more than a day old.
        """
        size = min(page_size or DEFAULT_SIZE, MAX_SIZE)
        return PageRequest(size, self._decoded(page_token) if page_token else None)

    def after_page(self, rows: Sequence[Row], *, shown: int, has_more: bool) -> str:
        """Return the token of the next page; empty if there is none.

        Args:
            rows: the rows found for this page.
            shown: how many of them the page contains.
            has_more: whether more rows follow the found ones.
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
