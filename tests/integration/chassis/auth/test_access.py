"""Access to a service: every rpc by every kind of caller, and no access to the resources of other owners."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc import StatusCode, aio
from shop.system.v1 import access_pb2

from chassis.auth.access import NoAccessRule, rules_of
from chassis.auth.access_tokens import AccessTokens, TokenSettings
from chassis.context import Role
from chassis.database import Database
from chassis.server.server import Server
from chassis.server.system import SystemServicer
from chassis.telemetry.settings import TelemetrySettings
from chassis.testing import (
    LOOPBACK,
    SIGNER,
    admins_token,
    bearer,
    new_uuid,
    plain_channel,
    refusal_from,
    refusal_of,
    server_settings,
    services_token,
    token_of,
)
from tests.integration.inprocess import database_settings
from tests.support.notes_svc import notes_pb2 as pb
from tests.support.notes_svc.notes_pb2_grpc import (
    KeyServiceStub,
    NoteServiceServicer,
    NoteServiceStub,
    add_NoteServiceServicer_to_server,
)
from tests.support.notes_svc.requests import an_update, create_note_request

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from chassis.server.server import Register
    from tests.integration.databases import TestDatabase

STAFF: Final = ("support", "admin", "service")
EVERYBODY: Final = ("anonymous", "other", "owner", *STAFF)
FOREIGN: Final = "NOTE_NOT_FOUND"
ROLE: Final = "ROLE_REQUIRED"
# The rules of notes.proto, written down a second time: by rpc, its call, and what each caller is answered.
CALLS: Final[dict[str, tuple[Callable[[aio.Channel, pb.Note], Any], dict[str, str]]]] = {
    "CreateNote": (
        lambda channel, note: NoteServiceStub(channel).CreateNote(create_note_request(note.author_id)),
        {"other": "OK", "owner": "OK", **dict.fromkeys(STAFF, "OK")},
    ),
    "GetNote": (
        lambda channel, note: NoteServiceStub(channel).GetNote(pb.GetNoteRequest(id=note.id)),
        {"other": FOREIGN, "owner": "OK", **dict.fromkeys(STAFF, "OK")},
    ),
    "FindNotes": (
        lambda channel, note: NoteServiceStub(channel).FindNotes(pb.FindNotesRequest(ids=[note.id])),
        {"other": ROLE, "owner": ROLE, "support": ROLE, "admin": "OK", "service": "OK"},
    ),
    "ListNotes": (
        lambda channel, _note: NoteServiceStub(channel).ListNotes(pb.ListNotesRequest()),
        {"other": "OK", "owner": "OK", **dict.fromkeys(STAFF, "OK")},
    ),
    "UpdateNote": (
        lambda channel, note: NoteServiceStub(channel).UpdateNote(an_update(note.id)),
        {"other": FOREIGN, "owner": "OK", **dict.fromkeys(STAFF, "OK")},
    ),
    "ArchiveNote": (
        lambda channel, note: NoteServiceStub(channel).ArchiveNote(pb.ArchiveNoteRequest(id=note.id)),
        {"other": FOREIGN, "owner": "OK", **dict.fromkeys(STAFF, "OK")},
    ),
    "WatchNotes": (
        lambda channel, _note: _first(NoteServiceStub(channel).WatchNotes(pb.WatchNotesRequest())),
        {"other": "OK", "owner": "OK", **dict.fromkeys(STAFF, "OK")},
    ),
    "GetKeys": (
        lambda channel, _note: KeyServiceStub(channel).GetKeys(pb.GetKeysRequest()),
        dict.fromkeys(EVERYBODY, "OK"),
    ),
}


async def _first(stream: Any) -> Any:
    message = await stream.read()
    stream.cancel()
    return message


def token(caller: str, *, owner: str) -> str:
    tokens = {
        "anonymous": "",
        "other": token_of(new_uuid()),
        "owner": token_of(owner),
        "support": SIGNER.token(roles=(Role.USER, Role.SUPPORT)),
        "admin": admins_token(),
        "service": services_token(),
    }
    return tokens[caller]


def test_every_rpc_is_called() -> None:
    services = pb.DESCRIPTOR.services_by_name.values()

    assert {method.name for service in services for method in service.methods} == CALLS.keys()


@pytest.mark.parametrize("rpc", CALLS)
async def test_an_rpc_admits_the_callers_of_the_contract(
    notes: NoteServiceStub, notes_address: str, notes_database: TestDatabase, author: str, rpc: str
) -> None:
    call, rules = CALLS[rpc]
    outcomes: dict[str, str] = {}

    for caller in EVERYBODY:
        note = await notes.CreateNote(create_note_request(author))
        before = notes_database.everything()
        async with plain_channel(notes_address, token=token(caller, owner=author)) as channel:
            outcomes[caller] = outcome = await outcome_of(call(channel, note))
        if outcome != "OK":
            assert notes_database.everything() == before

    assert outcomes == {"anonymous": "TOKEN_INVALID", **rules}


async def outcome_of(call: Any) -> str:
    """Return the reason of the refusal, or OK."""
    try:
        await call
    except aio.AioRpcError as error:
        refusal = refusal_from(error)
        codes = {"TOKEN_INVALID": StatusCode.UNAUTHENTICATED, "ROLE_REQUIRED": StatusCode.PERMISSION_DENIED}
        assert refusal.code is codes.get(refusal.reason, refusal.code)
        return refusal.reason
    return "OK"


@pytest.mark.parametrize("rpc", [rpc for rpc, (_, rules) in CALLS.items() if rules["other"] == FOREIGN])
async def test_the_note_of_another_author_is_answered_as_a_missing_one(
    notes: NoteServiceStub, notes_address: str, author: str, rpc: str
) -> None:
    call, _ = CALLS[rpc]
    note, missing = await notes.CreateNote(create_note_request(author)), pb.Note(id=new_uuid(), author_id=author)

    async with plain_channel(notes_address, token=token_of(new_uuid())) as channel:
        of_foreign, of_missing = [await bytes_of(call(channel, each)) for each in (note, missing)]

    assert of_foreign.replace(note.id.encode(), b"<id>") == of_missing.replace(missing.id.encode(), b"<id>")


async def bytes_of(call: Any) -> bytes:
    """Return everything that a refused caller gets to see."""
    with pytest.raises(aio.AioRpcError) as failed:
        await call
    error = failed.value
    return repr((error.code(), error.details(), sorted(error.trailing_metadata() or ()))).encode()


@pytest.mark.parametrize("caller", STAFF)
async def test_staff_sees_all_notes_and_authors_see_theirs(
    notes: NoteServiceStub, notes_address: str, author: str, caller: str
) -> None:
    mine, others = await notes.CreateNote(create_note_request(author)), await notes.CreateNote(create_note_request())

    async def listed(by: str, **filters: str) -> set[str]:
        async with plain_channel(notes_address, token=token(by, owner=author)) as channel:
            page = await NoteServiceStub(channel).ListNotes(pb.ListNotesRequest(**filters))
        return {note.id for note in page.notes}

    assert await listed("owner") == {mine.id}
    assert await listed("owner", author_id=others.author_id) == set()
    assert await listed("other") == set()
    assert await listed(caller) == {mine.id, others.id}
    assert await listed(caller, author_id=others.author_id) == {others.id}


async def test_a_page_token_does_not_open_another_authors_list(notes: NoteServiceStub, author: str) -> None:
    for _ in range(2):
        await notes.CreateNote(create_note_request(author))
    first_page = await notes.ListNotes(pb.ListNotesRequest(page_size=1))
    request = pb.ListNotesRequest(page_size=1, page_token=first_page.next_page_token)

    refusal = await refusal_of(notes.ListNotes(request, metadata=bearer(token_of(new_uuid()))))

    assert refusal.reason == "INVALID_PAGE_TOKEN"


async def test_one_request_id_of_two_callers_is_two_requests(notes: NoteServiceStub) -> None:
    one, other = new_uuid(), new_uuid()
    request = pb.CreateNoteRequest(text="Buy tea", request_id=new_uuid())

    of_one = await notes.CreateNote(request, metadata=bearer(token_of(one)))
    of_other = await notes.CreateNote(request, metadata=bearer(token_of(other)))

    assert of_one.id != of_other.id
    assert (of_one.author_id, of_other.author_id) == (one, other)
    assert (await notes.CreateNote(request, metadata=bearer(token_of(one)))).id == of_one.id


async def test_a_request_id_of_one_caller_does_not_return_the_response_of_another(
    notes: NoteServiceStub, author: str
) -> None:
    note = await notes.CreateNote(create_note_request(author))
    update = an_update(note.id, request_id=new_uuid())
    await notes.UpdateNote(update, metadata=bearer(token_of(author)))

    refusal = await refusal_of(notes.UpdateNote(update, metadata=bearer(token_of(new_uuid()))))

    assert refusal.reason == FOREIGN


async def test_anonymous_callers_learn_nothing_about_validity(notes: NoteServiceStub) -> None:
    nobody = (("authorization", ""),)
    by_get = await refusal_of(notes.GetNote(pb.GetNoteRequest(id="no uuid"), metadata=nobody))
    by_list = await refusal_of(notes.ListNotes(pb.ListNotesRequest(page_size=-1), metadata=nobody))

    assert {by_get.reason, by_list.reason} == {"TOKEN_INVALID"}


async def test_a_missing_role_is_named(notes: NoteServiceStub) -> None:
    request = pb.FindNotesRequest(ids=[new_uuid()])

    refusal = await refusal_of(notes.FindNotes(request, metadata=bearer(token_of(new_uuid()))))

    assert (refusal.code, refusal.domain) == (StatusCode.PERMISSION_DENIED, "shop.system.v1")
    assert (refusal.reason, refusal.metadata) == ("ROLE_REQUIRED", {"roles": "ADMIN,SERVICE"})


# The rules themselves: what has none is not served.


class NoKeys:
    async def key(self, kid: str) -> Ed25519PublicKey | None:  # noqa: ARG002  there are none
        return None


def make_up_service(name: str, access: access_pb2.Access | None, *, takes_stream: bool = False) -> str:
    """Add a service with one rpc to the contract of this process; return its full name."""
    file = descriptor_pb2.FileDescriptorProto(name=f"tests/{name}.proto", package="tests", syntax="proto3")
    file.dependency.extend(["google/protobuf/empty.proto", "shop/system/v1/access.proto"])
    empty = ".google.protobuf.Empty"
    method = file.service.add(name=name).method.add(
        name="Call", input_type=empty, output_type=empty, client_streaming=takes_stream
    )
    if access is not None:
        method.options.Extensions[access_pb2.access].CopyFrom(access)
    descriptor_pool.Default().AddSerializedFile(file.SerializeToString())
    return f"tests.{name}"


def server_with(register: Register) -> Server:
    database = Database(database_settings(f"postgresql://nobody:wrong@{LOOPBACK}:1/none"), name="test")
    system = SystemServicer(TelemetrySettings(service_name="notes_svc"), database)
    return Server(server_settings(), register=register, system=system, tokens=AccessTokens(TokenSettings(), NoKeys()))


async def test_a_service_with_an_rpc_without_a_rule_does_not_start() -> None:
    name = make_up_service("WithoutRule", None)

    with pytest.raises(NoAccessRule, match=r"tests\.WithoutRule\.Call has no option"):
        server_with(lambda _server: [name])


def test_a_stream_of_requests_does_not_start_before_something_guards_it() -> None:
    name = make_up_service("Streaming", access_pb2.Access(owner=True), takes_stream=True)

    with pytest.raises(NoAccessRule, match=r"tests\.Streaming\.Call takes a stream"):
        rules_of([name])


def test_a_rule_without_roles_admits_no_caller() -> None:
    name = make_up_service("ForNobody", access_pb2.Access())

    [rule] = rules_of([name]).values()

    assert (rule.is_public, rule.is_for_owner, rule.roles) == (False, False, frozenset())


async def test_a_service_that_is_registered_and_not_declared_does_not_start() -> None:
    def register(server: aio.Server) -> list[str]:
        add_NoteServiceServicer_to_server(NoteServiceServicer(), server)
        return []

    with pytest.raises(NoAccessRule, match=r"/notes\.v1\.NoteService/\w+ is of a gRPC service that is registered"):
        server_with(register)
