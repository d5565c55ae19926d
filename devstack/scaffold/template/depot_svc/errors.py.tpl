"""Why the «depot» service refuses, by the reasons of shop.depot.v1."""

from __future__ import annotations

# [uuid key]
from typing import TYPE_CHECKING, ClassVar
# [end]
# [text key]
from typing import ClassVar
# [end]

# [uuid key]
from chassis.errors import DomainError, NotFound
# [end]
# [text key]
from chassis.errors import AlreadyExists, DomainError, FieldViolation, NotFound
# [end]
# [uuid key]

if TYPE_CHECKING:
    from uuid import UUID
# [end]


class DepotError(DomainError):
    """A refusal of the «depot» service."""

    domain: ClassVar[str] = "shop.depot.v1"


class ParcelNotFound(DepotError, NotFound):
    """There is no such «parcel»."""

    reason = "PARCEL_NOT_FOUND"
    message = "There is no such «parcel»."
    resource_type = "shop.depot.v1.Parcel"

    def __init__(self, parcel_id: «key in Python») -> None:
        super().__init__(metadata={"parcelId": «key as text»}, subject=f"parcels/{parcel_id}")
# [text key]


class ParcelExists(DepotError, AlreadyExists):
    """There is «a parcel» with this id."""

    reason = "PARCEL_EXISTS"
    message = "There is «a parcel» with this id. Choose another one."

    def __init__(self, parcel_id: str) -> None:
        violations = [FieldViolation("id", "belongs to another «parcel»")]
        super().__init__(metadata={"parcelId": parcel_id}, violations=violations)
# [end]
