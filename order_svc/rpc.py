"""OrderService over gRPC: messages to the model and back, nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from shop.order.v1 import order_pb2
from shop.order.v1 import order_service_pb2 as pb
from shop.order.v1.order_service_pb2_grpc import OrderServiceServicer
from typing_extensions import override

from chassis import context
from chassis.idempotency.key import IdempotencyKey, key_of
from chassis.server.conversions import set_timestamp
from chassis.server.pagination import PageTokens, messages_of
from chassis.watch.hub import WatchHub
from order_svc.commands import CancelOrder, ChangeStatus, PlaceOrder
from order_svc.model import BuyerId, NewItem, Order, OrderEvent, OrderFilter, OrderId, OrderStatus, etag_of
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

_STATUSES = {
    OrderStatus.PENDING: order_pb2.ORDER_STATUS_PENDING,
    OrderStatus.CONFIRMED: order_pb2.ORDER_STATUS_CONFIRMED,
    OrderStatus.PROCESSING: order_pb2.ORDER_STATUS_PROCESSING,
    OrderStatus.SHIPPED: order_pb2.ORDER_STATUS_SHIPPED,
    OrderStatus.DELIVERED: order_pb2.ORDER_STATUS_DELIVERED,
    OrderStatus.CANCELLED: order_pb2.ORDER_STATUS_CANCELLED,
}
_STATUSES_BACK = {message: status for status, message in _STATUSES.items()}

_CHANGES: Final = frozenset({"order.created", "order.status_changed", "order.cancelled"})

# A caller who asks for another user's changes gets an empty stream rather than an error: the answer does not reveal
# whether the user exists.
_NOBODY: Final = str(UUID(int=0))


class OrderServicer(OrderServiceServicer):
    """Answers OrderService."""

    def __init__(self, service: OrderService, watch_hub: WatchHub[pb.WatchOrdersResponse], clock: Clock) -> None:
        self._service = service
        self._watch_hub = watch_hub
        self._clock = clock

    @override
    async def CreateOrder(self, request: pb.CreateOrderRequest, context: Context) -> order_pb2.Order:
        command = PlaceOrder(
            user_id=BuyerId(UUID(request.user_id)) if request.user_id else None,
            caller=None if request.user_id else _calling_user(),
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
        user_id = BuyerId(UUID(request.user_id)) if request.user_id else None
        status = _STATUSES_BACK.get(request.status)
        filters = OrderFilter(owner=_owner(), user_id=user_id, status=status)
        query = ("ListOrders", str(filters.owner or ""), str(user_id or ""), status or "")
        tokens = PageTokens(query, self._clock.now())
        page = tokens.page(page_size=request.page_size, page_token=request.page_token)
        found, has_more = await self._service.list_orders(page, filters=filters)
        shown = await messages_of(found, _to_message)
        return pb.ListOrdersResponse(
            orders=shown, next_page_token=tokens.after_page(found, shown=len(shown), has_more=has_more)
        )

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
        order_id = OrderId(UUID(request.id))
        tokens = PageTokens(("ListOrderEvents", str(order_id)), self._clock.now())
        page = tokens.page(page_size=request.page_size, page_token=request.page_token)
        found, has_more = page.split(await self._service.list_events(page, order_id=order_id, owner=_owner()))
        shown = await messages_of(found, _to_event_message)
        return pb.ListOrderEventsResponse(
            events=shown, next_page_token=tokens.after_page(found, shown=len(shown), has_more=has_more)
        )

    @override
    def WatchOrders(self, request: pb.WatchOrdersRequest, context: Context) -> AsyncIterator[pb.WatchOrdersResponse]:
        owner = str(_owner() or "")
        user_id = str(UUID(request.user_id)) if request.user_id else ""
        whose = _NOBODY if owner and user_id and owner != user_id else owner or user_id or None
        after = UUID(request.resume_token) if request.resume_token else None
        return self._watch_hub.watch(owner=whose, after=after, caller=owner)

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


def _owner() -> BuyerId | None:
    owner = context.current_owner()
    return BuyerId(owner) if owner else None


def _calling_user() -> BuyerId | None:
    """Return the caller, if it is a user: a service has a name and no id."""
    call = context.current_call()
    try:
        return BuyerId(UUID(call.caller.subject if call else ""))
    except ValueError:
        return None


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
        from_status=_STATUSES[event.from_status] if event.from_status else order_pb2.ORDER_STATUS_UNSPECIFIED,
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
        from_status=order_pb2.ORDER_STATUS_UNSPECIFIED if is_new else _STATUSES[OrderStatus(data["from"])],
        to_status=_STATUSES[OrderStatus.PENDING if is_new else OrderStatus(data["to"])],
        etag=etag_of(event.sequence),
    )
    set_timestamp(change.occurred_at, event.occurred_at)
    return pb.WatchOrdersResponse(resume_token=str(event.position.id), change=change)
