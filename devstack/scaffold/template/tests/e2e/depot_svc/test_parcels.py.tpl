"""The «depot» service through the edge: by REST, and the same over gRPC."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shop.depot.v1 import depot_service_pb2 as pb

from chassis.testing import new_uuid
from tests.e2e.contract import BY_NAME

if TYPE_CHECKING:
    from tests.e2e.callers import Edge

PATH = "/api/v1/parcels"
# [uuid key]
FIRST = {"displayName": "First"}
# [end]
# [text key]
FIRST = {"id": "zz-first", "displayName": "First"}
# [end]


def test_the_way_of_a_parcel(edge: Edge) -> None:
    key = {"idempotency-key": new_uuid()}

    first = edge.http.post(PATH, json=FIRST, headers=key)
    again = edge.http.post(PATH, json=FIRST, headers=key)

    assert (first.status_code, again.status_code) == (201, 201)
    created = first.json()
    assert again.json() == created
    assert edge.http.get(f"{PATH}/{created['id']}").json() == created
    over_grpc = edge.grpc(BY_NAME["GetParcel"], pb.GetParcelRequest(id=created["id"]))
    assert over_grpc.body == created

    changed = edge.http.patch(f"{PATH}/{created['id']}", json={"displayName": "Second"}, headers={"if-match": '"v1"'})
    assert (changed.status_code, changed.json()["displayName"]) == (200, "Second")
    stale = edge.http.patch(f"{PATH}/{created['id']}", json={"displayName": "Third"}, headers={"if-match": '"v1"'})
    assert stale.status_code == 412

    listed = edge.http.get(PATH, params={"pageSize": 200}).json()
    assert created["id"] in [each["id"] for each in listed["parcels"]]
