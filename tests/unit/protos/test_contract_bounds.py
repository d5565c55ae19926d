"""The rules of the contract at their bounds: the last value that is accepted and the first that is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from google.type.money_pb2 import Money
from shop.order.v1 import order_pb2
from shop.order.v1 import order_service_pb2 as order_pb
from shop.user.v1 import user_pb2
from shop.user.v1 import user_service_pb2 as user_pb

from chassis.errors import InvalidFields
from chassis.server.validation import require_valid
from tests.support.builders import OTHER_ID, SOME_ID
from tests.support.requests import create_order_request, create_user_request, order_item

if TYPE_CHECKING:
    from google.protobuf.message import Message


def with_item(**changes: object) -> order_pb.CreateOrderRequest:
    return create_order_request(items=[order_item(**changes)])


def with_price(**changes: object) -> order_pb.CreateOrderRequest:
    return with_item(unit_price=Money(**changes))


def change_password(*, current: str = "old", new: str = "n" * 8) -> user_pb.ChangePasswordRequest:
    return user_pb.ChangePasswordRequest(id=SOME_ID, current_password=current, new_password=new)


def update_user(**changes: str) -> user_pb.UpdateUserRequest:
    return user_pb.UpdateUserRequest(id=SOME_ID, **changes)  # type: ignore[arg-type]  # any field


def move_order(**changes: object) -> order_pb.UpdateOrderStatusRequest:
    fields = {"id": SOME_ID, "status": order_pb2.ORDER_STATUS_CONFIRMED}
    return order_pb.UpdateOrderStatusRequest(**(fields | changes))  # type: ignore[arg-type]  # any field


ACCEPTED: list[Message] = [
    create_user_request(),
    create_user_request(password="p" * 8),
    create_user_request(password="p" * 128),
    create_user_request(password="é" * 128),
    create_user_request(email="a@b"),  # whether it is an address, the service says
    create_user_request(email="a" * 254),
    create_user_request(display_name="n" * 100),
    create_user_request(display_name=" n "),
    create_user_request(request_id=SOME_ID),
    create_user_request(request_id=SOME_ID.upper()),
    user_pb.GetUserRequest(id=SOME_ID),
    user_pb.BatchGetUsersRequest(ids=[SOME_ID]),
    user_pb.BatchGetUsersRequest(ids=[SOME_ID] * 200),
    user_pb.ListUsersRequest(),
    user_pb.ListUsersRequest(page_size=2**31 - 1),
    user_pb.ListUsersRequest(page_token="t" * 512),
    user_pb.ListUsersRequest(state=user_pb2.USER_STATE_DELETED),
    update_user(),
    update_user(email="a" * 254),
    update_user(display_name="n" * 100),
    update_user(etag="e" * 64),
    change_password(current="o"),
    change_password(current="o" * 128, new="n" * 128),
    user_pb.DeleteUserRequest(id=SOME_ID, etag="e" * 64),
    create_order_request(),
    create_order_request(items=[order_item()] * 100),
    with_item(quantity=1),
    with_item(quantity=10_000),
    with_item(product_id="p"),
    with_item(product_id="p" * 64),
    with_item(name=""),
    with_item(name="n" * 255),
    with_price(),
    with_price(nanos=999_999_999),
    with_price(units=2**63 - 1),  # how much an order can hold, the service says
    with_price(currency_code=""),
    with_price(currency_code="USD"),
    order_pb.ListOrdersRequest(),
    order_pb.ListOrdersRequest(user_id=OTHER_ID, status=order_pb2.ORDER_STATUS_CANCELLED),
    move_order(reason="r" * 500, etag="e" * 64),
    order_pb.CancelOrderRequest(id=SOME_ID, reason="r" * 500),
    order_pb.ListOrderEventsRequest(id=SOME_ID, page_size=200),
]


@pytest.mark.parametrize("request_", ACCEPTED, ids=lambda message: type(message).__name__)
def test_a_valid_request_is_accepted(request_: Message) -> None:
    require_valid(request_)


REFUSED: list[tuple[Message, str, str]] = [
    (create_user_request(password="p" * 7), "password", "string.min_len"),
    (create_user_request(password="p" * 129), "password", "string.max_len"),
    (create_user_request(email="ab"), "email", "string.min_len"),
    (create_user_request(email="a" * 255), "email", "string.max_len"),
    (create_user_request(email="a\0@b.example"), "email", "string.no_nul"),
    (create_user_request(display_name=""), "displayName", "string.not_blank"),
    (create_user_request(display_name=" \t\n"), "displayName", "string.not_blank"),
    (create_user_request(display_name="n" * 101), "displayName", "string.max_len"),
    (create_user_request(display_name="n\0"), "displayName", "string.no_nul"),
    (create_user_request(request_id="1"), "requestId", "string.uuid"),
    (user_pb.GetUserRequest(), "id", "string.uuid_empty"),
    (user_pb.GetUserRequest(id=SOME_ID + "\n"), "id", "string.uuid"),
    (user_pb.GetUserRequest(id=SOME_ID[:-1]), "id", "string.uuid"),
    (user_pb.GetUserRequest(id="{" + SOME_ID + "}"), "id", "string.uuid"),
    (user_pb.BatchGetUsersRequest(), "ids", "repeated.min_items"),
    (user_pb.BatchGetUsersRequest(ids=[SOME_ID] * 201), "ids", "repeated.max_items"),
    (user_pb.BatchGetUsersRequest(ids=[SOME_ID, "1"]), "ids[1]", "string.uuid"),
    (user_pb.ListUsersRequest(page_size=-1), "pageSize", "int32.gte"),
    (user_pb.ListUsersRequest(page_token="t" * 513), "pageToken", "string.max_len"),
    (user_pb.ListUsersRequest(email="a" * 255), "email", "string.max_len"),
    (user_pb.ListUsersRequest(state=99), "state", "enum.defined_only"),  # type: ignore[arg-type]  # no such value
    (update_user(email=""), "email", "string.min_len"),
    (update_user(display_name=""), "displayName", "string.not_blank"),
    (update_user(etag="e" * 65), "etag", "string.max_len"),
    (change_password(current=""), "currentPassword", "string.min_len"),
    (change_password(current="o" * 129), "currentPassword", "string.max_len"),
    (change_password(new="n" * 7), "newPassword", "string.min_len"),
    (change_password(new="n" * 129), "newPassword", "string.max_len"),
    (create_order_request(user_id="1"), "userId", "string.uuid"),
    (create_order_request(currency_code=""), "currencyCode", "currency_code.iso_4217"),
    (create_order_request(currency_code="eur"), "currencyCode", "currency_code.iso_4217"),
    (create_order_request(currency_code="EURO"), "currencyCode", "currency_code.iso_4217"),
    (create_order_request(currency_code="EUR\n"), "currencyCode", "currency_code.iso_4217"),
    (create_order_request(items=[]), "items", "repeated.min_items"),
    (create_order_request(items=[order_item()] * 101), "items", "repeated.max_items"),
    (with_item(quantity=0), "items[0].quantity", "int32.gte_lte"),
    (with_item(quantity=-1), "items[0].quantity", "int32.gte_lte"),
    (with_item(quantity=10_001), "items[0].quantity", "int32.gte_lte"),
    (with_item(product_id=""), "items[0].productId", "string.not_blank"),
    (with_item(product_id="p" * 65), "items[0].productId", "string.max_len"),
    (with_item(product_id="p\0"), "items[0].productId", "string.no_nul"),
    (with_item(name="n" * 256), "items[0].name", "string.max_len"),
    (with_item(unit_price=None), "items[0].unitPrice", "required"),
    (with_price(nanos=1_000_000_000), "items[0].unitPrice", "money.nanos"),
    (with_price(nanos=2_000_000_000), "items[0].unitPrice", "money.nanos"),
    (with_price(nanos=-1), "items[0].unitPrice", "money.not_negative"),
    (with_price(units=1, nanos=-1), "items[0].unitPrice", "money.not_negative"),
    (with_price(units=-1), "items[0].unitPrice", "money.not_negative"),
    (with_price(currency_code="usd"), "items[0].unitPrice", "money.currency_code"),
    (with_price(currency_code="USD\n"), "items[0].unitPrice", "money.currency_code"),
    (order_pb.ListOrdersRequest(page_size=-1), "pageSize", "int32.gte"),
    (order_pb.ListOrdersRequest(user_id="1"), "userId", "string.uuid"),
    (order_pb.ListOrdersRequest(status=7), "status", "enum.defined_only"),  # type: ignore[arg-type]  # no such value
    (move_order(status=0), "status", "enum.not_in"),
    (move_order(status=7), "status", "enum.defined_only"),
    (move_order(reason="r" * 501), "reason", "string.max_len"),
    (order_pb.CancelOrderRequest(id=SOME_ID, reason="r" * 501), "reason", "string.max_len"),
    (order_pb.ListOrderEventsRequest(id=SOME_ID, page_size=-(2**31)), "pageSize", "int32.gte"),
]


@pytest.mark.parametrize(
    ("request_", "field", "rule"), REFUSED, ids=[f"{type(each).__name__}-{rule}" for each, _, rule in REFUSED]
)
def test_a_violation_is_named_by_field_and_rule(request_: Message, field: str, rule: str) -> None:
    with pytest.raises(InvalidFields) as refused:
        require_valid(request_)

    assert [(each.field, each.rule) for each in refused.value.violations] == [(field, rule)]


def test_all_violations_are_reported_together() -> None:
    request = create_user_request(email="", password="short", display_name="")

    with pytest.raises(InvalidFields) as refused:
        require_valid(request)

    assert {each.field for each in refused.value.violations} == {"email", "password", "displayName"}


def test_a_refusal_does_not_repeat_a_password() -> None:
    with pytest.raises(InvalidFields) as refused:
        require_valid(create_user_request(password="hunter2"))

    assert "hunter2" not in refused.value.message
