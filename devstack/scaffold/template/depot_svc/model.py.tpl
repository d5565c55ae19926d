"""Parcels. No I/O."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, NewType
# [uuid key]
from uuid import UUID
# [end]

from chassis.versions import Versioned

if TYPE_CHECKING:
    from datetime import datetime

# [uuid key]
ParcelId = NewType("ParcelId", UUID)
# [end]
# [text key]
ParcelId = NewType("ParcelId", str)
# [end]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel(Versioned):
    """A «parcel»."""

    id: ParcelId
    display_name: str

    @classmethod
    def new(cls, parcel_id: ParcelId, display_name: str, *, now: datetime) -> Parcel:
        """Return the first version."""
        return cls(id=parcel_id, display_name=display_name, created_at=now, updated_at=now, version=1)

    def renamed(self, display_name: str, *, now: datetime) -> Parcel:
        """Return the next version, with another name."""
        return dataclasses.replace(self, display_name=display_name, updated_at=now, version=self.version + 1)
