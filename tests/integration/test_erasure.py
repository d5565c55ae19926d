"""A deletion erases the user's text from both databases and from the streams; no log ever has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shop.order.v1 import order_pb2
from shop.order.v1 import order_service_pb2 as orders_pb
from shop.user.v1 import session_service_pb2 as sessions_pb
from shop.user.v1 import user_service_pb2 as users_pb
from structlog.testing import capture_logs

from chassis.testing import bearer, new_uuid, refusal_of, token_of, until
from tests.integration.order_svc.flow import flowing
from tests.support.requests import PASSWORD, create_order_request, create_user_request

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.descriptor import Descriptor
    from redis import Redis
    from shop.order.v1.order_service_pb2_grpc import OrderServiceAsyncStub
    from shop.user.v1.session_service_pb2_grpc import SessionServiceAsyncStub
    from shop.user.v1.user_service_pb2_grpc import UserServiceAsyncStub

    from tests.integration.databases import TestDatabase

PLANTED = {"email", "password", "display_name", "profile", "current_password", "new_password", "reason"}
# Items and prices stay: an order is a document of the shop's books.
KEPT = {"name", "currency_code"}


def free_texts(message: Descriptor) -> Iterator[str]:
    """Yield the names of the fields into which a caller can write what they like."""
    for field in message.fields:
        name = field.message_type.full_name if field.message_type else ""
        if name == "google.protobuf.Struct":
            yield field.name
        elif name.startswith("shop."):
            yield from free_texts(field.message_type)
        elif field.type == field.TYPE_STRING and not field.name.endswith(("id", "ids", "etag", "token")):
            yield field.name


def test_every_free_text_of_the_contract_is_planted_below_or_kept_for_a_reason() -> None:
    methods = [
        method
        for module in (orders_pb, users_pb, sessions_pb)
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    ]

    assert {name for method in methods for name in free_texts(method.input_type)} == PLANTED | KEPT


def stored_text(stored: Redis) -> str:
    """Return every event and every other value in Redis."""
    streams = [stored.xrange(key) for key in stored.keys() if stored.type(key) == "stream"]  # noqa: SIM118  no dict
    hashes = [stored.hgetall(key) for key in stored.keys() if stored.type(key) == "hash"]  # noqa: SIM118  no dict
    return str((streams, hashes))


async def test_text_of_a_deleted_user_is_in_no_table(
    users: UserServiceAsyncStub,
    sessions: SessionServiceAsyncStub,
    orders: OrderServiceAsyncStub,
    users_database: TestDatabase,
    orders_database: TestDatabase,
    redis_url: str,
    stored: Redis,
) -> None:
    with capture_logs() as logs:
        async with flowing(users=users_database.url, orders=orders_database.url, redis=redis_url):
            user = await users.CreateUser(
                create_user_request(
                    email="canary-one@example.com",
                    password="canary password one",
                    display_name="canary name one",
                    profile={"canary": "profile one"},
                    request_id=new_uuid(),
                )
            )
            me = bearer(token_of(user.id))
            for password in ("canary password none", "canary password one"):
                login = sessions_pb.CreateSessionRequest(email="canary-one@example.com", password=password)
                if password == "canary password one":
                    await sessions.CreateSession(login)
                else:
                    await refusal_of(sessions.CreateSession(login))
            await users.ChangePassword(
                users_pb.ChangePasswordRequest(
                    id=user.id, current_password="canary password one", new_password="canary password two"
                ),
                metadata=me,
            )
            await users.UpdateUser(
                users_pb.UpdateUserRequest(
                    id=user.id, email="canary-two@example.com", display_name="canary two", profile={"a": "canary"}
                )
            )
            placed = [await orders.CreateOrder(create_order_request(user.id), metadata=me) for _ in range(3)]
            cancel = orders_pb.CancelOrderRequest(
                id=placed[0].id, reason="canary, Canary Street 1", request_id=new_uuid()
            )
            await orders.CancelOrder(cancel, metadata=me)
            await orders.UpdateOrderStatus(
                orders_pb.UpdateOrderStatusRequest(
                    id=placed[1].id,
                    status=order_pb2.ORDER_STATUS_CONFIRMED,
                    reason="canary called",
                    request_id=new_uuid(),
                )
            )
            texts = [users_database.everything(), orders_database.everything()]
            assert all("canary" in text for text in texts)

            await users.DeleteUser(users_pb.DeleteUserRequest(id=user.id))

            async def took_effect() -> bool:
                known = orders_database.query("SELECT state FROM known_users WHERE id = %s", user.id)
                return known == [("DELETED",)]

            await until(took_effect)
            again = await refusal_of(orders.CancelOrder(cancel, metadata=me))

    left = [users_database.everything(), orders_database.everything(), stored_text(stored), str(logs)]
    for text in left:
        assert "canary" not in text
        assert b"canary".hex() not in text
    assert user.id in stored_text(stored)
    assert again.reason == "ANSWER_ERASED"
    reasons = orders_database.query("SELECT id::text, status, cancel_reason FROM orders ORDER BY id")
    assert reasons == [
        (placed[0].id, "CANCELLED", ""),
        (placed[1].id, "CANCELLED", "The user was deleted."),
        (placed[2].id, "CANCELLED", "The user was deleted."),
    ]


async def test_text_of_other_users_stays(
    users: UserServiceAsyncStub,
    orders: OrderServiceAsyncStub,
    users_database: TestDatabase,
    orders_database: TestDatabase,
    redis_url: str,
) -> None:
    gone, other = [await users.CreateUser(create_user_request(password=PASSWORD)) for _ in range(2)]
    kept = await orders.CreateOrder(create_order_request(other.id))
    cancel = orders_pb.CancelOrderRequest(id=kept.id, reason="too late", request_id=new_uuid())
    cancelled = await orders.CancelOrder(cancel)

    async with flowing(users=users_database.url, orders=orders_database.url, redis=redis_url):
        await users.DeleteUser(users_pb.DeleteUserRequest(id=gone.id))

        async def took_effect() -> bool:
            return orders_database.query("SELECT state FROM known_users WHERE id = %s", gone.id) == [("DELETED",)]

        await until(took_effect)

    assert await orders.CancelOrder(cancel) == cancelled
    assert cancelled.cancel_reason == "too late"
