"""OrderService over gRPC: messages to the model and back, nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from shop.order.v1 import order_pb2
from shop.order.v1 import order_service_pb2 as pb
from shop.order.v1.order_service_pb2_grpc import OrderServiceServicer
from typing_extensions import override

from chassis.context import calling_user, current_owner
from chassis.idempotency.key import IdempotencyKey, key_of
from chassis.server.conversions import set_timestamp
from chassis.server.pagination import ListRequest
from chassis.versions import etag_of
from chassis.watch.hub import WatchHub
from order_svc.commands import CancelOrder, ChangeStatus, PlaceOrder
from order_svc.model import BuyerId, NewItem, Order, OrderEvent, OrderFilter, OrderId, OrderStatus
from order_svc.money import to_decimal, to_money

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from google.protobuf.message import Message
    from grpc import aio

    from chassis.clock import Clock
    from chassis.watch.feed import Feed, FeedEvent
    from chassis.watch.settings import WatchSettings
    from order_svc.service import OrderService

    Context = aio.ServicerContext[Any, Any]

_STATUSES = {status: order_pb2.OrderStatus.Value(f"ORDER_STATUS_{status}") for status in OrderStatus}
# Before an order was placed; or, in the event of a newer release that runs beside this one, a status of that release.
_UNKNOWN: Final = order_pb2.ORDER_STATUS_UNSPECIFIED
_STATUSES_BACK = {message: status for status, message in _STATUSES.items()}

_CHANGES: Final = frozenset({"order.created", "order.status_changed", "order.cancelled"})


class OrderServicer(OrderServiceServicer):
    """Answers OrderService."""

    def __init__(self, service: OrderService, watch_hub: WatchHub[pb.WatchOrdersResponse], clock: Clock) -> None:
        self._service = service
        self._watch_hub = watch_hub
        self._clock = clock

    @override
    async def CreateOrder(self, request: pb.CreateOrderRequest, context: Context) -> order_pb2.Order:
        command = PlaceOrder(
            user_id=_user_id(request.user_id),
            caller=calling_user(),
            owner=_owner(),
            currency_code=request.currency_code,
            items=[_new_item(item) for item in request.items],
        )
        return _to_message(await self._service.place_order(command, key=self._key(request)))

    @override
    async def GetOrder(self, request: pb.GetOrderRequest, context: Context) -> order_pb2.Order:
        return _to_message(await self._service.get_order(OrderId(UUID(request.id)), owner=_owner()))

    @override
    async def ListOrders(self, request: pb.ListOrdersRequest, context: Context) -> pb.ListOrdersResponse:
        owner = _owner()
        listing = ListRequest(request, now=self._clock.now(), owner=owner)
        filters = OrderFilter(owner=owner, user_id=_user_id(request.user_id), status=_STATUSES_BACK.get(request.status))
        orders, next_page_token = await listing.answer(
            await self._service.list_orders(listing.page, filters=filters), _to_message
        )
        return pb.ListOrdersResponse(orders=orders, next_page_token=next_page_token)

    @override
    async def UpdateOrderStatus(self, request: pb.UpdateOrderStatusRequest, context: Context) -> order_pb2.Order:
        command = ChangeStatus(
            order_id=OrderId(UUID(request.id)),
            owner=_owner(),
            status=_STATUSES_BACK[request.status],
            reason=request.reason,
            etag=request.etag,
        )
        return _to_message(await self._service.change_status(command, key=self._key(request)))

    @override
    async def CancelOrder(self, request: pb.CancelOrderRequest, context: Context) -> order_pb2.Order:
        command = CancelOrder(
            order_id=OrderId(UUID(request.id)), owner=_owner(), reason=request.reason, etag=request.etag
        )
        return _to_message(await self._service.change_status(command, key=self._key(request)))

    @override
    async def ListOrderEvents(self, request: pb.ListOrderEventsRequest, context: Context) -> pb.ListOrderEventsResponse:
        listing = ListRequest(request, now=self._clock.now())
        found = await self._service.list_events(listing.page, order_id=OrderId(UUID(request.id)), owner=_owner())
        events, next_page_token = await listing.answer(found, _to_event_message)
        return pb.ListOrderEventsResponse(events=events, next_page_token=next_page_token)

    @override
    def WatchOrders(self, request: pb.WatchOrdersRequest, context: Context) -> AsyncIterator[pb.WatchOrdersResponse]:
        filters = OrderFilter(owner=_owner(), user_id=_user_id(request.user_id))
        after = UUID(request.resume_token) if request.resume_token else None
        owner = str(filters.buyer) if filters.buyer else None
        return self._watch_hub.watch(owner=owner, after=after, caller=calling_user())

    def _key(self, request: Message) -> IdempotencyKey:
        return key_of(request, now=self._clock.now())


def order_watch_hub(feed: Feed, settings: WatchSettings) -> WatchHub[pb.WatchOrdersResponse]:
    """Return the hub that serves WatchOrders streams from the feed, whose events have the owner `userId`."""
    return WatchHub(
        feed,
        show=_to_change_message,
        heartbeat=lambda token: pb.WatchOrdersResponse(resume_token=str(token)),
        settings=settings,
    )


def _user_id(text: str) -> BuyerId | None:
    return BuyerId(UUID(text)) if text else None


def _owner() -> BuyerId | None:
    owner = current_owner()
    return BuyerId(owner) if owner else None


def _new_item(item: pb.CreateOrderItem) -> NewItem:
    price = item.unit_price
    return NewItem(
        product_id=item.product_id,
        name=item.name,
        quantity=item.quantity,
        unit_price=to_decimal(price),
        currency_code=price.currency_code,
    )


def _to_message(order: Order) -> order_pb2.Order:
    currency_code = order.currency_code
    # Parts that are made first and passed to the constructor cost half of what parts filled in place do.
    message = order_pb2.Order(
        id=str(order.id),
        user_id=str(order.user_id),
        status=_STATUSES[order.status],
        items=[
            order_pb2.OrderItem(
                product_id=item.product_id,
                name=item.name,
                quantity=item.quantity,
                unit_price=to_money(item.unit_price, currency_code=currency_code),
                total_price=to_money(item.total_price, currency_code=currency_code),
            )
            for item in order.items
        ],
        total_amount=to_money(order.total_amount, currency_code=currency_code),
        cancel_reason=order.cancel_reason,
        etag=order.etag,
    )
    set_timestamp(message.created_at, order.created_at)
    set_timestamp(message.updated_at, order.updated_at)
    return message


def _to_event_message(event: OrderEvent) -> order_pb2.OrderEvent:
    message = order_pb2.OrderEvent(
        id=str(event.id),
        order_id=str(event.order_id),
        from_status=_STATUSES[event.from_status] if event.from_status else _UNKNOWN,
        to_status=_STATUSES[event.to_status],
        reason=event.reason,
    )
    set_timestamp(message.occurred_at, event.occurred_at)
    return message


def _to_change_message(event: FeedEvent) -> pb.WatchOrdersResponse | None:
    if event.type not in _CHANGES:  # of a newer version, which runs beside this one during a deployment
        return None
    data = event.data
    is_new = event.type == "order.created"
    change = order_pb2.OrderChange(
        id=str(event.position.id),
        order_id=str(event.subject),
        user_id=event.owner,
        from_status=_UNKNOWN if is_new else _STATUSES.get(data["from"], _UNKNOWN),
        to_status=_STATUSES[OrderStatus.PENDING] if is_new else _STATUSES.get(data["to"], _UNKNOWN),
        etag=etag_of(event.sequence),
    )
    set_timestamp(change.occurred_at, event.occurred_at)
    return pb.WatchOrdersResponse(resume_token=str(event.position.id), change=change)
