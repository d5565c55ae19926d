"""A deletion erases the user's text from orders too, from both databases and from the streams; no log ever has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shop.order.v1 import order_pb2
from shop.order.v1 import order_service_pb2 as orders_pb
from shop.user.v1 import user_service_pb2 as users_pb
from structlog.testing import capture_logs

from chassis.testing import bearer, new_uuid, refusal_of, token_of, until
from tests.integration.order_svc.flow import flowing
from tests.services.order_svc.placing import create_order_request
from tests.support.free_text import free_texts, stored_text
from tests.support.requests import PASSWORD, create_user_request

if TYPE_CHECKING:
    from redis import Redis
    from shop.order.v1.order_service_pb2_grpc import OrderServiceAsyncStub
    from shop.user.v1.user_service_pb2_grpc import UserServiceAsyncStub

    from tests.integration.databases import TestDatabase

PLANTED = {"reason"}
# Items and prices stay: an order is a document of the shop's books.
KEPT = {"name", "currency_code"}


def test_every_free_text_of_the_contract_is_planted_below_or_kept_for_a_reason() -> None:
    assert free_texts(orders_pb.DESCRIPTOR) == PLANTED | KEPT


async def test_text_of_a_deleted_user_is_in_no_table(
    users: UserServiceAsyncStub,
    orders: OrderServiceAsyncStub,
    users_database: TestDatabase,
    orders_database: TestDatabase,
    redis_url: str,
    stored: Redis,
) -> None:
    with capture_logs() as logs:
        async with flowing(users=users_database.url, orders=orders_database.url, redis=redis_url):
            user = await users.CreateUser(create_user_request(display_name="canary name"))
            me = bearer(token_of(user.id))
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
