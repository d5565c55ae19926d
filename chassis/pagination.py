"""Pages of a list, by keyset: a page begins where the one before ended, whatever was added meanwhile.

A page token is opaque to callers. It holds the last key and the time, and is bound by a digest to its list and filter.
The digest is no secret: a forged token can only name another place in a list that its caller may read anyway.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final, TypeVar
from uuid import UUID

from chassis.errors import InvalidPageToken

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

T = TypeVar("T")

DEFAULT_SIZE: Final = 50
MAX_SIZE: Final = 200
TOKEN_LIFETIME: Final = timedelta(days=1)

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
