"""The calls that are made to both shops. Most follow from the contract: every rpc, every field, every status."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.descriptor import FieldDescriptor as Field
from google.protobuf.struct_pb2 import Struct
from shop.order.v1 import order_pb2
from shop.order.v1 import order_service_pb2 as orders
from shop.system.v1 import system_service_pb2 as system
from shop.user.v1 import session_service_pb2 as sessions
from shop.user.v1 import user_pb2
from shop.user.v1 import user_service_pb2 as users

from chassis.context import Role
from tests.integration.conformance.worlds import RPCS, new_uuid, settled
from tests.support.requests import PASSWORD, create_order_request, create_user_request, order_item

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from google.protobuf.message import Message

    from tests.integration.conformance.worlds import Person, World

STAFF: Final = (Role.USER, Role.ADMIN)
OTHER_PASSWORD: Final = "another horse battery"
_STATUSES: Final = {
    value.name.removeprefix("ORDER_STATUS_"): value.number for value in order_pb2.OrderStatus.DESCRIPTOR.values
}


async def good_request(world: World, rpc: str, *, of: Person) -> Message:
    """Return a request of the rpc that succeeds if its caller may make it, on a resource of this person's."""
    order_id = (await world.order(of)).id if rpc in _ON_AN_ORDER else ""
    return _GOOD[rpc](of, order_id)


_ON_AN_ORDER: Final = {"GetOrder", "UpdateOrderStatus", "CancelOrder", "ListOrderEvents"}
_GOOD: Final[Mapping[str, Callable[[Person, str], Message]]] = {
    "CreateUser": lambda _who, _id: create_user_request(email=f"new-{new_uuid()}@example.com"),
    "GetUser": lambda who, _id: users.GetUserRequest(id=who.id),
    "BatchGetUsers": lambda who, _id: users.BatchGetUsersRequest(ids=[who.id, new_uuid(), who.id]),
    "ListUsers": lambda who, _id: users.ListUsersRequest(email=who.email),
    "UpdateUser": lambda who, _id: users.UpdateUserRequest(id=who.id, display_name="Augusta"),
    "ChangePassword": lambda who, _id: users.ChangePasswordRequest(
        id=who.id, current_password=PASSWORD, new_password=OTHER_PASSWORD
    ),
    "DeleteUser": lambda who, _id: users.DeleteUserRequest(id=who.id, current_password=PASSWORD),
    "CreateSession": lambda who, _id: sessions.CreateSessionRequest(email=who.email, password=PASSWORD),
    "RefreshSession": lambda _who, _id: sessions.RefreshSessionRequest(refresh_token="none of ours"),
    "DeleteSession": lambda _who, _id: sessions.DeleteSessionRequest(id=new_uuid()),
    "GetJwks": lambda _who, _id: sessions.GetJwksRequest(),
    "CreateOrder": lambda who, _id: create_order_request(who.id),
    "GetOrder": lambda _who, order_id: orders.GetOrderRequest(id=order_id),
    "ListOrders": lambda who, _id: orders.ListOrdersRequest(user_id=who.id),
    "UpdateOrderStatus": lambda _who, order_id: orders.UpdateOrderStatusRequest(
        id=order_id, status=order_pb2.ORDER_STATUS_CONFIRMED
    ),
    "CancelOrder": lambda _who, order_id: orders.CancelOrderRequest(id=order_id, reason="changed my mind"),
    "ListOrderEvents": lambda _who, order_id: orders.ListOrderEventsRequest(id=order_id),
    "WatchOrders": lambda who, _id: orders.WatchOrdersRequest(user_id=who.id),
    "GetHealth": lambda _who, _id: system.GetHealthRequest(),
}


async def access(world: World, rpc: str) -> None:
    """Call the rpc as every kind of caller."""
    owner, other = await world.person(), await world.person()
    callers = {
        "anonymous": "",
        "owner": owner.token,
        "other": other.token,
        "nobody's": world.token(Role.USER),
        "support": world.token(Role.USER, Role.SUPPORT),
        "admin": world.token(*STAFF),
        "service": world.token(Role.SERVICE),
        "no roles": world.token(),
        "expired": world.expired_token(),
        "garbage": "e30.e30.e30",
    }
    for kind, token in callers.items():
        request = await good_request(world, rpc, of=owner)
        await world.call(rpc, request, token=token, note=f"{rpc} as {kind}")
    await world.call(rpc, request, metadata=[("authorization", "Basic YWRhOmFkYQ==")], note=f"{rpc} with Basic")


async def validation(world: World, rpc: str) -> None:
    """Break each rule of each field of the request."""
    owner = await world.person()
    request = await good_request(world, rpc, of=owner)
    for note, broken in _broken(request):
        token = world.token(*STAFF, subject=owner.id)
        await world.call(rpc, broken, token=token, note=f"{rpc} with {note}")


def _broken(request: Message) -> list[tuple[str, Message]]:
    found: list[tuple[str, Message]] = [("nothing", type(request)())]
    for field in request.DESCRIPTOR.fields:
        for value in _odd_values(field):
            changed = type(request)()
            changed.CopyFrom(request)
            try:
                _set(changed, field, value)
            except (TypeError, ValueError):
                continue
            found.append((f"{field.name}={str(value)[:40]!r}", changed))
    return found


def _odd_values(field: Field) -> list[Any]:
    if field.message_type is not None and field.message_type.full_name == "shop.order.v1.CreateOrderItem":
        money = [{"units": 0}, {"units": -1}, {"units": 1, "nanos": 1}, {"units": 10**12}, {"nanos": 2 * 10**9}]
        currencies = [{"units": 1, "currency_code": each} for each in ("EUR", "USD", "eur", "E")]
        return [
            [],
            [order_item()] * 101,
            *[[order_item(unit_price=each)] for each in money + currencies],
            *[[order_item(quantity=each)] for each in (0, -1, 10_000, 10_001)],
            *[[order_item(product_id=each)] for each in ("", " ", "p" * 64, "p" * 65, "\0")],
            *[[order_item(name=each)] for each in ("", " ", "n" * 255, "n" * 256)],
            [order_item(units=999_999_999_999, quantity=10_000)],
            [{"product_id": "tea"}],
        ]
    if field.message_type is not None:
        return [
            _struct({}),
            _struct({"a": [1, None, {"b": "c"}]}),
            _struct({"n": 2.0**60}),
            _deep(20),
            _struct({"t": "x" * 17_000}),
        ]
    if field.is_repeated:
        return [[], ["no uuid"], [new_uuid()] * 201]
    if field.type == Field.TYPE_STRING:
        texts = [
            "",
            " ",
            "x",
            "\0",
            "x" * 65,
            "x" * 129,
            "x" * 256,
            "x" * 501,
            "x" * 513,
            "password12345678",
            "e\u0301@ex\u00e4mple.com",
        ]
        return [*texts, new_uuid(), "ada@example", "EUR", "XAU", "JPY", "eur", "v1", "v99", '"v1"']
    if field.enum_type is not None:
        return [*[value.number for value in field.enum_type.values], 99]
    return [-1, 0, 1, 200, 201, 2**31 - 1]


def _set(message: Any, field: Field, value: Any) -> None:
    if field.is_repeated:
        message.ClearField(field.name)
        if field.message_type is not None:
            for each in value:
                getattr(message, field.name).add(**each)
        else:
            getattr(message, field.name).extend(value)
    elif field.message_type is not None:
        getattr(message, field.name).CopyFrom(value)
    else:
        setattr(message, field.name, value)


def _struct(value: Mapping[str, Any]) -> Struct:
    struct = Struct()
    struct.update(value)
    return struct


def _deep(levels: int) -> Struct:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"a": value}
    return _struct(value)


async def replays(world: World, rpc: str) -> None:
    """Repeat a write: with its id, with other content, as another caller, by each header, and a day later."""
    owner, other = await world.person(), await world.person()
    admin = world.token(*STAFF)
    token = admin if rpc == "UpdateOrderStatus" else owner.token
    for by in ("field", "idempotency-key", "quoted", "x-request-id"):
        key = new_uuid()
        request: Any = await good_request(world, rpc, of=owner)
        metadata = {
            "idempotency-key": [("idempotency-key", key)],
            "quoted": [("idempotency-key", f'"{key}"')],
            "x-request-id": [("x-request-id", key)],
        }.get(by, [])
        if by == "field":
            request.request_id = key
        changed = type(request)()
        changed.CopyFrom(request)
        _change(changed)
        for note, sent, caller in [
            ("first", request, token),
            ("again", request, token),
            ("changed", changed, token),
            ("by another", request, admin if token != admin else world.token(Role.USER, Role.SUPPORT)),
            ("by a stranger", request, other.token),
        ]:
            await world.call(rpc, sent, token=caller, metadata=metadata, note=f"{rpc} {note}, by {by}")
        if rpc == "ChangePassword":  # back to the first one
            back = users.ChangePasswordRequest(id=owner.id, current_password=OTHER_PASSWORD, new_password=PASSWORD)
            await world.call(rpc, back, token=token)
    await world.call(rpc, request, token=token, metadata=[("idempotency-key", "none")], note=f"{rpc} with no key")
    world.advance(timedelta(hours=25))
    await world.call(rpc, request, token=token, metadata=metadata, note=f"{rpc} a day later")


def _change(request: Any) -> None:
    """Change the content of a write, so that it is still good."""
    match request.DESCRIPTOR.name:
        case "CreateUserRequest" | "UpdateUserRequest":
            request.display_name = "Somebody else"
        case "CreateOrderRequest":
            request.items[0].quantity += 1
        case "ChangePasswordRequest":
            request.new_password = "a third horse battery"
        case "DeleteUserRequest":
            request.etag = "v1"
        case _:
            request.reason = "something else"


async def transitions(world: World) -> None:
    """Change an order from each status to each, as staff and as its owner."""
    buyer = await world.person()
    staff = world.token(Role.USER, Role.SUPPORT)
    path = ["CONFIRMED", "PROCESSING", "SHIPPED", "DELIVERED"]
    for reached in range(len(path) + 1):
        for wanted, status in _STATUSES.items():
            order = await world.order(buyer)
            for step in path[:reached]:
                request = orders.UpdateOrderStatusRequest(id=order.id, status=_STATUSES[step])  # type: ignore[arg-type]
                await world.call("UpdateOrderStatus", request, token=staff)
            change = orders.UpdateOrderStatusRequest(id=order.id, status=status, reason="why")  # type: ignore[arg-type]
            await world.call("UpdateOrderStatus", change, token=staff, note=f"after {path[:reached]} to {wanted}")
            await world.call("CancelOrder", orders.CancelOrderRequest(id=order.id), token=buyer.token)
            await world.call("CancelOrder", orders.CancelOrderRequest(id=order.id), token=staff)
            await world.call("ListOrderEvents", orders.ListOrderEventsRequest(id=order.id), token=buyer.token)


async def etags(world: World) -> None:
    """Write with the current etag, with a stale one, and with each form of the header `if-match`."""
    buyer = await world.person()
    staff = world.token(Role.USER, Role.SUPPORT)
    order = await world.order(buyer)
    for rpc, token, request in [
        (
            "UpdateOrderStatus",
            staff,
            orders.UpdateOrderStatusRequest(id=order.id, status=order_pb2.ORDER_STATUS_CONFIRMED),
        ),
        ("CancelOrder", buyer.token, orders.CancelOrderRequest(id=order.id)),
        ("UpdateUser", buyer.token, users.UpdateUserRequest(id=buyer.id, display_name="Ada")),
        ("DeleteUser", buyer.token, users.DeleteUserRequest(id=buyer.id, current_password=PASSWORD)),
    ]:
        for etag in ("v99", "v2", "v1"):
            given: Any = type(request)()
            given.CopyFrom(request)
            given.etag = etag
            await world.call(rpc, given, token=token, note=f"{rpc} etag {etag}")
        for header in ('"v7"', "v7", "*", 'W/"v1"', '"v1", "v2"', "", '"v1"', '"v2"', '"v3"'):
            await world.call(
                rpc, request, token=token, metadata=[("if-match", header)], note=f"{rpc} if-match {header}"
            )
    await world.call("GetUser", users.GetUserRequest(id=buyer.id), token=buyer.token, metadata=[("if-match", "v1")])


async def pages(world: World) -> None:
    """Read each list page by page, and with each wrong token."""
    buyer, other = await world.person(), await world.person()
    admin = world.token(*STAFF)
    staff = world.token(Role.USER, Role.SUPPORT)
    for number in range(5):
        await settled()
        order = await world.order(buyer if number != 2 else other)
    for step in ("CONFIRMED", "PROCESSING", "SHIPPED"):
        change = orders.UpdateOrderStatusRequest(id=order.id, status=_STATUSES[step], reason=step)  # type: ignore[arg-type]
        await world.call("UpdateOrderStatus", change, token=staff)
    lists: list[tuple[str, str, Any]] = [
        ("ListOrders", buyer.token, orders.ListOrdersRequest()),
        ("ListOrders", staff, orders.ListOrdersRequest()),
        ("ListOrders", staff, orders.ListOrdersRequest(user_id=other.id)),
        ("ListOrders", buyer.token, orders.ListOrdersRequest(user_id=other.id)),
        ("ListOrders", staff, orders.ListOrdersRequest(status=order_pb2.ORDER_STATUS_PENDING)),
        ("ListOrderEvents", buyer.token, orders.ListOrderEventsRequest(id=order.id)),
        ("ListUsers", admin, users.ListUsersRequest()),
        ("ListUsers", admin, users.ListUsersRequest(state=user_pb2.USER_STATE_ACTIVE)),
        ("ListUsers", admin, users.ListUsersRequest(email=other.email.upper())),
    ]
    tokens: list[str] = []
    for rpc, token, request in lists:
        for size in (1, 2, 0, 1000):
            tokens += await _read_pages(world, rpc, token, request, size=size)
    for rpc, token, request in lists:
        for page_token in (*tokens[:3], *tokens[-3:], "none", "a" * 48):
            given = type(request)()
            given.CopyFrom(request)
            given.page_token = page_token
            await world.call(rpc, given, token=token, note=f"{rpc} with the token of some list")
    world.advance(timedelta(hours=25))
    for rpc, token, request in lists:
        request.page_token = tokens[0]
        await world.call(rpc, request, token=token, note=f"{rpc} a day later")


async def _read_pages(world: World, rpc: str, token: str, request: Any, *, size: int) -> list[str]:
    page_request = type(request)()
    page_request.CopyFrom(request)
    page_request.page_size = size
    tokens: list[str] = []
    while True:
        page = await world.call(rpc, page_request, token=token, note=f"{rpc} by {size}")
        if not page.next_page_token or len(tokens) > 20:
            return tokens
        page_request.page_token = page.next_page_token
        tokens.append(page.next_page_token)


async def accounts(world: World) -> None:
    """Take an email twice, change and delete users, with right and wrong passwords."""
    ada, bob = await world.person(), await world.person(name="bob")
    admin = world.token(*STAFF)
    steps: list[tuple[str, Message, str]] = [
        ("CreateUser", create_user_request(email=ada.email.upper()), ""),
        ("CreateUser", create_user_request(email="  Zo\u00eb@B\u00fccher.example  "), ""),
        ("CreateUser", create_user_request(email="zoe\u0308@xn--bcher-kva.example"), ""),
        ("UpdateUser", users.UpdateUserRequest(id=ada.id), ada.token),
        ("UpdateUser", users.UpdateUserRequest(id=ada.id, email="a@example.com"), ada.token),
        ("UpdateUser", users.UpdateUserRequest(id=ada.id, email="a@example.com", current_password="wrong"), ada.token),
        ("UpdateUser", users.UpdateUserRequest(id=ada.id, email=bob.email, current_password=PASSWORD), ada.token),
        ("UpdateUser", users.UpdateUserRequest(id=ada.id, email="a@example.com", current_password=PASSWORD), ada.token),
        ("UpdateUser", users.UpdateUserRequest(id=ada.id, email="b@example.com"), admin),
        (
            "UpdateUser",
            users.UpdateUserRequest(id=ada.id, profile=_struct({"likes": ["tea", 2.5, None, True]})),
            ada.token,
        ),
        ("GetUser", users.GetUserRequest(id=ada.id), ada.token),
        ("DeleteUser", users.DeleteUserRequest(id=ada.id), ada.token),
        ("DeleteUser", users.DeleteUserRequest(id=ada.id, current_password="wrong"), ada.token),
        ("DeleteUser", users.DeleteUserRequest(id=bob.id), admin),
        ("DeleteUser", users.DeleteUserRequest(id=bob.id), admin),
        ("DeleteUser", users.DeleteUserRequest(id=bob.id), bob.token),
        ("DeleteUser", users.DeleteUserRequest(id=new_uuid()), admin),
        ("GetUser", users.GetUserRequest(id=bob.id), admin),
        ("UpdateUser", users.UpdateUserRequest(id=bob.id, display_name="Bob"), admin),
        ("UpdateUser", users.UpdateUserRequest(id=bob.id, email=bob.email, current_password=PASSWORD), bob.token),
        (
            "ChangePassword",
            users.ChangePasswordRequest(id=bob.id, current_password=PASSWORD, new_password=OTHER_PASSWORD),
            bob.token,
        ),
        ("ListUsers", users.ListUsersRequest(state=user_pb2.USER_STATE_DELETED), admin),
        ("BatchGetUsers", users.BatchGetUsersRequest(ids=[bob.id, ada.id, new_uuid()]), admin),
        ("CreateOrder", create_order_request(bob.id), admin),
        ("CreateOrder", create_order_request(new_uuid()), admin),
        ("CreateOrder", create_order_request(""), ada.token),
        ("CreateOrder", create_order_request(""), world.token(Role.SERVICE)),
        ("CreateSession", sessions.CreateSessionRequest(email=bob.email, password=PASSWORD), ""),
        ("CreateUser", create_user_request(email=bob.email), ""),
    ]
    for rpc, request, token in steps:
        await world.call(rpc, request, token=token)


async def erasures(world: World) -> None:
    """Repeat writes about a user who was deleted since."""
    admin = world.token(*STAFF)
    create = create_user_request(email="gone@example.com", request_id=new_uuid())
    user = await world.call("CreateUser", create)
    change = users.UpdateUserRequest(id=user.id, display_name="Gone", request_id=new_uuid())
    await world.call("UpdateUser", change, token=admin)
    delete = users.DeleteUserRequest(id=user.id, request_id=new_uuid())
    for _ in range(2):
        await world.call("DeleteUser", delete, token=admin)
    await world.call("CreateUser", create)
    await world.call("UpdateUser", change, token=admin)


async def logins(world: World) -> None:
    """Refresh, reuse, end and outlive sessions, and guess passwords until the shop makes callers wait."""
    ada, bob = await world.person(), await world.person()
    login = sessions.CreateSessionRequest(email=f" {ada.email.upper()} ", password=PASSWORD)
    first = await world.call("CreateSession", login)
    first_refresh = sessions.RefreshSessionRequest(refresh_token=first.refresh_token)
    second = await world.call("RefreshSession", first_refresh)
    repeated = await world.call("RefreshSession", first_refresh, note="the answer was lost")
    assert second.refresh_token == repeated.refresh_token
    second_refresh = sessions.RefreshSessionRequest(refresh_token=second.refresh_token)
    third = await world.call("RefreshSession", second_refresh)
    await world.call("RefreshSession", first_refresh, note="its successor was used")
    await world.call("RefreshSession", sessions.RefreshSessionRequest(refresh_token=third.refresh_token))
    late = await world.call("CreateSession", login)
    late_refresh = sessions.RefreshSessionRequest(refresh_token=late.refresh_token)
    await world.call("RefreshSession", late_refresh)
    world.advance(timedelta(seconds=11))
    await world.call("RefreshSession", late_refresh, note="too late for a lost answer")
    for caller in (bob.token, ada.token, world.token(*STAFF)):
        ended = await world.call("CreateSession", login)
        await world.call("DeleteSession", sessions.DeleteSessionRequest(id=ended.id), token=caller)
        await world.call("RefreshSession", sessions.RefreshSessionRequest(refresh_token=ended.refresh_token))
    old = await world.call("CreateSession", login)
    world.advance(timedelta(days=30))
    await world.call("RefreshSession", sessions.RefreshSessionRequest(refresh_token=old.refresh_token))
    for email in (ada.email, "nobody@example.com", "no email"):
        wrong = sessions.CreateSessionRequest(email=email, password="wrong")
        for attempt in range(6):
            await world.call("CreateSession", wrong, note=f"guess {attempt}")
    await world.call("CreateSession", login, note="the right one, too early")
    world.advance(timedelta(seconds=2))
    await world.call("CreateSession", login, note="the right one")


async def endings(world: World) -> None:
    """End sessions by a new password, which spares the calling one, and by a deletion."""
    ada = await world.person()
    admin = world.token(*STAFF)
    login = sessions.CreateSessionRequest(email=ada.email, password=PASSWORD)
    own, other = [await world.call("CreateSession", login) for _ in range(2)]
    change = users.ChangePasswordRequest(id=ada.id, current_password=PASSWORD, new_password=OTHER_PASSWORD)
    await world.call("ChangePassword", change, token=own.access_token)
    for session in (own, other):
        refresh = sessions.RefreshSessionRequest(refresh_token=session.refresh_token)
        own = await world.call("RefreshSession", refresh) or own
    await world.call("CreateSession", login, note="with the old password")
    await world.call("DeleteUser", users.DeleteUserRequest(id=ada.id), token=admin)
    await world.call("RefreshSession", sessions.RefreshSessionRequest(refresh_token=own.refresh_token))
    await world.call("GetUser", users.GetUserRequest(id=ada.id), token=own.access_token)


async def watching(world: World) -> None:
    """Watch orders: all, one's own, another user's, and after a token."""
    ada, bob = await world.person(), await world.person()
    staff = world.token(Role.USER, Role.SUPPORT)
    streams = {
        "staff": world.stream("WatchOrders", orders.WatchOrdersRequest(), token=staff),
        "ada": world.stream("WatchOrders", orders.WatchOrdersRequest(), token=ada.token),
        "staff, of bob": world.stream("WatchOrders", orders.WatchOrdersRequest(user_id=bob.id), token=staff),
        "ada, of bob": world.stream("WatchOrders", orders.WatchOrdersRequest(user_id=bob.id), token=ada.token),
    }
    first = {name: await stream.read() for name, stream in streams.items()}
    for buyer in (ada, bob, ada):
        order = await world.order(buyer)
    confirm = orders.UpdateOrderStatusRequest(id=order.id, status=order_pb2.ORDER_STATUS_CONFIRMED)
    await world.call("UpdateOrderStatus", confirm, token=staff)
    await world.call("CancelOrder", orders.CancelOrderRequest(id=order.id), token=ada.token)
    expected = {"staff": 5, "ada": 4, "staff, of bob": 1, "ada, of bob": 0}
    resumed = {
        f"{name}, again": world.stream(
            "WatchOrders", orders.WatchOrdersRequest(resume_token=first[name].resume_token), token=token
        )
        for name, token in (("staff", staff), ("ada", ada.token))
    }
    for name, stream in resumed.items():
        await stream.read()
        expected[name] = expected[name.removesuffix(", again")]
    for name, stream in {**streams, **resumed}.items():
        changes = [change async for change in _changes(stream, expected[name])]
        world.transcript.append([f"watch of {name}", world._plain([_shown(each) for each in changes])])  # noqa: SLF001
        stream.cancel()
    for token in (new_uuid(), "none"):
        await world.call("WatchOrders", orders.WatchOrdersRequest(resume_token=token), token=staff)


async def expiring(world: World) -> None:
    """Watch until the access token expires: the last message has the error that is also the call's status."""
    stream = world.stream("WatchOrders", orders.WatchOrdersRequest(), token=world.short_token())
    await world.read_to_end(stream, note="watch of a token that expires")


async def _changes(stream: Any, count: int) -> Any:
    while count:
        message = await stream.read()
        if message.HasField("change"):
            count -= 1
            yield message.change


def _shown(change: Any) -> Any:
    return [change.order_id, change.user_id, change.from_status, change.to_status, change.etag]


_WRITES: Final = [name for name, rpc in RPCS.items() if "request_id" in rpc.input_type.fields_by_name]
SCENARIOS: Final[Mapping[str, Callable[[World], Awaitable[None]]]] = {
    **{f"access to {name}": lambda world, name=name: access(world, name) for name in RPCS},
    **{f"validation of {name}": lambda world, name=name: validation(world, name) for name in RPCS},
    **{f"replays of {name}": lambda world, name=name: replays(world, name) for name in _WRITES},
    **{
        each.__name__: each
        for each in (transitions, etags, pages, accounts, erasures, logins, endings, watching, expiring)
    },
}
