"""The events of «parcels»: made from the model, as messages of `shop.event.v1`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shop.event.v1.parcel_events_pb2 import ParcelCreated, ParcelUpdated

from chassis.events.cloudevents import payload_of
from chassis.events.outbox import Event

if TYPE_CHECKING:
    from depot_svc.model import Parcel


def parcel_created(parcel: Parcel) -> Event:
    """Return the event of a new «parcel», with the trace of the current call."""
    payload = payload_of(ParcelCreated(parcel_id=str(parcel.id)))
    return Event("parcel.created", parcel.id, parcel.version, payload, parcel.updated_at)


def parcel_updated(parcel: Parcel, *, traceparent: str) -> Event:
    """Return the event of a change of name.

    Args:
        parcel: after the change.
        traceparent: of the call that changed it.
    """
    payload = payload_of(ParcelUpdated(parcel_id=str(parcel.id), changed_fields=["displayName"]))
    return Event("parcel.updated", parcel.id, parcel.version, payload, parcel.updated_at, traceparent)
