"""Why the «depot» service refuses; each names a reason of shop.depot.v1.ErrorReason."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from chassis.errors import DomainError, NotFound

if TYPE_CHECKING:
    from uuid import UUID


class DepotError(DomainError):
    """A refusal of the «depot» service."""

    domain: ClassVar[str] = "shop.depot.v1"


class ParcelNotFound(DepotError, NotFound):
    """There is no such «parcel»."""

    reason = "PARCEL_NOT_FOUND"
    resource_type = "shop.depot.v1.Parcel"

    def __init__(self, parcel_id: UUID) -> None:
        metadata = {"parcelId": str(parcel_id)}
        super().__init__("There is no such «parcel».", metadata=metadata, subject=f"parcels/{parcel_id}")
