"""Bytes that no generated stub would send."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
from google.protobuf import empty_pb2
from grpc import StatusCode, aio
from shop.system.v1 import system_service_pb2

from chassis.testing import new_uuid, plain_channel, refusal_of
from tests.support.notes_svc import notes_pb2
from tests.support.notes_svc.requests import NOTE_SERVICE, create_note_request
from tests.support.wire import Wire, delimited, number

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.integration.databases import TestDatabase

METHODS: Final = [
    f"/{service.full_name}/{method.name}"
    for service in (
        *notes_pb2.DESCRIPTOR.services_by_name.values(),
        *system_service_pb2.DESCRIPTOR.services_by_name.values(),
    )
    for method in service.methods
    if not method.server_streaming
]


@pytest.fixture
async def wire(notes_address: str) -> AsyncIterator[Wire]:
    async with plain_channel(notes_address) as channel:
        yield Wire(channel)


@pytest.mark.parametrize(
    "message",
    [b"\x0a\xff\xff\xff\xff\x0f", b"\x0a\x05ab", b"\xff", b"\x00", b"\x0b", b"{}", b"\x0a" + b"\xff" * 20],
    ids=["huge length", "cut off", "no tag", "field 0", "open group", "JSON", "endless number"],
)
async def test_malformed_bytes_are_refused_by_every_method(wire: Wire, message: bytes) -> None:
    for method in METHODS:
        refusal = await refusal_of(wire.send(method, message))

        assert (refusal.code, refusal.domain) == (StatusCode.INVALID_ARGUMENT, "shop.system.v1"), method
        assert refusal.reason == "MALFORMED_REQUEST"
        assert refusal.message == "The request cannot be decoded. Send the message that the contract names."


@pytest.mark.parametrize("text", [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xc0\x80"])
async def test_invalid_utf_8_is_refused(wire: Wire, text: bytes) -> None:
    for method in ("GetNote", "CreateNote", "ArchiveNote", "UpdateNote"):
        refusal = await refusal_of(wire.send(f"{NOTE_SERVICE}/{method}", delimited(1, text)))

        assert (refusal.code, refusal.reason) == (StatusCode.INVALID_ARGUMENT, "MALFORMED_REQUEST")


async def test_fields_that_we_do_not_know_are_let_through(wire: Wire, notes_database: TestDatabase) -> None:
    unknown = delimited(999, b"from a newer client") + number((1 << 29) - 1, 7)
    request = create_note_request().SerializeToString() + unknown

    note = notes_pb2.Note.FromString(await wire.send(f"{NOTE_SERVICE}/CreateNote", request))

    assert note.text == "Buy tea"
    assert notes_database.query("SELECT count(*) FROM notes") == [(1,)]


async def test_a_message_larger_than_any_valid_one_is_refused_by_every_method(wire: Wire) -> None:
    for method in METHODS:
        refusal = await refusal_of(wire.send(method, delimited(999, b"a" * 256 * 1024)))

        assert (refusal.code, refusal.reason) == (StatusCode.INVALID_ARGUMENT, "MALFORMED_REQUEST"), method
        assert "Send less" in refusal.message


@pytest.mark.parametrize("count", [101, 5_000, 50_000])
async def test_too_many_labels_are_one_mistake_however_many(wire: Wire, count: int) -> None:
    refusal = await refusal_of(wire.send(f"{NOTE_SERVICE}/CreateNote", delimited(3, b"") * count))

    assert (refusal.reason, refusal.fields) == ("INVALID_FIELDS", ("labels",))


async def test_an_empty_message_is_one_without_fields(wire: Wire) -> None:
    refusal = await refusal_of(wire.send(f"{NOTE_SERVICE}/GetNote", b""))

    assert (refusal.code, refusal.reason) == (StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS")


async def test_the_last_of_a_field_that_is_sent_twice_counts(wire: Wire) -> None:
    note_id = new_uuid()
    message = delimited(1, b"not a uuid") + delimited(1, note_id.encode())

    refusal = await refusal_of(wire.send(f"{NOTE_SERVICE}/GetNote", message))

    assert (refusal.reason, refusal.metadata) == ("NOTE_NOT_FOUND", {"noteId": note_id})


async def test_an_unknown_method_is_unimplemented(wire: Wire) -> None:
    for method in (f"{NOTE_SERVICE}/DropNotes", "/notes.v1.OtherService/GetNote", "/x"):
        with pytest.raises(aio.AioRpcError) as failure:
            await wire.send(method, empty_pb2.Empty().SerializeToString())

        assert failure.value.code() is StatusCode.UNIMPLEMENTED
