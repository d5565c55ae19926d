"""Writes to a database that takes none for a while."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpc import StatusCode

from chassis.testing import refusal_of
from tests.integration.databases import read_only

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from tests.integration.databases import TestDatabase


async def require_refused_while_read_only(
    database: TestDatabase,
    writes: Mapping[str, Callable[[], Awaitable[object]]],
    *,
    read: Callable[[], Awaitable[object]],
) -> None:
    """Require that each write is refused while the database takes none, as `read` is not, and done once it does."""
    found = await read()
    with read_only(database):
        refusals = {name: await refusal_of(write()) for name, write in writes.items()}
        assert await read() == found
    for write in writes.values():
        await write()

    for name, refusal in refusals.items():
        assert (name, refusal.code, refusal.reason) == (name, StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE")
        assert (refusal.retry_after_s, refusal.retry_after_header) == (1, "1")
