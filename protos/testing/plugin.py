"""The pytest plugin: the fixture `shop_server`. The server is imported by the first test that uses it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from protos.testing.server import ShopServer


@pytest.fixture
def shop_server() -> Iterator[ShopServer]:
    """A shop of its own for each test, empty, on a free port of this machine."""
    try:
        from protos.testing.server import ShopServer  # noqa: PLC0415  pytest loads this plugin also without the extra
    except ImportError as error:
        raise pytest.UsageError(
            f"shop_server needs the extra `testing`: pip install 'shop[testing]' ({error})"
        ) from error
    with ShopServer() as server:
        yield server
