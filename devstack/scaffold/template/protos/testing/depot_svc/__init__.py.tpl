"""The «depot» service in memory, for the tests of callers."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, cast

from shop.depot.v1.depot_service_pb2_grpc import add_DepotServiceServicer_to_server

# [uuid key]
from chassis.clock import new_id
from depot_svc.errors import ParcelNotFound
# [end]
# [text key]
from depot_svc.errors import ParcelExists, ParcelNotFound
# [end]
from depot_svc.model import Parcel, ParcelId
from depot_svc.rpc import DepotServicer
from protos.testing.resources import Resources

if TYPE_CHECKING:
    from chassis.idempotency.key import IdempotencyKey
    from chassis.server.pagination import Page, PageRequest
    from depot_svc.commands import Rename
    from protos.testing.shop import Shop


def serve(shop: Shop) -> None:
    """Serve DepotService."""
    parcels = shop.part(ParcelsInMemory)
    shop.serve(add_DepotServiceServicer_to_server, DepotServicer(cast("Any", parcels), shop.clock))


class ParcelsInMemory:
    """The «parcels» of a shop. It has the methods and outcomes of DepotService."""

    def __init__(self, shop: Shop) -> None:
        self._clock = shop.clock
        # [uuid key]
        self._parcels: Resources[Parcel] = Resources(ParcelNotFound)
        # [end]
        # [text key]
        self._parcels: Resources[Parcel] = Resources(ParcelNotFound, taken=ParcelExists)
        # [end]

    # [uuid key]
    async def create_parcel(self, display_name: str, *, key: IdempotencyKey) -> Parcel:
        """Create «a parcel»."""
        parcel = Parcel.new(ParcelId(new_id()), display_name, now=self._clock.now())
        return self._parcels.create(parcel, key=key)
        # [end]

    # [text key]
    async def create_parcel(self, parcel_id: ParcelId, display_name: str, *, key: IdempotencyKey) -> Parcel:
        """Create «a parcel»."""
        parcel = Parcel.new(parcel_id, display_name, now=self._clock.now())
        return self._parcels.create(parcel, key=key)
        # [end]

    async def get_parcel(self, parcel_id: ParcelId) -> Parcel:
        """Return «a parcel»."""
        return self._parcels.get(parcel_id)

    # [uuid key]
    async def list_parcels(self, page: PageRequest) -> Page[Parcel]:
        """Return a page of «parcels», newest first."""
        return self._parcels.newest_first(page)
        # [end]

    # [text key]
    async def list_parcels(self, page: PageRequest[str]) -> Page[Parcel]:
        """Return a page of «parcels», in the order of their ids."""
        return self._parcels.in_order(page)
        # [end]

    async def rename_parcel(self, command: Rename, *, key: IdempotencyKey) -> Parcel:
        """Give «a parcel» another name."""
        return self._parcels.change(command.parcel_id, partial(command.apply, now=self._clock.now()), key=key)
