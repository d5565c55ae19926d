"""Pages of a list, by keyset: a page begins after the last key of the page before, even if rows were added meanwhile.

A page is bounded by rows and by bytes: it fits the 4 MiB that gRPC clients accept by default, and making it does not
hold the loop. A page may have fewer rows than requested although it has a token for the next page.

A page token is opaque to callers. It holds the last key and the time, and a digest of the request binds it to its list,
filters and owner. The digest is not secret: a forged token can only name another position in a list that its caller may
read anyway.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import struct
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, Protocol, cast
from uuid import UUID

from typing_extensions import TypeVar

from chassis.errors import InvalidPageToken

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from google.protobuf.message import Message
    from sqlalchemy import ColumnElement, Select

T = TypeVar("T")
M = TypeVar("M", bound="Message")
Key = TypeVar("Key", UUID, str, default=UUID)
"""The type of a list's keys."""

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
# Version, issued at (seconds since 1970); the last key follows.
_HEAD: Final = struct.Struct(">BQ")


class Page(NamedTuple, Generic[T]):
    """The rows of a page, and whether more rows follow them."""

    rows: Sequence[T]
    has_more: bool


@dataclass(frozen=True)  # with slots, PageRequest[str](…) fails in Python 3.11
class PageRequest(Generic[Key]):
    """Which page of a list.

    Attributes:
        size: the maximum number of rows, 1 to 200.
        after: the last key of the page before; None for the first page.
    """

    size: int
    after: Key | None

    def newest_first(self, query: Select[Any], key: ColumnElement[Any]) -> Select[Any]:
        """Return the query of the page's rows and one row more, newest first: by a key that is a UUID of version 7."""
        query = query.order_by(key.desc()).limit(self.size + 1)
        return query if self.after is None else query.where(key < self.after)

    def in_order(self, query: Select[Any], key: ColumnElement[Any]) -> Select[Any]:
        """Return the query of the page's rows and one row more, in the order of their keys."""
        query = query.order_by(key).limit(self.size + 1)
        return query if self.after is None else query.where(key > self.after)

    def split(self, found: Sequence[T]) -> Page[T]:
        """Return the page, out of up to size + 1 rows found."""
        return Page(found[: self.size], len(found) > self.size)


class Row(Protocol):
    """One row of a list."""

    @property
    def id(self) -> UUID | str:
        """The key by which the list is sorted."""


R = TypeVar("R", bound=Row)


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


class ListRequest(Generic[Key]):
    """A request for a page of a list.

    The token of the next page is bound to everything else that the request says, so that no filter can be forgotten.

    Args:
        request: the message; it has `page_size` and `page_token`.
        owner: the only user whose rows the list has, if that depends on the caller; a token is bound to it, too.

    Raises:
        InvalidPageToken: as PageTokens.page().
    """

    def __init__(
        self,
        request: Message,
        *,
        now: datetime,
        key: type[Key] = UUID,  # type: ignore[assignment]  # mypy takes no default for what it infers from the call
        owner: UUID | None = None,
    ) -> None:
        asked = cast("Any", request)
        self.tokens: Final = PageTokens((*_query_of(request), str(owner or "")), now, key)
        self.page: PageRequest[Key] = self.tokens.page(page_size=asked.page_size, page_token=asked.page_token)

    async def answer(self, page: Page[R], show: Callable[[R], M]) -> tuple[list[M], str]:
        """Return the messages of the page, as many as fit, and the token of the next page; empty if there is none."""
        rows, has_more = page
        messages = await messages_of(rows, show)
        return messages, self.tokens.after_page(rows, shown=len(messages), has_more=has_more)


def _query_of(request: Message) -> tuple[str, ...]:
    """Return the list and its filters: the type of the request, and its fields except `page_size` and `page_token`."""
    content = type(request)()
    content.CopyFrom(request)
    for field in ("page_size", "page_token"):
        content.ClearField(field)
    return request.DESCRIPTOR.full_name, content.SerializeToString(deterministic=True).hex()


@dataclass(frozen=True, slots=True)
class PageTokens:
    """The tokens of one list with one filter.

    Args:
        query: the list and every filter, as text.
    """

    query: tuple[str, ...]
    now: datetime
    key: type[Any] = UUID

    def page(self, *, page_size: int, page_token: str) -> PageRequest[Any]:
        """Return the page that a request asks for. Size 0 becomes 50, and a size above 200 becomes 200.

        Raises:
            InvalidPageToken: the token is for another list or filter, or is more than a day old.
        """
        size = min(page_size or DEFAULT_SIZE, MAX_SIZE)
        return PageRequest(size, self._decoded(page_token) if page_token else None)

    def after_page(self, rows: Sequence[Row], *, shown: int, has_more: bool) -> str:
        """Return the token of the page after the first `shown` of the rows that were found; empty if there is none."""
        return self.after(rows[shown - 1].id) if has_more or shown < len(rows) else ""

    def after(self, last: UUID | str) -> str:
        """Return the token of the page that begins after this key."""
        key = last.encode() if isinstance(last, str) else last.bytes
        payload = _HEAD.pack(_VERSION, int(self.now.timestamp())) + key
        return base64.urlsafe_b64encode(payload + self._digest(payload)).decode().rstrip("=")

    def _decoded(self, token: str) -> UUID | str:
        try:
            raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError) as error:
            raise InvalidPageToken from error
        payload, digest = raw[:-_DIGEST_BYTES], raw[-_DIGEST_BYTES:]
        if len(payload) <= _HEAD.size or digest != self._digest(payload):
            raise InvalidPageToken
        version, issued_at_s = _HEAD.unpack_from(payload)
        age_s = self.now.timestamp() - issued_at_s
        if version != _VERSION or age_s > TOKEN_LIFETIME.total_seconds():
            raise InvalidPageToken
        return self._key_of(payload[_HEAD.size :])

    def _key_of(self, content: bytes) -> UUID | str:
        try:
            if self.key is UUID:
                return UUID(bytes=content)
            text = content.decode()
        except ValueError as error:
            raise InvalidPageToken from error
        if "\0" in text:  # PostgreSQL has no such text
            raise InvalidPageToken
        return text

    def _digest(self, payload: bytes) -> bytes:
        query = "\0".join(self.query).encode()
        return hashlib.blake2b(payload + query, digest_size=_DIGEST_BYTES).digest()
