"""Every reason of the contract, produced on purpose, and told alike over REST and gRPC.

A reason's status, HTTP status and metadata are read from the comments of its enum, so the comments are tested too.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

import pytest
from google.protobuf.empty_pb2 import Empty
from google.rpc import code_pb2
from shop.user.v1 import user_service_pb2 as users

from chassis.testing import new_uuid
from tests.e2e.callers import code_of, require_clean, rest_outcome
from tests.e2e.contract import BY_NAME, RPCS
from tests.e2e.scenarios import SYSTEM, all_scenarios, produces
from tests.support.reasons import REASONS
from tests.support.requests import create_user_request
from tests.support.waiting import until

if TYPE_CHECKING:
    from tests.e2e.callers import Outcome
    from tests.e2e.world import World


@produces(SYSTEM, "INVALID_FIELDS", fields=("id",))
def a_request_breaks_a_rule(world: World) -> list[Outcome]:
    return world.both("GetUser", users.GetUserRequest(id="me"))


@produces(SYSTEM, "INVALID_PAGE_TOKEN", fields=("pageToken",))
def a_page_token_is_of_another_list(world: World) -> list[Outcome]:
    for _ in "ab":
        world.user()
    page = world.edge.grpc(BY_NAME["ListUsers"], users.ListUsersRequest(page_size=1))

    other = users.ListUsersRequest(page_token=page.body["nextPageToken"], email="ada@example.com")
    return world.both("ListUsers", other)


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


ALL: Final = all_scenarios()


def test_every_reason_of_the_contract_has_a_scenario() -> None:
    # Too many calls from one address need a stack with limits: test_edge_hardening has one. Too many calls that wait
    # need a stuck database and a short queue: integration/test_batches has them. How streams end:
    # integration/test_watching_ends.
    elsewhere = {(SYSTEM, name) for name in ("RATE_LIMITED", "OVERLOADED", "STREAM_TOO_SLOW", "SERVER_STOPPING")}
    if not any(rpc.is_stream for rpc in RPCS):
        elsewhere.add((SYSTEM, "RESUME_TOKEN_EXPIRED"))

    known = ALL.keys() | elsewhere
    assert REASONS.keys() - known == set(), "bring it about in tests/services/<service>/reasons.py"
    assert known - REASONS.keys() == set(), "a scenario of a reason that is not there any more"


@pytest.mark.parametrize("key", ALL, ids="-".join)
def test_every_reason_is_answered_as_the_contract_says(world: World, key: tuple[str, str]) -> None:
    scenario, reason = ALL[key], REASONS[key]

    outcomes = scenario.cause(world)

    assert world.rows_in_the_log_of_postgresql() == []
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
