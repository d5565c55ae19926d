"""Every reason of the contract, produced on purpose, and told alike over REST and gRPC.

A reason's status, HTTP status and metadata are read from the comments of its enum, so the comments are tested too.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pytest
from google.protobuf.empty_pb2 import Empty
from google.rpc import code_pb2
from shop.order.v1 import order_pb2
from shop.order.v1 import order_service_pb2 as orders
from shop.user.v1 import session_service_pb2 as sessions
from shop.user.v1 import user_service_pb2 as users

from chassis.testing import new_uuid
from tests.e2e.callers import code_of, require_clean, rest_outcome
from tests.e2e.contract import BY_NAME
from tests.support.reasons import REASONS
from tests.support.requests import create_order_request, create_user_request, order_item
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.message import Message

    from tests.e2e.callers import Outcome
    from tests.e2e.world import World

    Cause = Callable[[World], list[Outcome]]

SYSTEM: Final = "shop.system.v1"
USER: Final = "shop.user.v1"
ORDER: Final = "shop.order.v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """How a reason comes about.

    Attributes:
        cause: brings it about in every way there is, and returns what the callers heard.
        fields: the fields that the BadRequest names, where there is one.
        grpc_code: the status over gRPC, where gRPC itself has a rule that the reason's own status would break.
        has_many_words: whether the message depends on how the request was made: what is wrong with JSON is no matter
            of gRPC.
    """

    cause: Cause
    fields: tuple[str, ...] = ()
    grpc_code: str = ""
    has_many_words: bool = False


SCENARIOS: dict[tuple[str, str], Scenario] = {}


def produces(domain: str, reason: str, **expected: Any) -> Callable[[Cause], Cause]:
    """Enter the function below as the scenario of a reason."""

    def enter(cause: Cause) -> Cause:
        SCENARIOS[domain, reason] = Scenario(cause=cause, **expected)
        return cause

    return enter


@produces(SYSTEM, "INVALID_FIELDS", fields=("id",))
def a_request_breaks_a_rule(world: World) -> list[Outcome]:
    return world.both("GetUser", users.GetUserRequest(id="me"))


@produces(SYSTEM, "INVALID_PAGE_TOKEN", fields=("pageToken",))
def a_page_token_is_of_another_list(world: World) -> list[Outcome]:
    first = world.order()
    world.order(first.user_id)
    page = world.edge.grpc(BY_NAME["ListOrders"], orders.ListOrdersRequest(user_id=first.user_id, page_size=1))

    return world.both("ListOrders", orders.ListOrdersRequest(page_token=page.body["nextPageToken"]))


@produces(SYSTEM, "RESUME_TOKEN_EXPIRED")
def nothing_is_known_of_a_resume_token(world: World) -> list[Outcome]:
    return world.both("WatchOrders", orders.WatchOrdersRequest(resume_token=new_uuid()))


@produces(SYSTEM, "MALFORMED_REQUEST", has_many_words=True)
def a_request_cannot_be_read(world: World) -> list[Outcome]:
    broken_json = world.edge.http.post("/api/v1/users", content=b"{", headers={"content-type": "application/json"})

    return [rest_outcome(broken_json), world.edge.grpc(BY_NAME["CreateUser"], b"\x0a\xff")]


@produces(SYSTEM, "REQUEST_ID_REUSED")
def a_request_id_comes_with_other_content(world: World) -> list[Outcome]:
    used = new_uuid()
    world.user(request_id=used)

    return world.both("CreateUser", create_user_request(request_id=used))


@produces(SYSTEM, "ANSWER_ERASED")
def a_write_comes_again_after_its_user_was_deleted(world: World) -> list[Outcome]:
    request = create_user_request(request_id=new_uuid())
    created = world.edge.grpc(BY_NAME["CreateUser"], request)
    world.edge.grpc(BY_NAME["DeleteUser"], users.DeleteUserRequest(id=created.body["id"]))

    return world.both("CreateUser", request)


@produces(SYSTEM, "ETAG_MISMATCH")
def an_etag_is_stale(world: World) -> list[Outcome]:
    return world.both("UpdateUser", users.UpdateUserRequest(id=world.user().id, display_name="Eve", etag="v7"))


@produces(SYSTEM, "DATABASE_UNAVAILABLE")
def the_database_does_not_answer(world: World) -> list[Outcome]:
    request = users.GetUserRequest(id=world.user().id)

    with world.locked("users"):
        return world.both("GetUser", request)


@produces(SYSTEM, "INTERNAL")
def a_service_has_a_defect(world: World) -> list[Outcome]:
    request = users.GetUserRequest(id=world.user().id)

    with world.missing("users"):
        return world.both("GetUser", request)


@produces(SYSTEM, "ROUTE_NOT_FOUND", grpc_code="UNIMPLEMENTED")
def nothing_is_there(world: World) -> list[Outcome]:
    by_rest = world.edge.http.get("/api/v1/carts")

    return [
        rest_outcome(by_rest),
        world.edge.grpc_at("/shop.cart.v1.CartService/GetCart", b"", reply=Empty),
        world.edge.grpc_at("/shop.user.v1.UserService/Promote", b"", reply=Empty),
        world.edge.grpc_at("/api/v1/users", b"", reply=Empty),
    ]


@produces(SYSTEM, "PAYLOAD_TOO_LARGE")
def a_body_is_too_large(world: World) -> list[Outcome]:
    return world.both("CreateUser", create_user_request(display_name="a" * 11_000_000))


@produces(SYSTEM, "UNSUPPORTED_MEDIA_TYPE")
def a_body_is_not_json(world: World) -> list[Outcome]:
    forms = ("text/plain", "application/x-www-form-urlencoded", "application/json5", "application/xml")

    return [
        rest_outcome(world.edge.http.post("/api/v1/users", content=b"{}", headers={"content-type": form}))
        for form in forms
    ]


@produces(SYSTEM, "SERVICE_UNAVAILABLE")
def no_replica_is_there(world: World) -> list[Outcome]:
    request = users.GetUserRequest(id=world.user().id)

    with world.stopped("user_svc"):
        refusals = world.both("GetUser", request)
    until(lambda: not any(each.is_refusal for each in world.both("GetUser", request)))
    return refusals


@produces(SYSTEM, "DEADLINE_EXCEEDED")
def a_call_takes_longer_than_its_deadline(world: World) -> list[Outcome]:
    request = users.GetUserRequest(id=world.user().id)

    # By hand, because a gRPC library gives up by itself and does not hear the answer. REST has no deadline to set. The
    # edge answers 20 ms before the deadline. On a busy machine it can be later than the service's gRPC, whose answer
    # has no reason.
    for _ in range(10):
        with world.locked("users"), contextlib.suppress(KeyError):
            return [world.edge.raw_grpc(BY_NAME["GetUser"], request, headers={"grpc-timeout": "200m"})]
    raise AssertionError("ten answers of the service came before the edge's")


@produces(USER, "USER_NOT_FOUND")
def a_user_does_not_exist(world: World) -> list[Outcome]:
    return world.both("GetUser", users.GetUserRequest(id=new_uuid()))


@produces(USER, "EMAIL_TAKEN", fields=("email",))
def an_email_is_taken(world: World) -> list[Outcome]:
    return world.both("CreateUser", create_user_request(email=world.user().email.upper()))


@produces(USER, "USER_NOT_ACTIVE")
def a_deleted_user_is_to_change(world: World) -> list[Outcome]:
    return world.both("UpdateUser", users.UpdateUserRequest(id=world.deleted_user(), display_name="Eve"))


@produces(USER, "INVALID_CREDENTIALS")
def a_password_is_wrong(world: World) -> list[Outcome]:
    return world.both(
        "ChangePassword",
        users.ChangePasswordRequest(id=world.owner(), current_password="guessed", new_password="a brand new password"),
    )


@produces(USER, "TOO_MANY_ATTEMPTS")
def passwords_are_guessed(world: World) -> list[Outcome]:
    guess = sessions.CreateSessionRequest(email=f"{new_uuid()}@example.com", password="guessed")
    for _ in range(6):
        world.both("CreateSession", guess)

    return world.both("CreateSession", guess)


@produces(USER, "TOKEN_REUSED")
def a_refresh_token_is_used_again(world: World) -> list[Outcome]:
    rpc = BY_NAME["RefreshSession"]

    def used_twice() -> Message:
        request = world.request("RefreshSession")
        answer = world.edge.grpc(rpc, request)
        # Use of the successor shows that the answer had arrived.
        world.edge.grpc(rpc, sessions.RefreshSessionRequest(refresh_token=answer.body["refreshToken"]))
        return request

    return [world.both("RefreshSession", used_twice())[0], world.edge.grpc(rpc, used_twice())]


@produces(SYSTEM, "TOKEN_INVALID")
def a_token_is_none_of_ours(world: World) -> list[Outcome]:
    junk = {"authorization": "Bearer junk"}
    request = users.GetUserRequest(id=new_uuid())
    by_rest = world.edge.http.get(f"/api/v1/users/{request.id}", headers=junk)

    return [
        rest_outcome(by_rest),
        world.edge.grpc(BY_NAME["GetUser"], request, metadata=tuple(junk.items())),
    ]


@produces(SYSTEM, "TOKEN_EXPIRED")
def a_session_is_over(world: World) -> list[Outcome]:
    refresh = world.request("RefreshSession")
    world.expire_sessions()

    return world.both("RefreshSession", refresh)


@produces(SYSTEM, "ROLE_REQUIRED")
def a_user_calls_what_is_for_admins(world: World) -> list[Outcome]:
    bearer = {"authorization": f"Bearer {world.token_of(world.user())}"}
    by_rest = world.edge.http.get("/api/v1/users", headers=bearer)

    return [
        rest_outcome(by_rest),
        world.edge.grpc(BY_NAME["ListUsers"], users.ListUsersRequest(), metadata=tuple(bearer.items())),
    ]


@produces(ORDER, "ORDER_NOT_FOUND")
def an_order_does_not_exist(world: World) -> list[Outcome]:
    return world.both("GetOrder", orders.GetOrderRequest(id=new_uuid()))


@produces(ORDER, "CURRENCY_MISMATCH", fields=("items[1].unitPrice.currencyCode",))
def an_item_has_another_currency(world: World) -> list[Outcome]:
    in_dollars = order_item(unit_price={"currency_code": "USD", "units": 1})
    return world.both("CreateOrder", create_order_request(new_uuid(), items=[order_item(), in_dollars]))


@produces(ORDER, "AMOUNT_OUT_OF_RANGE", fields=("items[0].unitPrice",))
def a_price_is_too_large(world: World) -> list[Outcome]:
    return world.both("CreateOrder", create_order_request(new_uuid(), items=[order_item(units=2**63 - 1)]))


@produces(ORDER, "INVALID_STATUS_TRANSITION")
def an_order_skips_a_status(world: World) -> list[Outcome]:
    request = orders.UpdateOrderStatusRequest(id=world.order().id, status=order_pb2.ORDER_STATUS_DELIVERED)

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


def test_every_reason_of_the_contract_has_a_scenario() -> None:
    # Too many calls from one address need a stack with limits: test_edge_hardening has one. Too many calls that wait
    # need a stuck database and a short queue: integration/test_batches has them. How streams end:
    # integration/test_watching_ends.
    elsewhere = {(SYSTEM, name) for name in ("RATE_LIMITED", "OVERLOADED", "STREAM_TOO_SLOW", "SERVER_STOPPING")}

    assert SCENARIOS.keys() | elsewhere == REASONS.keys()


@pytest.mark.parametrize("key", SCENARIOS, ids="-".join)
def test_every_reason_is_answered_as_the_contract_says(world: World, key: tuple[str, str]) -> None:
    scenario, reason = SCENARIOS[key], REASONS[key]

    outcomes = scenario.cause(world)

    for outcome in outcomes:
        require_clean(outcome)
        over_rest = outcome.http is not None
        code = reason.code if over_rest else scenario.grpc_code or reason.code
        info = outcome.detail("ErrorInfo")
        assert outcome.reason == key
        assert outcome.code == code_of(code), outcome
        assert outcome.http in {None, reason.http}, outcome
        assert info.get("metadata", {}).keys() == reason.metadata
        assert tuple(outcome.fields) == scenario.fields
        is_passing = outcome.code == code_pb2.UNAVAILABLE or reason.http == 429
        assert bool(outcome.detail("RetryInfo")) == is_passing
        assert (outcome.retry_after is not None) == is_passing
    assert scenario.has_many_words or len({outcome.body["message"] for outcome in outcomes}) == 1


def test_a_temporary_refusal_has_a_time_to_retry(world: World) -> None:
    request = users.GetUserRequest(id=world.user().id)

    with world.locked("users"):
        by_rest, by_grpc = world.both("GetUser", request)

    assert by_rest.retry_after == by_grpc.retry_after == "1"
    assert by_rest.detail("RetryInfo")["retryDelay"] == "1s"
