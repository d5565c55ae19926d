"""Pages of the largest entries that the contract allows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

# Four bytes of UTF-8.
WIDE: Final = "\U0001f600"
# The largest message that a stock client takes.
STOCK_BYTES: Final = 4 * 1024 * 1024


async def walked(page_after: Callable[[str], Awaitable[Any]], field: str) -> tuple[list[str], list[int]]:
    """Return the ids on all pages, and how many bytes each page has."""
    ids: list[str] = []
    sizes: list[int] = []
    token = ""
    while True:
        page = await page_after(token)
        assert getattr(page, field), "a page without rows is no page"
        ids += [each.id for each in getattr(page, field)]
        sizes.append(page.ByteSize())
        token = page.next_page_token
        if not token:
            return ids, sizes
