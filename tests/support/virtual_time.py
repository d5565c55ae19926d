"""An event loop whose clock is the test's: when nothing is left to do, it is at once the time of the next timer."""

from __future__ import annotations

import asyncio
import selectors
from typing import TYPE_CHECKING, Any, TypeVar

from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")


class _Selector(selectors.DefaultSelector):
    """Lets no time pass in waiting, but says how long it would have waited."""

    waited_s: float = 0.0

    @override
    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise AssertionError("somebody waits for ever")
        self.waited_s += max(timeout, 0)
        return super().select(0)


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    @override
    def time(self) -> float:
        return 1000.0 + self._virtual.waited_s


def run(main: Coroutine[Any, Any, T]) -> T:
    """Return what the coroutine returns; `asyncio.sleep` and all timers take no time.

    Fails if the coroutine waits for something that no timer will bring.
    """
    with asyncio.Runner(loop_factory=_Loop) as runner:
        return runner.run(main)
