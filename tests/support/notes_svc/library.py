"""The library over gRPC: FindNotes of another notes service, behind a circuit breaker."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final
from uuid import UUID

from chassis.client.breaker import CircuitOpen
from chassis.client.errors import is_dependency_failure
from tests.support.notes_svc import notes_pb2 as pb
from tests.support.notes_svc.errors import LibraryUnavailable
from tests.support.notes_svc.notes_pb2_grpc import NoteServiceStub

if TYPE_CHECKING:
    from collections.abc import Collection

    from grpc import aio

    from chassis.client.breaker import Breaker

# While the circuit is closed the next call is likely to succeed.
_RETRY_AFTER_S: Final = 1


class Library:
    """Asks the library."""

    def __init__(self, channel: aio.Channel, breaker: Breaker) -> None:
        self._stub = NoteServiceStub(channel)
        self._breaker = breaker

    async def missing(self, note_ids: Collection[UUID]) -> set[UUID]:
        """Return those of the notes that the library does not have.

        Raises:
            LibraryUnavailable: it does not answer, or the circuit is open.
        """
        request = pb.FindNotesRequest(ids=[str(note_id) for note_id in note_ids])
        try:
            found = await self._breaker.call(partial(self._ask, request))
        except CircuitOpen as error:
            raise LibraryUnavailable(retry_after_s=error.retry_after_s) from error
        except Exception as error:
            if is_dependency_failure(error):
                raise LibraryUnavailable(retry_after_s=_RETRY_AFTER_S) from error
            raise
        return {*note_ids} - {UUID(note_id) for note_id in found.ids}

    async def _ask(self, request: pb.FindNotesRequest) -> pb.FindNotesResponse:
        return await self._stub.FindNotes(request)
