"""NoteService and KeyService over gRPC: messages to the model and back, nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from typing_extensions import override

from chassis import context
from chassis.clock import new_id
from chassis.context import calling_user
from chassis.idempotency.key import IdempotencyKey, key_of
from chassis.server.conversions import set_timestamp
from chassis.server.pagination import ListRequest
from chassis.versions import etag_of
from chassis.watch.hub import WatchHub
from tests.support.notes_svc import notes_pb2 as pb
from tests.support.notes_svc.errors import AuthorRequired
from tests.support.notes_svc.keys import KID
from tests.support.notes_svc.model import AuthorId, ChangeNote, Note, NoteFilter, NoteId, NoteState
from tests.support.notes_svc.notes_pb2_grpc import KeyServiceServicer, NoteServiceServicer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from google.protobuf.message import Message
    from grpc import aio

    from chassis.clock import Clock
    from chassis.watch.feed import Feed, FeedEvent
    from chassis.watch.settings import WatchSettings
    from tests.support.notes_svc.keys import TheKey
    from tests.support.notes_svc.service import NoteService

    Context = aio.ServicerContext[Any, Any]

_STATES = {NoteState.OPEN: pb.NOTE_STATE_OPEN, NoteState.ARCHIVED: pb.NOTE_STATE_ARCHIVED}
_STATES_BACK = {message: state for state, message in _STATES.items()}
# For a caller who watches the notes of another author: no author has it.
_NOBODY = str(UUID(int=0))


class NoteServicer(NoteServiceServicer):
    """Answers NoteService."""

    def __init__(self, service: NoteService, watch_hub: WatchHub[pb.WatchNotesResponse], clock: Clock) -> None:
        self._service = service
        self._watch_hub = watch_hub
        self._clock = clock

    @override
    async def CreateNote(self, request: pb.CreateNoteRequest, context: Context) -> pb.Note:
        now = self._clock.now()
        note = Note(
            id=NoteId(new_id()),
            author_id=_author(request.author_id),
            text=request.text,
            labels=tuple(request.labels),
            quoted_id=UUID(request.quoted_note_id) if request.quoted_note_id else None,
            state=NoteState.OPEN,
            created_at=now,
            updated_at=now,
            version=1,
        )
        return _to_message(await self._service.create_note(note, key=self._key(request)))

    @override
    async def GetNote(self, request: pb.GetNoteRequest, context: Context) -> pb.Note:
        return _to_message(await self._service.get_note(NoteId(UUID(request.id)), owner=_owner()))

    @override
    async def FindNotes(self, request: pb.FindNotesRequest, context: Context) -> pb.FindNotesResponse:
        found = await self._service.which([NoteId(UUID(note_id)) for note_id in request.ids])
        return pb.FindNotesResponse(ids=map(str, found))

    @override
    async def ListNotes(self, request: pb.ListNotesRequest, context: Context) -> pb.ListNotesResponse:
        author_id = AuthorId(UUID(request.author_id)) if request.author_id else None
        filters = NoteFilter(owner=_owner(), author_id=author_id, state=_STATES_BACK.get(request.state))
        listing = ListRequest(request, now=self._clock.now(), owner=filters.owner)
        found = await self._service.list_notes(listing.page, filters=filters)
        notes, next_page_token = await listing.answer(found, _to_message)
        return pb.ListNotesResponse(notes=notes, next_page_token=next_page_token)

    @override
    async def UpdateNote(self, request: pb.UpdateNoteRequest, context: Context) -> pb.Note:
        text = request.text if request.HasField("text") else None
        command = ChangeNote(note_id=NoteId(UUID(request.id)), owner=_owner(), text=text, etag=request.etag)
        return _to_message(await self._service.change_note(command, key=self._key(request)))

    @override
    async def ArchiveNote(self, request: pb.ArchiveNoteRequest, context: Context) -> pb.Note:
        command = ChangeNote(
            note_id=NoteId(UUID(request.id)), owner=_owner(), state=NoteState.ARCHIVED, etag=request.etag
        )
        return _to_message(await self._service.change_note(command, key=self._key(request)))

    @override
    def WatchNotes(self, request: pb.WatchNotesRequest, context: Context) -> AsyncIterator[pb.WatchNotesResponse]:
        owner = str(_owner() or "")
        author_id = str(UUID(request.author_id)) if request.author_id else ""
        whose = _NOBODY if owner and author_id and owner != author_id else owner or author_id or None
        after = UUID(request.resume_token) if request.resume_token else None
        return self._watch_hub.watch(owner=whose, after=after, caller=calling_user())

    def _key(self, request: Message) -> IdempotencyKey:
        return key_of(request, now=self._clock.now())


class KeyServicer(KeyServiceServicer):
    """Answers KeyService."""

    def __init__(self, key: TheKey) -> None:
        self._key = key

    @override
    async def GetKeys(self, request: pb.GetKeysRequest, context: Context) -> pb.Keys:
        return pb.Keys(keys=[pb.Key(kid=KID, x=self._key.x)])


def note_watch_hub(feed: Feed, settings: WatchSettings) -> WatchHub[pb.WatchNotesResponse]:
    """Return the hub that serves WatchNotes streams from the feed, whose events have the owner `authorId`."""
    return WatchHub(
        feed,
        show=_to_change,
        heartbeat=lambda token: pb.WatchNotesResponse(resume_token=str(token)),
        settings=settings,
    )


def _owner() -> AuthorId | None:
    owner = context.current_owner()
    return AuthorId(owner) if owner else None


def _author(named: str) -> AuthorId:
    """Return the author whom the caller names and may name, else the caller."""
    call = context.current_call()
    try:
        own = UUID(call.caller.subject if call else "")
    except ValueError:  # a service has a name and no id
        own = None
    author = _owner() or (UUID(named) if named else own)
    if author is None:
        raise AuthorRequired
    return AuthorId(author)


def _to_message(note: Note) -> pb.Note:
    message = pb.Note(
        id=str(note.id),
        author_id=str(note.author_id),
        text=note.text,
        labels=note.labels,
        state=_STATES[note.state],
        etag=note.etag,
    )
    set_timestamp(message.created_at, note.created_at)
    set_timestamp(message.updated_at, note.updated_at)
    return message


def _to_change(event: FeedEvent) -> pb.WatchNotesResponse | None:
    if event.type not in {"note.created", "note.changed"}:
        return None
    change = pb.NoteChange(
        id=str(event.position.id),
        note_id=str(event.subject),
        author_id=event.owner,
        state=_STATES[NoteState(event.data.get("state", NoteState.OPEN))],
        etag=etag_of(event.sequence),
    )
    set_timestamp(change.occurred_at, event.occurred_at)
    return pb.WatchNotesResponse(resume_token=str(event.position.id), change=change)
