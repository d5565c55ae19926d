"""An event loop whose turns and time a test controls, so that a timer and an answer can fall into the same turn."""

from __future__ import annotations

import asyncio
import selectors
from typing import TYPE_CHECKING, Any

from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Mapping


class _NeverReady(selectors.BaseSelector):
    """A selector without sockets, which never waits."""

    def __init__(self) -> None:
        self._keys: dict[Any, selectors.SelectorKey] = {}

    @override
    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        self._keys[fileobj] = selectors.SelectorKey(fileobj, 0, events, data)
        return self._keys[fileobj]

    @override
    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(fileobj)

    @override
    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return []

    @override
    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._keys


class SteppedLoop(asyncio.SelectorEventLoop):
    """asyncio's loop, standing still between turn() and advance()."""

    def __init__(self) -> None:
        self._now = 1000.0
        super().__init__(_NeverReady())

    @override
    def time(self) -> float:
        return self._now

    def advance(self, by_s: float) -> None:
        """Advance the time; due timers run in the next turn, after the callbacks that are ready already."""
        self._now += by_s

    def turn(self, count: int = 1) -> None:
        """Run the callbacks that are ready; repeat `count` times."""
        for _ in range(count):
            self.call_soon(self.stop)
            self.run_forever()
