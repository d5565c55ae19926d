"""For the tests of callers: the whole contract served from memory. In the wheel this package is `shop.testing`.

    def test_an_order_is_placed(shop_server: ShopServer) -> None:
        with shop_server.connect_sync(shop_server.create_user()) as channel:
            ...

Requests meet the same steps as in the services: the access rules, the validation, the state machines, the error
statuses, the pages and the streams are theirs. Only what the services keep in databases is kept here in memory.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from protos.testing.server import ShopServer, TestUser

__all__ = ["ShopServer", "TestUser"]


def __getattr__(name: str) -> object:
    # Late: pytest imports this package with every run, for its plugin, also where the extra is not installed.
    if name in __all__:
        return getattr(importlib.import_module(f"{__name__}.server"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
