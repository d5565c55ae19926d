"""How the reasons of the order service for refusing a call come about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from shop.order.v1 import order_pb2
from shop.order.v1 import order_service_pb2 as orders

from chassis.testing import new_uuid
from tests.e2e.scenarios import SYSTEM, produces
from tests.services.order_svc.placing import create_order_request, order_item, place_order
from tests.support.waiting import until

if TYPE_CHECKING:
    from tests.e2e.callers import Outcome
    from tests.e2e.world import World

ORDER: Final = "shop.order.v1"


@produces(SYSTEM, "RESUME_TOKEN_EXPIRED")
def nothing_is_known_of_a_resume_token(world: World) -> list[Outcome]:
    return world.both("WatchOrders", orders.WatchOrdersRequest(resume_token=new_uuid()))


@produces(ORDER, "CURRENCY_MISMATCH", fields=("items[1].unitPrice.currencyCode",))
def an_item_has_another_currency(world: World) -> list[Outcome]:
    in_dollars = order_item(unit_price={"currency_code": "USD", "units": 1})
    return world.both("CreateOrder", create_order_request(new_uuid(), items=[order_item(), in_dollars]))


@produces(ORDER, "AMOUNT_OUT_OF_RANGE", fields=("items[0].unitPrice",))
def a_price_is_too_large(world: World) -> list[Outcome]:
    return world.both("CreateOrder", create_order_request(new_uuid(), items=[order_item(units=2**63 - 1)]))


@produces(ORDER, "INVALID_STATUS_TRANSITION")
def an_order_skips_a_status(world: World) -> list[Outcome]:
    request = orders.UpdateOrderStatusRequest(id=place_order(world).id, status=order_pb2.ORDER_STATUS_DELIVERED)

    return world.both("UpdateOrderStatus", request)


@produces(ORDER, "ORDERING_USER_NOT_FOUND")
def the_buyer_does_not_exist(world: World) -> list[Outcome]:
    return world.both("CreateOrder", create_order_request(new_uuid()))


@produces(ORDER, "USER_NOT_ACTIVE")
def the_buyer_is_deleted(world: World) -> list[Outcome]:
    return world.both("CreateOrder", create_order_request(world.deleted_user()))


@produces(ORDER, "USER_SERVICE_UNAVAILABLE")
def the_user_service_is_away(world: World) -> list[Outcome]:
    # A user in the order service's projection may order meanwhile.
    request = create_order_request(new_uuid())

    with world.stopped("user_svc"):
        refusals = world.both("CreateOrder", request)
    asked = (ORDER, "ORDERING_USER_NOT_FOUND")
    until(lambda: all(each.reason == asked for each in world.both("CreateOrder", request)))
    return refusals
