"""Parcels. No I/O."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import datetime  # noqa: TC003  pydantic reads the annotations when it stores responses
from typing import NewType
from uuid import UUID

from chassis.errors import EtagMismatch

ParcelId = NewType("ParcelId", UUID)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """A «parcel».

    Attributes:
        version: counts the changes from 1.
    """

    id: ParcelId
    display_name: str
    created_at: datetime
    updated_at: datetime
    version: int

    @property
    def etag(self) -> str:
        """The etag of this version."""
        return f"v{self.version}"

    def require_etag(self, etag: str) -> None:
        """Return if the etag is empty or current.

        Raises:
            EtagMismatch: it is stale.
        """
        if etag and etag != self.etag:
            raise EtagMismatch(current=self.etag)

    def renamed(self, display_name: str, *, now: datetime) -> Parcel:
        """Return the next version, with another name."""
        return dataclasses.replace(self, display_name=display_name, updated_at=now, version=self.version + 1)
