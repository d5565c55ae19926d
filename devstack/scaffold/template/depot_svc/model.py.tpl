"""Parcels. No I/O."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, NewType
from uuid import UUID

from chassis.versions import Versioned

if TYPE_CHECKING:
    from datetime import datetime

ParcelId = NewType("ParcelId", UUID)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel(Versioned):
    """A «parcel»."""

    id: ParcelId
    display_name: str

    def renamed(self, display_name: str, *, now: datetime) -> Parcel:
        """Return the next version, with another name."""
        return dataclasses.replace(self, display_name=display_name, updated_at=now, version=self.version + 1)
