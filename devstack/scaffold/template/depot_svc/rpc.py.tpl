"""DepotService over gRPC: messages to the model and back, nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
# [uuid key]
from uuid import UUID
# [end]

from shop.depot.v1 import depot_service_pb2 as pb
from shop.depot.v1 import parcel_pb2
from shop.depot.v1.depot_service_pb2_grpc import DepotServiceServicer
from typing_extensions import override

from chassis.idempotency.key import IdempotencyKey, key_of
from chassis.server.conversions import set_timestamp
from chassis.server.pagination import ListRequest
from depot_svc.commands import Rename
from depot_svc.model import Parcel, ParcelId

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from grpc import aio

    from chassis.clock import Clock
    from depot_svc.service import DepotService

    Context = aio.ServicerContext[Any, Any]


class DepotServicer(DepotServiceServicer):
    """Answers DepotService."""

    def __init__(self, service: DepotService, clock: Clock) -> None:
        self._service = service
        self._clock = clock

    @override
    async def CreateParcel(self, request: pb.CreateParcelRequest, context: Context) -> parcel_pb2.Parcel:
        # [uuid key]
        return _to_message(await self._service.create_parcel(request.display_name, key=self._key(request)))
        # [end]
        # [text key]
        parcel_id = ParcelId(request.id)
        return _to_message(await self._service.create_parcel(parcel_id, request.display_name, key=self._key(request)))
        # [end]

    @override
    async def GetParcel(self, request: pb.GetParcelRequest, context: Context) -> parcel_pb2.Parcel:
        # [uuid key]
        return _to_message(await self._service.get_parcel(ParcelId(UUID(request.id))))
        # [end]
        # [text key]
        return _to_message(await self._service.get_parcel(ParcelId(request.id)))
        # [end]

    @override
    async def ListParcels(self, request: pb.ListParcelsRequest, context: Context) -> pb.ListParcelsResponse:
        # [uuid key]
        listing = ListRequest(request, now=self._clock.now())
        # [end]
        # [text key]
        listing = ListRequest(request, now=self._clock.now(), key=str)
        # [end]
        found = await self._service.list_parcels(listing.page)
        parcels, next_page_token = await listing.answer(found, _to_message)
        return pb.ListParcelsResponse(parcels=parcels, next_page_token=next_page_token)

    @override
    async def UpdateParcel(self, request: pb.UpdateParcelRequest, context: Context) -> parcel_pb2.Parcel:
        command = Rename(
            # [uuid key]
            parcel_id=ParcelId(UUID(request.id)),
            # [end]
            # [text key]
            parcel_id=ParcelId(request.id),
            # [end]
            display_name=request.display_name if request.HasField("display_name") else None,
            etag=request.etag,
        )
        return _to_message(await self._service.rename_parcel(command, key=self._key(request)))

    def _key(self, request: Message) -> IdempotencyKey:
        return key_of(request, now=self._clock.now())


def _to_message(parcel: Parcel) -> parcel_pb2.Parcel:
    message = parcel_pb2.Parcel(id=str(parcel.id), display_name=parcel.display_name, etag=parcel.etag)
    set_timestamp(message.created_at, parcel.created_at)
    set_timestamp(message.updated_at, parcel.updated_at)
    return message
