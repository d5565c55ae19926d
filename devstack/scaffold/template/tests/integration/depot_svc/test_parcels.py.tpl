"""DepotService, rpc by rpc: what it answers and why it refuses."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from grpc import StatusCode
from shop.depot.v1 import depot_service_pb2 as pb

from chassis.testing import new_uuid, refusal_of

if TYPE_CHECKING:
    from shop.depot.v1.depot_service_pb2_grpc import DepotServiceAsyncStub
    from shop.depot.v1.parcel_pb2 import Parcel

    from tests.integration.databases import TestDatabase


# [uuid key]
def request_of(display_name: str, *, request_id: str = "") -> pb.CreateParcelRequest:
    return pb.CreateParcelRequest(display_name=display_name, request_id=request_id)


# [end]
# [text key]
def request_of(display_name: str, *, request_id: str = "") -> pb.CreateParcelRequest:
    parcel_id = display_name.lower().replace(" ", "-")
    return pb.CreateParcelRequest(id=parcel_id, display_name=display_name, request_id=request_id)


# [end]
async def create(depot: DepotServiceAsyncStub, display_name: str = "First") -> Parcel:
    return await depot.CreateParcel(request_of(display_name))


async def test_a_new_parcel_can_be_read(depot: DepotServiceAsyncStub) -> None:
    created = await create(depot)

    assert (created.display_name, created.etag) == ("First", "v1")
    assert await depot.GetParcel(pb.GetParcelRequest(id=created.id)) == created


async def test_a_repeated_request_creates_one(depot: DepotServiceAsyncStub, parcels_database: TestDatabase) -> None:
    request = request_of("First", request_id=new_uuid())

    answers = await asyncio.gather(*(depot.CreateParcel(request) for _ in range(5)))

    assert all(answer == answers[0] for answer in answers)
    assert parcels_database.query("SELECT count(*) FROM parcels") == [(1,)]
    request.display_name = "Second"
    refusal = await refusal_of(depot.CreateParcel(request))
    assert (refusal.code, refusal.reason) == (StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")


async def test_an_unknown_id_is_refused(depot: DepotServiceAsyncStub) -> None:
    unknown = new_uuid()

    for call in (
        depot.GetParcel(pb.GetParcelRequest(id=unknown)),
        depot.UpdateParcel(pb.UpdateParcelRequest(id=unknown, display_name="Second")),
    ):
        refusal = await refusal_of(call)
        assert (refusal.code, refusal.reason) == (StatusCode.NOT_FOUND, "PARCEL_NOT_FOUND")
        assert refusal.metadata == {"parcelId": unknown}


async def test_a_change_has_a_new_etag_and_a_stale_one_is_refused(depot: DepotServiceAsyncStub) -> None:
    created = await create(depot)

    changed = await depot.UpdateParcel(pb.UpdateParcelRequest(id=created.id, display_name="Second", etag=created.etag))

    assert (changed.display_name, changed.etag) == ("Second", "v2")
    late = pb.UpdateParcelRequest(id=created.id, display_name="Third", etag=created.etag)
    refusal = await refusal_of(depot.UpdateParcel(late))
    assert (refusal.code, refusal.reason, refusal.metadata) == (StatusCode.ABORTED, "ETAG_MISMATCH", {"etag": "v2"})


async def test_a_change_of_nothing_changes_nothing(depot: DepotServiceAsyncStub) -> None:
    created = await create(depot)

    assert await depot.UpdateParcel(pb.UpdateParcelRequest(id=created.id)) == created


# [text key]
async def test_an_id_belongs_to_the_first_who_takes_it(
    depot: DepotServiceAsyncStub, parcels_database: TestDatabase
) -> None:
    answers = await asyncio.gather(*(create(depot) for _ in range(5)), return_exceptions=True)

    assert sum(not isinstance(answer, BaseException) for answer in answers) == 1
    assert parcels_database.query("SELECT count(*) FROM parcels") == [(1,)]
    refusal = await refusal_of(create(depot))
    assert (refusal.code, refusal.reason) == (StatusCode.ALREADY_EXISTS, "PARCEL_EXISTS")
    assert refusal.metadata == {"parcelId": "first"}


# [end]
async def test_pages_have_each_once_in_order(depot: DepotServiceAsyncStub) -> None:
    created = [await create(depot, f"Number {number}") for number in range(5)]

    listed, token = [], ""
    while True:
        page = await depot.ListParcels(pb.ListParcelsRequest(page_size=2, page_token=token))
        listed += page.parcels
        token = page.next_page_token
        if not token:
            break

    # [uuid key]
    assert listed == created[::-1]  # the newest first
    # [end]
    # [text key]
    assert listed == created  # by their ids
    # [end]
    refusal = await refusal_of(depot.ListParcels(pb.ListParcelsRequest(page_token="made up")))
    assert refusal.reason == "INVALID_PAGE_TOKEN"


async def test_every_change_writes_its_event(depot: DepotServiceAsyncStub, parcels_database: TestDatabase) -> None:
    created = await create(depot)
    await depot.UpdateParcel(pb.UpdateParcelRequest(id=created.id, display_name="Second"))

    written = parcels_database.query("SELECT type, subject::text, sequence, data FROM outbox ORDER BY position")

    assert written == [
        ("parcel.created", created.id, 1, {"parcelId": created.id}),
        ("parcel.updated", created.id, 2, {"parcelId": created.id, "changedFields": ["displayName"]}),
    ]
