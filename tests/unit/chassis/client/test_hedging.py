"""Hedged reads: which of several tries is the caller's answer, and what becomes of the others."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import grpc
import pytest

from chassis.client.hedging import hedged, is_read
from tests.support.notes_svc import notes_pb2 as pb
from tests.support.notes_svc.requests import NOTE_SERVICE
from tests.support.turns import some_turns

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

OK, NOT_FOUND = grpc.StatusCode.OK, grpc.StatusCode.NOT_FOUND
UNAVAILABLE, INTERNAL = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL
AT_ONCE_S, NEVER_S = 0.0, 600.0


class Try:
    """A call of gRPC that ends when the test says so."""

    def __init__(self, timeout_s: float, ends_with: grpc.StatusCode | None) -> None:
        self.timeout_s = timeout_s
        self.is_cancelled = False
        self.end: asyncio.Future[grpc.StatusCode] = asyncio.get_running_loop().create_future()
        if ends_with is not None:
            self.end.set_result(ends_with)

    async def code(self) -> grpc.StatusCode:
        return await asyncio.shield(self.end)

    def cancel(self) -> None:
        self.is_cancelled = True


class Replicas:
    """Replicas that end the first try, the second … with these codes; None for a replica that hangs."""

    def __init__(self, *codes: grpc.StatusCode | None, before: Callable[[], Awaitable[None]] | None = None) -> None:
        self.tries: list[Try] = []
        self._codes = codes
        self._before = before

    async def send(self, timeout_s: float) -> Try:
        if self.tries and self._before:
            await self._before()
        self.tries.append(Try(timeout_s, self._codes[len(self.tries)]))
        return self.tries[-1]

    async def answer(self, *, after_s: float, timeout_s: float = NEVER_S) -> int:
        """Return the number of the try that the caller gets, from 1."""
        found = await hedged(self.send, timeout_s=timeout_s, after_s=after_s)
        return self.tries.index(found) + 1


def test_a_client_hedges_unary_reads_and_nothing_else() -> None:
    paths = {each.name: f"{NOTE_SERVICE}/{each.name}" for each in pb.DESCRIPTOR.services_by_name["NoteService"].methods}
    reads = {"GetNote", "FindNotes", "ListNotes"}

    assert {name for name, path in paths.items() if is_read(path)} == reads
    assert {name for name, path in paths.items() if is_read(path.encode())} == reads  # as gRPC has it
    assert not is_read(f"{NOTE_SERVICE}/Nothing")
    assert not is_read("/no.such.Service/Get")


@pytest.mark.parametrize("code", [OK, NOT_FOUND, UNAVAILABLE])
async def test_a_read_that_ends_in_time_is_sent_once(code: grpc.StatusCode) -> None:
    replicas = Replicas(code, OK)

    assert await replicas.answer(after_s=NEVER_S) == 1
    assert len(replicas.tries) == 1


async def test_a_read_whose_answer_takes_a_moment_is_sent_once() -> None:
    replicas = Replicas(None, OK)
    waiting = asyncio.create_task(replicas.answer(after_s=NEVER_S))
    await some_turns()

    replicas.tries[0].end.set_result(OK)

    assert await waiting == 1
    assert len(replicas.tries) == 1


@pytest.mark.parametrize(
    ("codes", "answer"),
    [
        ((None, OK), 2),
        ((None, NOT_FOUND), 2),  # an answer too: of a replica that works
        ((None, UNAVAILABLE, OK), 3),
        ((None, None, OK), 3),
    ],
)
async def test_the_first_answer_counts_and_every_try_is_given_up(
    codes: tuple[grpc.StatusCode | None, ...], answer: int
) -> None:
    replicas = Replicas(*codes)

    assert await replicas.answer(after_s=AT_ONCE_S) == answer
    assert len(replicas.tries) == answer
    assert all(each.is_cancelled for each in replicas.tries)


async def test_a_failure_is_the_answer_only_once_every_try_has_failed() -> None:
    replicas = Replicas(None, None, UNAVAILABLE)
    waiting = asyncio.create_task(replicas.answer(after_s=AT_ONCE_S))
    await some_turns()
    replicas.tries[0].end.set_result(INTERNAL)
    await some_turns()
    assert not waiting.done()

    replicas.tries[1].end.set_result(INTERNAL)

    assert await waiting == 3


async def test_an_answer_that_comes_while_the_next_try_is_sent_is_not_lost() -> None:
    async def answer_first() -> None:
        replicas.tries[0].end.set_result(OK)
        await some_turns()

    replicas = Replicas(None, None, None, before=answer_first)

    async with asyncio.timeout(5):
        assert await replicas.answer(after_s=AT_ONCE_S) == 1


async def test_all_tries_end_with_the_callers_deadline() -> None:
    began = time.monotonic()
    replicas = Replicas(None, None, OK)

    await replicas.answer(after_s=AT_ONCE_S, timeout_s=20)

    timeouts = [each.timeout_s for each in replicas.tries]
    assert 20 >= timeouts[0] >= timeouts[1] >= timeouts[2] >= 20 - (time.monotonic() - began)


async def test_after_the_deadline_no_try_has_any_time() -> None:
    replicas = Replicas(None, None, OK)

    await replicas.answer(after_s=AT_ONCE_S, timeout_s=0)

    assert [each.timeout_s for each in replicas.tries] == [0, 0, 0]


async def test_a_caller_that_leaves_gives_up_every_try() -> None:
    replicas = Replicas(None, None, None)
    waiting = asyncio.create_task(replicas.answer(after_s=AT_ONCE_S))
    await some_turns()

    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)

    assert all(each.is_cancelled for each in replicas.tries)
    assert len(asyncio.all_tasks()) == 1  # this test: nothing waits for a code any more
