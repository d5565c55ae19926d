"""Replicas that accept calls and never answer: a client sends a read to another one, a write never."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from typing import TYPE_CHECKING

import grpc
import pytest
from grpc import aio

from chassis.client import CallPolicy, connect
from chassis.testing import new_uuid, until
from tests.support.hanging import Replica, serving
from tests.support.notes_svc import notes_pb2 as pb
from tests.support.notes_svc.notes_pb2_grpc import NoteServiceStub
from tests.support.notes_svc.requests import NOTE_SERVICE, create_note_request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@contextlib.asynccontextmanager
async def notes_at(*replicas: Replica, timeout_s: float) -> AsyncIterator[NoteServiceStub]:
    """Serve while the block runs; yield a client that hedges its reads after 50 ms."""
    async with serving(*replicas):
        target = f"ipv4:{','.join(replica.address for replica in replicas)}"
        async with connect(target, policy=CallPolicy(timeout_s=timeout_s, hedge_after_s=0.05)) as channel:
            yield NoteServiceStub(channel)


async def test_a_client_gets_a_read_from_the_replica_that_answers() -> None:
    hanging, answering = Replica(answers_after_s=math.inf), Replica(answers_after_s=0)

    async with notes_at(hanging, answering, timeout_s=10) as notes:
        # One after the other: each begins with the next replica.
        for _ in range(20):
            await notes.FindNotes(pb.FindNotesRequest())

    assert hanging.calls[f"{NOTE_SERVICE}/FindNotes"] >= 5
    assert answering.calls[f"{NOTE_SERVICE}/FindNotes"] == 20


async def test_a_client_sends_a_write_once_however_long_the_answer_takes() -> None:
    replicas = Replica(answers_after_s=math.inf), Replica(answers_after_s=math.inf)

    async with notes_at(*replicas, timeout_s=0.5) as notes:
        with pytest.raises(aio.AioRpcError) as failed:
            await notes.CreateNote(create_note_request())

    assert failed.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert sum((replica.calls for replica in replicas), Counter[str]()) == {f"{NOTE_SERVICE}/CreateNote": 1}


async def test_an_unanswered_read_ends_at_its_deadline_with_all_its_attempts() -> None:
    replicas = Replica(answers_after_s=math.inf), Replica(answers_after_s=math.inf)

    async def nothing_runs() -> bool:
        return all(replica.running == 0 for replica in replicas)

    async with notes_at(*replicas, timeout_s=0.5) as notes:
        with pytest.raises(aio.AioRpcError) as failed:
            await notes.GetNote(pb.GetNoteRequest(id=new_uuid()))
        await until(nothing_runs)

    assert failed.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert sum(replica.calls[f"{NOTE_SERVICE}/GetNote"] for replica in replicas) == 3
