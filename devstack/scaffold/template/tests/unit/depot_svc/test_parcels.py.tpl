from __future__ import annotations

from datetime import UTC, datetime, timedelta

# [uuid key]
from chassis.clock import new_id
# [end]
from depot_svc.model import Parcel, ParcelId

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def a_parcel() -> Parcel:
    # [uuid key]
    return Parcel.new(ParcelId(new_id()), "First", now=NOW)
    # [end]
    # [text key]
    return Parcel.new(ParcelId("first"), "First", now=NOW)
    # [end]


def test_a_change_makes_the_next_version() -> None:
    before = a_parcel()

    after = before.renamed("Second", now=NOW + timedelta(seconds=1))

    assert (after.display_name, after.version, after.updated_at) == ("Second", 2, NOW + timedelta(seconds=1))
    assert (after.id, after.created_at) == (before.id, before.created_at)
    assert after.etag != before.etag
