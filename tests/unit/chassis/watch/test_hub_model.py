"""Streams of changes, driven at random: timers, answers, offers and cancels in any order, and in one turn of the loop.

After every step: nothing lost, nothing doubled, nothing out of order, and no token ahead of what was delivered.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from contextlib import aclosing
from typing import Any, Final
from uuid import UUID

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from chassis.errors import DatabaseUnavailable, DomainError, ResumeTokenExpired, ServerStopping, StreamTooSlow
from chassis.watch.feed import FeedEvent
from chassis.watch.hub import WatchHub
from chassis.watch.settings import WatchSettings
from tests.support.feed_in_memory import FeedInMemory
from tests.support.stepped_loop import SteppedLoop

HEARTBEAT_S: Final = 1.0
POLL_S: Final = 0.1
# Small, so that pages end and buffers overflow within a few events.
SETTINGS: Final = WatchSettings(poll_s=POLL_S, heartbeat_s=HEARTBEAT_S, buffer=3, page=2, max_of_one_caller=100_000)
OWNERS: Final = ("ada", "bob")
OWNER_OR_ALL: Final = st.sampled_from((*OWNERS, None))
REPLICAS: Final = 2

# A message is the event, or the token of a heartbeat.
Message = Any


class Client:
    """A caller that follows one owner's changes, or those of all, and resumes with tokens that it got.

    Attributes:
        token: everything up to here was received, or is not wanted; None before the first message.
        tokens: every token that came.
        is_open: whether its stream is.
    """

    def __init__(self, feed: FeedInMemory, owner: str | None) -> None:
        self.feed = feed
        self.owner = owner
        self.token: UUID | None = None
        self.tokens: list[UUID] = []
        self.may_read = asyncio.Semaphore(0)
        self.task: asyncio.Task[None] | None = None
        self.disruptions = 0

    @property
    def is_open(self) -> bool:
        return self.task is not None and not self.task.done()

    def open(self, loop: SteppedLoop, hub: WatchHub[Message], token: UUID | None) -> None:
        self.token = token
        self.may_read = asyncio.Semaphore(0)
        self.disruptions = self.feed.swept + len(self.feed.past)
        self.hub = hub
        self.task = loop.create_task(self._follow(hub))

    async def _follow(self, hub: WatchHub[Message]) -> None:
        try:
            async with aclosing(hub.watch(owner=self.owner, after=self.token, caller=self.owner or "")) as messages:
                async for message in messages:
                    await self.may_read.acquire()  # until then it is on its way, and a cancel loses it
                    self._receive(message)
        except DomainError as error:
            self._end(error)

    def _receive(self, message: Message) -> None:
        is_change = isinstance(message, FeedEvent)
        token = message.position.id if is_change else message
        if self.token is None:
            assert not is_change, "the first message is a heartbeat"
        else:
            self._require_next(token, message if is_change else None)
        self.token = token
        self.tokens.append(token)

    def _require_next(self, token: UUID, change: FeedEvent | None) -> None:
        """Fail unless nothing that is wanted lies between the last token and this message."""
        for timeline in (self.feed.timeline, *self.feed.past):
            before, now = self.feed.index_of(self.token, timeline), self.feed.index_of(token, timeline)
            if before is not None and now is not None:
                passed = timeline[before + 1 : now] if change else timeline[before + 1 : now + 1]
                assert now > before if change else now >= before, "doubled, or out of order"
                assert not [event for event in passed if self._wants(event)], "lost"
                assert change is None or self._wants(change), "not wanted"
                return
        raise AssertionError("from events that a restore removed on to those after it, in silence")

    def _wants(self, event: FeedEvent) -> bool:
        return event.type == "shown" and self.owner in {None, event.owner}

    def _end(self, error: DomainError) -> None:
        assert isinstance(error, (DatabaseUnavailable, ResumeTokenExpired, ServerStopping, StreamTooSlow)), error
        if self.token and (token := error.metadata.get("resumeToken")):
            self._receive(UUID(token))
        if isinstance(error, ResumeTokenExpired):
            is_disrupted = self.feed.swept + len(self.feed.past) > self.disruptions
            assert is_disrupted or not self.feed.stands(self.token), "its token is good"
            self.token = None  # begin anew, and list the orders again

    def has_all(self) -> bool:
        if self.token is None:
            return False
        index = self.feed.index_of(self.token)
        if index is None:
            return self._is_ahead_of_every_event(self.token)
        return not any(map(self._wants, self.feed.timeline[index + 1 :]))

    def _is_ahead_of_every_event(self, token: UUID) -> bool:
        """Return whether a restore removed the event, and none has taken its place: only the next one shows that."""
        numbers = [self.feed.index_of(token, timeline) for timeline in self.feed.past]
        return any(number is not None and number >= len(self.feed.timeline) for number in numbers)


class Streams(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = SteppedLoop()
        asyncio.set_event_loop(self.loop)
        self.errors: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _, context: self.errors.append(context))
        self.feed = FeedInMemory()
        self.clients: list[Client] = []
        self.running: list[asyncio.Task[None]] = []
        self.hubs = [self.new_hub() for _ in range(REPLICAS)]
        self.settle()

    def new_hub(self) -> WatchHub[Message]:
        hub: WatchHub[Message] = WatchHub(
            self.feed,
            show=lambda event: event if event.type == "shown" else None,
            heartbeat=lambda token: token,
            settings=SETTINGS,
        )
        self.running.append(self.loop.create_task(hub.run_forever()))
        return hub

    def settle(self) -> None:
        """Answer every question until there is none; no time passes."""
        for _ in range(50):
            questions, self.feed.questions = self.feed.questions, []
            for question in questions:
                question.settle()
            self.loop.turn(6)
            if not self.feed.questions:
                return
        raise AssertionError("it asks for ever without a pause")

    @rule(owner=st.sampled_from(OWNERS), kind=st.sampled_from(("shown", "shown", "shown", "hidden")))
    def commit(self, owner: str, kind: str) -> None:
        self.feed.commit(owner, kind=kind)

    @precondition(lambda self: len(self.clients) < 6)
    @rule(owner=OWNER_OR_ALL, hub=st.integers(0, REPLICAS - 1), is_read=st.booleans())
    def open(self, *, owner: str | None, hub: int, is_read: bool) -> None:
        client = Client(self.feed, owner)
        client.open(self.loop, self.hubs[hub], None)
        self.clients.append(client)
        if is_read:
            client.may_read = asyncio.Semaphore(10**6)
            self.settle()

    @rule(data=st.data(), hub=st.integers(0, REPLICAS - 1))
    def resume(self, data: st.DataObject, hub: int) -> None:
        closed = [client for client in self.clients if not client.is_open and client.tokens]
        if closed:
            client = data.draw(st.sampled_from(closed))
            token = client.token and data.draw(st.sampled_from((client.token, *client.tokens)))
            client.open(self.loop, self.hubs[hub], token)

    @precondition(lambda self: self.clients)
    @rule(data=st.data(), count=st.sampled_from((1, 2, 10**6)))
    def read(self, data: st.DataObject, count: int) -> None:
        client = data.draw(st.sampled_from(self.clients))
        for _ in range(min(count, 20)):
            client.may_read.release()

    @precondition(lambda self: any(client.is_open for client in self.clients))
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        client = data.draw(st.sampled_from([client for client in self.clients if client.is_open]))
        client.task.cancel()

    @precondition(lambda self: self.feed.questions)
    @rule(data=st.data(), is_late=st.booleans(), is_failing=st.sampled_from((False, False, False, True)))
    def answer(self, *, data: st.DataObject, is_late: bool, is_failing: bool) -> None:
        which = data.draw(st.integers(0, len(self.feed.questions) - 1))
        error = DatabaseUnavailable() if is_failing else None
        self.feed.questions.pop(which).settle(is_late=is_late, error=error)

    @rule(by_s=st.sampled_from((POLL_S, HEARTBEAT_S, 6.0)))
    def advance(self, by_s: float) -> None:
        self.loop.advance(by_s)

    @rule(count=st.integers(1, 6))
    def turn(self, count: int) -> None:
        self.loop.turn(count)

    @rule(owner=st.sampled_from(OWNERS), turns=st.integers(1, 2))
    def a_change_and_the_heartbeats_in_one_turn(self, owner: str, turns: int) -> None:
        self.settle()
        self.feed.commit(owner)
        self.loop.advance(POLL_S)
        self.loop.turn(turns)
        for question in self.feed.questions:
            question.settle()
        self.feed.questions.clear()
        self.loop.advance(HEARTBEAT_S)
        self.loop.turn()

    @rule()
    def let_all_settle(self) -> None:
        self.settle()

    @rule(times=st.integers(1, 6))
    def let_all_settle_slowly(self, times: int) -> None:
        """So that heartbeats fall due while streams catch up."""
        for _ in range(times):
            self.loop.advance(HEARTBEAT_S / 2)
            self.loop.turn(2)
            questions, self.feed.questions = self.feed.questions, []
            for question in questions:
                question.settle()
            self.loop.turn(6)

    @precondition(lambda self: any(client.is_open and client.token for client in self.clients))
    @rule(data=st.data(), owner=OWNER_OR_ALL, is_slow=st.booleans())
    def catch_up_while_the_tail_is_behind(self, data: st.DataObject, owner: str | None, *, is_slow: bool) -> None:
        other = data.draw(st.sampled_from([client for client in self.clients if client.is_open and client.token]))
        self.settle()
        self.loop.advance(POLL_S)
        self.loop.turn(3)  # the tails ask, and wait
        held, self.feed.questions = self.feed.questions, []
        for _ in range(data.draw(st.integers(1, 3))):
            self.feed.commit(owner or OWNERS[0])
        client = Client(self.feed, owner)
        client.open(self.loop, other.hub, other.token)
        client.may_read = asyncio.Semaphore(10)
        self.clients.append(client)
        self.settle()
        if is_slow:
            self.loop.advance(HEARTBEAT_S)
            self.settle()
        self.feed.questions += held

    @rule(which=st.integers(0, REPLICAS - 1))
    def roll_out(self, which: int) -> None:
        self.hubs[which].stop()
        self.hubs[which] = self.new_hub()

    @rule(count=st.integers(1, 3))
    def sweep(self, count: int) -> None:
        self.feed.sweep(count)

    @rule(count=st.integers(1, 2), since=st.integers(0, 2))
    def restore(self, count: int, since: int) -> None:
        self.feed.restore(count)
        for _ in range(since):  # in the places of the removed ones
            self.feed.commit("ada")

    @invariant()
    def nothing_has_failed(self) -> None:
        for client in self.clients:
            if client.task is not None and client.task.done() and not client.task.cancelled():
                client.task.result()
        assert not self.errors

    def teardown(self) -> None:
        try:
            self.must_deliver_everything()
        finally:
            tasks = [*self.running, *(client.task for client in self.clients if client.task)]
            for task in tasks:
                task.cancel()
            self.loop.turn(10)
            self.loop.close()
            asyncio.set_event_loop(None)

    def must_deliver_everything(self) -> None:
        """However it got there: once all is well, each client has all of it, and heartbeats come."""
        for _ in range(40):
            for client in self.clients:
                if not client.is_open:
                    client.open(self.loop, self.hubs[0], client.token)
                client.may_read.release()
                client.may_read.release()
            self.settle()
            self.loop.advance(0.4)
            self.loop.turn(2)
            self.nothing_has_failed()
        assert all(client.has_all() for client in self.clients), "in silence"
        counts = [len(client.tokens) for client in self.clients]
        for client, _ in itertools.product(self.clients, range(30)):
            client.may_read.release()
        for _ in range(12):
            self.settle()
            self.loop.advance(0.4)
            self.loop.turn(2)
        assert all(len(client.tokens) > count for client, count in zip(self.clients, counts, strict=True)), (
            "no heartbeat"
        )


TestStreams = Streams.TestCase
# A failure is not made smaller, which takes minutes: its steps are short enough to read. MODEL_EXAMPLES=10000 looks
# further than each run of the suite does.
TestStreams.settings = settings(
    max_examples=int(os.environ.get("MODEL_EXAMPLES", "100")),
    stateful_step_count=40,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    report_multiple_bugs=False,
)
