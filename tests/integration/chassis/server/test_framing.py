"""Calls whose bytes are no message, or none that is whole: every method answers at once, with a reason."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import pytest
from grpc import StatusCode

from chassis.testing import admins_token, bearer, new_uuid, until
from tests.integration.chassis.server.test_wire import METHODS
from tests.integration.http2 import caller_of, frame
from tests.support.notes_svc import notes_pb2
from tests.support.notes_svc.requests import NOTE_SERVICE

if TYPE_CHECKING:
    from collections.abc import Sequence

INVALID_ARGUMENT: Final[int] = StatusCode.INVALID_ARGUMENT.value[0]
UNAUTHENTICATED: Final[int] = StatusCode.UNAUTHENTICATED.value[0]
NOT_FOUND: Final[int] = StatusCode.NOT_FOUND.value[0]
OF_GRPC: Final = ["/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"]
GET_NOTE: Final = f"{NOTE_SERVICE}/GetNote"
# Far below the 30 s that a call may take; far above what an answer takes.
AT_ONCE_S: Final = 5
CALLS: Final = 20


def a_request() -> bytes:
    return notes_pb2.GetNoteRequest(id=new_uuid()).SerializeToString()


@pytest.mark.parametrize("method", [*METHODS, *OF_GRPC])
async def test_a_call_without_a_message_is_refused_at_once(notes_address: str, method: str) -> None:
    async with caller_of(notes_address) as caller:
        answer = await caller.call(method, b"", headers=bearer(admins_token()), timeout_s=AT_ONCE_S)

    assert (answer.code, answer.reason) == (INVALID_ARGUMENT, "MALFORMED_REQUEST")


CUT: Final = {
    "one byte": b"\0",
    "half a prefix": b"\0\0\0",
    "prefix only": frame(b"", length=38),
    "begun": frame(b"\x0a\x24", length=38),
    "one byte short": frame(a_request())[:-1],
    "one byte of four megabytes": frame(b"a", length=4 * 1024 * 1024),
}


@pytest.mark.parametrize("body", CUT.values(), ids=CUT)
async def test_a_message_that_is_cut_is_refused_at_once(notes_address: str, body: bytes) -> None:
    async with caller_of(notes_address) as caller:
        answer = await caller.call(GET_NOTE, body, headers=bearer(admins_token()), timeout_s=AT_ONCE_S)

    assert (answer.code, answer.reason) == (INVALID_ARGUMENT, "MALFORMED_REQUEST")


# These gRPC itself refuses, before we have a say: at once, and without a reason.
REFUSED_BY_GRPC: Final = {
    "compressed by nothing": (frame(a_request(), flag=1), (), StatusCode.INTERNAL),
    "no gzip": (frame(a_request(), flag=1), (("grpc-encoding", "gzip"),), StatusCode.INTERNAL),
    "compressed by what we do not know": (frame(a_request(), flag=1), (("grpc-encoding", "x"),), StatusCode.INTERNAL),
    "a deadline that is none": (frame(a_request()), (("grpc-timeout", "soon"),), StatusCode.INTERNAL),
    "over four megabytes": (frame(b"a", length=4 * 1024 * 1024 + 1), (), StatusCode.RESOURCE_EXHAUSTED),
    "four gigabytes": (frame(b"a", length=2**32 - 1), (), StatusCode.RESOURCE_EXHAUSTED),
}


@pytest.mark.parametrize(("body", "headers", "code"), REFUSED_BY_GRPC.values(), ids=REFUSED_BY_GRPC)
async def test_a_frame_that_grpc_cannot_read_is_refused_at_once(
    notes_address: str, body: bytes, headers: Sequence[tuple[str, str]], code: StatusCode
) -> None:
    async with caller_of(notes_address) as caller:
        answer = await caller.call(GET_NOTE, body, headers=[*bearer(admins_token()), *headers], timeout_s=AT_ONCE_S)

    assert answer.code == code.value[0]


@pytest.mark.parametrize("rest", [frame(a_request()), b"\0", frame(b"")], ids=["whole", "cut", "empty"])
async def test_the_first_of_two_messages_counts(notes_address: str, rest: bytes) -> None:
    async with caller_of(notes_address) as caller:
        answer = await caller.call(GET_NOTE, frame(a_request()) + rest, headers=bearer(admins_token()))

    assert (answer.code, answer.reason) == (NOT_FOUND, "NOTE_NOT_FOUND")


async def test_a_stranger_is_refused_before_the_message_comes(notes_address: str) -> None:
    async with caller_of(notes_address) as caller:
        stream = await caller.begin(GET_NOTE)

        answer = await caller.answer(stream, timeout_s=AT_ONCE_S)

    assert (answer.code, answer.reason) == (UNAUTHENTICATED, "TOKEN_INVALID")


async def test_a_call_whose_message_does_not_come_ends_with_its_deadline(notes_address: str) -> None:
    async with caller_of(notes_address) as caller:
        stream = await caller.begin(GET_NOTE, headers=[*bearer(admins_token()), ("grpc-timeout", "200m")])

        answer = await caller.answer(stream, timeout_s=AT_ONCE_S)

    assert answer.was_reset or answer.code == StatusCode.DEADLINE_EXCEEDED.value[0]


async def test_a_call_reset_before_its_message_logs_no_error(
    notes_address: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ""

    async def has_ended() -> bool:
        nonlocal lines
        lines += capsys.readouterr().out
        return lines.count("rpc.handled") == 2 * CALLS

    async with caller_of(notes_address) as caller:
        for _ in range(CALLS):
            stream = await caller.begin(GET_NOTE, headers=bearer(admins_token()))
            # Once a later call has been answered the service waits for the first one's message.
            await caller.call(GET_NOTE, frame(a_request()), headers=bearer(admins_token()))
            await caller.reset(stream)
        await until(has_ended)

    assert lines.count("code=CANCELLED") == CALLS
    assert [each.message for each in caplog.records if each.levelno >= logging.WARNING] == []
