"""The steps around a server stream: what its caller gets, in which order, and what is counted and logged.

gRPC is not here: its context is what a test says it is.
"""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from google.rpc import error_details_pb2
from grpc import StatusCode, aio
from structlog.testing import capture_logs

from chassis.context import Call, Caller, current_call
from chassis.errors import DomainError, MalformedRequest, Overloaded, RoleRequired
from chassis.server.stream_wrapper import NoEndField, wrap_stream
from chassis.telemetry.metrics import REGISTRY
from tests.support.notes_svc import notes_pb2 as pb
from tests.support.notes_svc.requests import NOTE_SERVICE
from tests.support.turns import some_turns

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

METHOD = f"{NOTE_SERVICE}/WatchNotes"
REQUEST = pb.WatchNotesRequest()
ONE, TWO = pb.WatchNotesResponse(resume_token="1"), pb.WatchNotesResponse(resume_token="2")
CALLER = Caller(subject="ada")


class Context:
    """What gRPC knows of a stream's call, and what it was given.

    Attributes:
        written: the messages that it took.
        code: of the status that ended the call; None if it ended without an error.
        may_write: while it is not set the caller does not read.
    """

    def __init__(self, *, metadata: tuple[tuple[str, str], ...] = (), time_left_s: float | None = None) -> None:
        self._metadata = metadata
        self._time_left_s = time_left_s
        self.written: list[pb.WatchNotesResponse] = []
        self.code: StatusCode | None = None
        self.may_write = asyncio.Event()
        self.may_write.set()

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._metadata

    def time_remaining(self) -> float | None:
        return self._time_left_s

    async def write(self, message: pb.WatchNotesResponse) -> None:
        self.written.append(message)
        await self.may_write.wait()

    async def abort(self, code: StatusCode, _message: str, _trailers: object) -> None:
        self.code = code
        raise aio.AbortError

    @property
    def end(self) -> str:
        """The reason in the last message; empty if that is an ordinary one."""
        info = error_details_pb2.ErrorInfo()
        last = self.written[-1] if self.written else pb.WatchNotesResponse()
        return info.reason if last.HasField("end") and last.end.details[0].Unpack(info) else ""


async def serve(
    context: Context,
    behaviour: Callable[[Any, Any], AsyncGenerator[Any, None]],
    *,
    request: Any = REQUEST,
    caller: Caller = CALLER,
    refusal: DomainError | None = None,
    max_s: float = 60,
) -> dict[str, Any]:
    """Serve the stream to its end; return its line of the log."""

    async def admit(call: Call, _context: object) -> None:
        if refusal is not None:
            raise refusal
        call.caller = caller

    handler: Any = SimpleNamespace(unary_stream=behaviour)
    stream = wrap_stream(METHOD, handler, admit, max_s=max_s, deprecated=lambda _request: ["a.B.old"])
    with capture_logs() as logs:
        await asyncio.gather(stream(request, context), return_exceptions=True)
    [line] = [entry for entry in logs if entry["event"] == "rpc.handled"]
    return dict(line)


def counted(code: str) -> tuple[float, float]:
    """Return how many streams are open, and how many ended with this code."""
    method = METHOD.strip("/")
    ended = {"rpc_method": method, "rpc_response_status_code": code}
    samples = [each for metric in REGISTRY.collect() for each in metric.samples if method in each.labels.values()]
    opened = sum(each.value for each in samples if "active" in each.name)
    total = sum(each.value for each in samples if ended.items() <= each.labels.items() and each.name.endswith("_total"))
    return opened, total


async def two_messages(_request: Any, _context: Any) -> AsyncGenerator[Any, None]:
    yield ONE
    yield TWO


async def one_message_for_ever(_request: Any, _context: Any) -> AsyncGenerator[Any, None]:
    yield ONE
    await asyncio.Event().wait()


def fails_after_one(error: Exception) -> Callable[[Any, Any], AsyncGenerator[Any, None]]:
    async def behaviour(_request: Any, _context: Any) -> AsyncGenerator[Any, None]:
        yield ONE
        raise error

    return behaviour


async def test_a_stream_that_ends_by_itself_has_its_messages_and_no_error() -> None:
    context = Context()
    seen: list[Any] = []

    async def behaviour(request: Any, _context: Any) -> AsyncGenerator[Any, None]:
        call = current_call()
        assert call is not None
        seen.extend((request, call.caller, counted("OK")[0], call.time_left_s()))
        yield ONE
        yield TWO

    opened, ended = counted("OK")
    line = await serve(context, behaviour)

    assert context.written == [ONE, TWO]
    assert context.code is None
    assert seen[:3] == [REQUEST, CALLER, opened + 1]
    assert 0 < seen[3] <= 60
    assert (line["code"], line["messages"], line["caller"], line["deprecated"]) == ("OK", 2, "ada", ["a.B.old"])
    assert 0 <= line["duration_ms"] < 60_000
    assert counted("OK") == (opened, ended + 1)


async def test_an_error_after_a_message_is_the_last_message_and_the_status() -> None:
    context = Context()

    line = await serve(context, fails_after_one(Overloaded()))

    assert context.written[:-1] == [ONE]
    assert context.end == "OVERLOADED"
    assert context.code is StatusCode.RESOURCE_EXHAUSTED
    assert (line["code"], line["reason"], line["messages"]) == ("RESOURCE_EXHAUSTED", "OVERLOADED", 1)


@pytest.mark.parametrize("refused", [{"request": MalformedRequest()}, {"refusal": RoleRequired([])}])
async def test_a_stream_that_is_refused_has_a_status_and_no_message(refused: dict[str, Any]) -> None:
    context = Context()

    line = await serve(context, two_messages, **refused)

    assert context.written == []
    assert context.code in {StatusCode.INVALID_ARGUMENT, StatusCode.PERMISSION_DENIED}
    assert line["messages"] == 0


async def test_a_caller_without_access_learns_nothing_about_the_request() -> None:
    context = Context()

    await serve(context, two_messages, request=MalformedRequest(), refusal=RoleRequired([]))

    assert context.code is StatusCode.PERMISSION_DENIED


async def test_a_header_that_means_nothing_for_a_stream_is_refused() -> None:
    context = Context(metadata=(("if-match", '"v1"'),))

    await serve(context, two_messages)

    assert context.code is StatusCode.INVALID_ARGUMENT
    assert context.written == []


@pytest.mark.parametrize(
    ("token_s", "max_s", "caller_s", "reason"),
    [
        (0.02, 60, None, "TOKEN_EXPIRED"),
        (0.02, 0.03, 60, "TOKEN_EXPIRED"),
        (60, 0.02, None, "DEADLINE_EXCEEDED"),
        (60, 60, 0.05, "DEADLINE_EXCEEDED"),
        (0.02, 60, 0.5, "TOKEN_EXPIRED"),
    ],
)
async def test_a_stream_ends_with_its_token_or_after_its_time_whichever_is_first(
    monkeypatch: pytest.MonkeyPatch, token_s: float, max_s: float, caller_s: float | None, reason: str
) -> None:
    monkeypatch.setattr("chassis.server.stream_wrapper._SENDING_S", 600.0)  # for what is being sent, not for the rest
    context = Context(time_left_s=caller_s)
    caller = Caller(subject="ada", expires_at_s=time.time() + token_s)

    line = await serve(context, one_message_for_ever, caller=caller, max_s=max_s)

    assert context.written[:-1] == [ONE]
    assert context.end == reason
    assert line["duration_ms"] >= 10


async def test_a_timer_that_fires_early_ends_the_stream_as_a_punctual_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    punctual = asyncio.timeout_at
    monkeypatch.setattr(asyncio, "timeout_at", lambda when: punctual(when - 0.02))
    context = Context()

    async def no_message(_request: Any, _context: Any) -> AsyncGenerator[Any, None]:
        await asyncio.Event().wait()
        yield ONE

    await serve(context, no_message, max_s=0.05)

    assert context.code is StatusCode.DEADLINE_EXCEEDED


async def test_a_timeout_within_a_stream_is_a_defect_and_not_the_end_of_its_time() -> None:
    context = Context()

    await serve(context, fails_after_one(TimeoutError()))

    assert context.end == "INTERNAL"


async def test_a_message_that_is_sent_when_the_time_is_up_is_sent_and_the_error_follows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("chassis.server.stream_wrapper._SENDING_S", 60.0)
    context = Context()
    context.may_write.clear()
    asyncio.get_running_loop().call_later(0.05, context.may_write.set)

    await serve(context, two_messages, max_s=0.02)

    assert context.written[:-1] == [ONE]
    assert context.end == "DEADLINE_EXCEEDED"


async def test_a_caller_that_does_not_read_gets_a_status_and_no_further_message(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("chassis.server.stream_wrapper._SENDING_S", 0.02)
    context = Context()

    async def behaviour(_request: Any, _context: Any) -> AsyncGenerator[Any, None]:
        yield ONE
        context.may_write.clear()
        yield TWO

    await serve(context, behaviour, max_s=0.02)

    assert context.written == [ONE, TWO]
    assert context.code is StatusCode.DEADLINE_EXCEEDED


async def test_a_stream_that_its_servicer_aborts_has_that_code_and_is_no_defect() -> None:
    context: Any = Context()
    context.code = lambda: StatusCode.NOT_FOUND

    async def behaviour(_request: Any, _context: Any) -> AsyncGenerator[Any, None]:
        yield ONE
        raise aio.AbortError

    before = counted("NOT_FOUND")[1]
    line = await serve(context, behaviour)

    assert line["code"] == "NOT_FOUND"
    assert counted("NOT_FOUND")[1] == before + 1


@pytest.mark.parametrize(("time_left_s", "code"), [(None, "CANCELLED"), (0.5, "CANCELLED"), (0, "DEADLINE_EXCEEDED")])
async def test_a_caller_that_leaves_before_its_deadline_has_cancelled(
    monkeypatch: pytest.MonkeyPatch, time_left_s: float | None, code: str
) -> None:
    stopped = SimpleNamespace(monotonic=lambda: 1000.0, time=time.time)
    for module in ("chassis.context", "chassis.server.stream_wrapper"):
        monkeypatch.setattr(f"{module}.time", stopped)
    context = Context(time_left_s=time_left_s)
    if time_left_s == 0:  # what is being sent at the deadline is cut off by gRPC
        context.may_write.clear()
    before = counted(code)
    serving = asyncio.create_task(serve(context, one_message_for_ever))
    await some_turns()
    [stream] = [task for task in asyncio.all_tasks() if task not in {serving, asyncio.current_task()}]

    stream.cancel()
    line = await serving

    assert stream.cancelled()
    assert (line["code"], context.code) == (code, None)
    assert counted(code) == (before[0], before[1] + 1)


def test_messages_without_a_field_for_the_end_are_refused() -> None:
    handler: Any = SimpleNamespace(unary_stream=two_messages)
    admit: Any = None

    with pytest.raises(NoEndField):
        wrap_stream(f"{NOTE_SERVICE}/GetNote", handler, admit, max_s=1, deprecated=None)
