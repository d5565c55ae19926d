"""The commands of callers. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from depot_svc.model import Parcel, ParcelId


@dataclass(frozen=True, slots=True, kw_only=True)
class Rename:
    """Give «a parcel» another name.

    Attributes:
        display_name: the new name; None leaves the «parcel» as it is.
        etag: of the version that the caller saw; empty for any version.
    """

    parcel_id: ParcelId
    display_name: str | None
    etag: str

    def apply(self, parcel: Parcel, *, now: datetime) -> Parcel:
        """Return the next version; the same one if there is no name.

        Raises:
            EtagMismatch: the «parcel» has changed since.
        """
        parcel.require_etag(self.etag)
        return parcel if self.display_name is None else parcel.renamed(self.display_name, now=now)
