"""Access tokens that a service accepts and refuses by itself, without an edge before it."""

from __future__ import annotations

import base64
import time
from typing import TYPE_CHECKING
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from grpc import StatusCode

from chassis.auth.access_tokens import TokenSettings
from chassis.testing import bearer, plain_channel, refusal_of, token_of
from tests.support.notes_svc import notes_pb2 as pb
from tests.support.notes_svc.keys import KID
from tests.support.notes_svc.notes_pb2_grpc import KeyServiceStub
from tests.support.notes_svc.requests import create_note_request
from tests.support.tokens import DROPPED, claims_of, corpus, encoded, reasons, signed

if TYPE_CHECKING:
    from tests.support.notes_svc.notes_pb2_grpc import NoteServiceStub

LEEWAY_S = TokenSettings().leeway_s


@pytest.fixture
async def note(notes: NoteServiceStub, author: str) -> pb.Note:
    """A note of the author."""
    return await notes.CreateNote(create_note_request(author))


async def test_bad_tokens_are_refused(notes: NoteServiceStub, note: pb.Note) -> None:
    tokens = corpus(note.author_id)

    refused = await reasons(lambda metadata: notes.GetNote(pb.GetNoteRequest(id=note.id), metadata=metadata), tokens)

    assert len(tokens) > 80
    assert refused == dict.fromkeys(tokens, "TOKEN_INVALID")


async def test_a_public_method_ignores_the_token(notes_address: str) -> None:
    # A client that sends an expired token along must still get what needs none.
    async with plain_channel(notes_address, token="") as channel:
        keys = await KeyServiceStub(channel).GetKeys(pb.GetKeysRequest(), metadata=bearer("garbage"))

    assert [key.kid for key in keys.keys] == [KID]


async def test_a_token_that_was_good_has_expired(notes: NoteServiceStub, note: pb.Note) -> None:
    now = int(time.time())
    expired = {
        "just now": signed(claims_of(note.author_id, iat=now - 900, exp=now - LEEWAY_S - 1)),
        "long ago": signed(claims_of(note.author_id, iat=0, exp=900)),
    }

    refused = await reasons(lambda metadata: notes.ListNotes(pb.ListNotesRequest(), metadata=metadata), expired)

    assert refused == dict.fromkeys(expired, "TOKEN_EXPIRED")


async def test_an_expired_token_of_another_key_is_invalid_and_not_expired(
    notes: NoteServiceStub, note: pb.Note
) -> None:
    token = signed(claims_of(note.author_id, exp=900), key=Ed25519PrivateKey.generate())

    refusal = await refusal_of(notes.GetNote(pb.GetNoteRequest(id=note.id), metadata=bearer(token)))

    assert refusal.reason == "TOKEN_INVALID"


async def test_good_tokens_are_taken_however_they_are_written(notes: NoteServiceStub, note: pb.Note) -> None:
    now = int(time.time())
    good = {
        "as we make them": f"Bearer {token_of(note.author_id)}",
        "bearer in lower case": f"bearer {token_of(note.author_id)}",
        "BEARER in upper case": f"BEARER {token_of(note.author_id)}",
        "two spaces": f"Bearer  {token_of(note.author_id)}",
        "aud a list with ours": f"Bearer {signed(claims_of(note.author_id, aud=['bank', 'shop']))}",
        "a clock a little ahead": f"Bearer {signed(claims_of(note.author_id, iat=now + 3))}",
        "a clock a little behind": f"Bearer {signed(claims_of(note.author_id, exp=now - 2))}",
        "a claim more": f"Bearer {signed(claims_of(note.author_id, nbf=now - 1, client_id='web'))}",
        "sub in upper case": f"Bearer {signed(claims_of(note.author_id, sub=note.author_id.upper()))}",
    }

    for name, value in good.items():
        found = await notes.GetNote(pb.GetNoteRequest(id=note.id), metadata=(("authorization", value),))
        assert found == note, name


async def test_no_other_scheme_is_taken(notes: NoteServiceStub, note: pb.Note) -> None:
    token = token_of(note.author_id)
    password = base64.b64encode(f"{note.author_id}:a password".encode()).decode()
    values = [f"Basic {password}", f"Basic {token}", token, "Bearer", "Bearer ", f"Bearer{token}"]
    values += [f"Bearer {token} ", f"Bearer {token},{token}", f"DPoP {token}", ""]

    for value in values:
        metadata = (("authorization", value),)
        refusal = await refusal_of(notes.GetNote(pb.GetNoteRequest(id=note.id), metadata=metadata))
        assert (refusal.code, refusal.reason) == (StatusCode.UNAUTHENTICATED, "TOKEN_INVALID"), value


async def test_no_metadata_beside_the_token_identifies_a_caller(notes: NoteServiceStub, note: pb.Note) -> None:
    metadata = (
        ("authorization", ""),
        ("x-user-id", note.author_id),
        ("x-forwarded-client-cert", "URI=spiffe://shop/notes_svc"),
        ("x-roles", "ADMIN"),
        ("x-jwt-payload", encoded(claims_of(note.author_id))),
    )

    refusal = await refusal_of(notes.GetNote(pb.GetNoteRequest(id=note.id), metadata=metadata))

    assert refusal.reason == "TOKEN_INVALID"


async def test_a_token_of_the_release_before_still_counts(notes: NoteServiceStub, note: pb.Note) -> None:
    metadata = bearer(signed(claims_of(note.author_id, client_id=DROPPED)))

    assert await notes.GetNote(pb.GetNoteRequest(id=note.id), metadata=metadata) == note


def test_a_test_token_is_like_a_real_one() -> None:
    claims = claims_of("01960000-0000-7000-8000-000000000001")

    assert set(claims) == {"iss", "aud", "sub", "exp", "iat", "jti", "sid", "roles", "client_id"}
    assert str(UUID(claims["jti"])) == claims["jti"]
