"""Large messages of concurrent calls, with time for other calls in between."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from chassis.server.large_messages import LargeMessages
from tests.support.turns import counted_turns

TAKES_S: Final = 0.02
MESSAGES: Final = 5


def show(row: int) -> str:
    """Return the message of a row, after as much work."""
    ends_s = time.monotonic() + TAKES_S
    while time.monotonic() < ends_s:
        pass
    if row < 0:
        raise ValueError
    return str(row)


async def test_others_get_as_much_time_as_large_messages_take() -> None:
    large = LargeMessages()

    async with counted_turns() as turns:
        began_s = time.monotonic()
        made = await asyncio.gather(*[large.make(show, number) for number in range(MESSAGES)])
        took_s = time.monotonic() - began_s

    assert made == [str(number) for number in range(MESSAGES)]
    assert took_s >= (2 * MESSAGES - 1) * TAKES_S
    assert turns.longest_s < 2 * TAKES_S
    assert turns.count > 10 * MESSAGES


async def test_a_message_that_no_other_precedes_is_made_at_once() -> None:
    large = LargeMessages()
    await large.make(show, 0)
    await asyncio.sleep(2 * TAKES_S)  # others have had their time

    async with counted_turns() as turns:
        await large.make(show, 1)

    assert turns.count <= 3


async def test_a_message_that_cannot_be_made_keeps_no_other_waiting() -> None:
    large = LargeMessages()

    failed, made = await asyncio.gather(large.make(show, -1), large.make(show, 1), return_exceptions=True)

    assert (type(failed), made) == (ValueError, "1")


async def test_a_caller_that_leaves_gives_up_its_turn() -> None:
    large = LargeMessages()
    callers = [asyncio.create_task(large.make(show, number)) for number in range(3)]
    await asyncio.sleep(0)  # all of them wait

    callers[1].cancel()

    assert await asyncio.gather(*callers, return_exceptions=True) != []
    assert (callers[0].result(), callers[1].cancelled(), callers[2].result()) == ("0", True, "2")
