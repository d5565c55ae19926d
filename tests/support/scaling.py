"""Replicas that are added to a name and removed from it, while calls run."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

from chassis.testing import until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.support.name_server import NameServer

FIRST, SECOND = "127.0.0.2", "127.0.0.3"
# A twentieth of the product's age of a connection.
AGE_S = 1
CALLS = 2000
_CALLERS = 8
_PATIENCE_S = 30


async def call_while_replicas_come_and_go(
    call: Callable[[], Awaitable[object]], *, names: NameServer, calls: Counter[str]
) -> int:
    """Call without a pause while the name stands for one replica, for both, and for the other one.

    Returns how many calls were answered, which is all of them.

    Raises:
        TimeoutError: a replica that was added got no call, or one that was removed still gets calls.
    """
    answered = 0
    is_over = False

    async def go_on() -> None:
        nonlocal answered
        while not is_over:
            await call()
            answered += 1

    def gets_calls(address: str) -> Callable[[], Awaitable[bool]]:
        before = calls[address]

        async def is_so() -> bool:
            return calls[address] >= before + 50

        return is_so

    async def are_enough() -> bool:
        return answered >= CALLS

    seen = Counter[str]()

    async def is_left_alone() -> bool:
        nonlocal seen
        if calls[FIRST] != seen[FIRST]:
            seen = calls.copy()
        return calls[SECOND] >= seen[SECOND] + 200

    async with asyncio.TaskGroup() as tasks:
        for _ in range(_CALLERS):
            tasks.create_task(go_on())
        try:
            await until(gets_calls(FIRST), timeout_s=_PATIENCE_S)
            assert calls[SECOND] == 0
            names.addresses = [FIRST, SECOND]
            await until(gets_calls(SECOND), timeout_s=_PATIENCE_S)
            names.addresses = [SECOND]
            await until(is_left_alone, timeout_s=_PATIENCE_S)
            left = calls[FIRST]
            await until(are_enough, timeout_s=_PATIENCE_S)
            assert calls[FIRST] == left
        finally:
            is_over = True
    return answered
