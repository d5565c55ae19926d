"""Bad requests are answered with a 4xx of one shape, never a 5xx, and reveal nothing of the implementation."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from google.protobuf import json_format
from shop.user.v1 import user_service_pb2 as users

from chassis.testing import new_uuid
from tests.e2e.bad_requests import INVALID, MALFORMED, get, post, post_raw
from tests.e2e.callers import Outcome, require_clean, require_clean_error, rest_outcome
from tests.e2e.contract import BINDINGS, BY_NAME, RPCS, Binding, Place, name_of, with_value
from tests.e2e.world import request_json
from tests.support.requests import PASSWORD, create_user_request

if TYPE_CHECKING:
    import httpx

    from tests.e2e.callers import Edge
    from tests.e2e.contract import Json, Rpc
    from tests.e2e.world import World

NO_ROUTE = ("shop.system.v1", "ROUTE_NOT_FOUND")

WITH_FIELDS = [rpc for rpc in RPCS if rpc.request.DESCRIPTOR.fields]
TEXTS = [
    (binding, place)
    for binding in BINDINGS
    for place in binding.rpc.string_places()
    # No query may hold a secret.
    if binding.has_body or not binding.rpc.is_secret(place)
]
CREATED = [each.template for each in BINDINGS if each.rpc.creates]
NASTY_SQL = (
    "'; DROP TABLE users; DROP TABLE orders; --",
    "' OR '1'='1",
    "\\'); DELETE FROM users; --",
    "%27%3B$1:x%s{}",
)


def text_id(value: object) -> str:
    if isinstance(value, tuple):
        return ".".join(str(each) for each in value)
    return name_of(value) if isinstance(value, Binding) else str(value)


def a_user_json(**changes: object) -> Json:
    return {**request_json(create_user_request()), **changes}


# Bytes that are no message.


@pytest.mark.parametrize("rpc", WITH_FIELDS, ids=name_of)
@pytest.mark.parametrize(
    "data",
    [b"\xff", b"\x0a\xff\xff\xff\xff\x0f", b"\x0a\x05ab", b"\x0b", b"\x00\x00"],
    ids=["no tag", "length over 4 GiB", "cut off", "group without an end", "field 0"],
)
def test_malformed_bytes_are_refused_over_grpc(edge: Edge, rpc: Rpc, data: bytes) -> None:
    outcome = edge.grpc(rpc, data)

    require_clean(outcome)
    assert outcome.reason == MALFORMED


@pytest.mark.parametrize("rpc", [each for each in WITH_FIELDS if each.string_places()], ids=name_of)
def test_text_with_invalid_utf8_is_malformed(edge: Edge, rpc: Rpc) -> None:
    field = next(each for each in rpc.request.DESCRIPTOR.fields if each.type == each.TYPE_STRING)

    outcome = edge.grpc(rpc, bytes([field.number << 3 | 2, 2, 0xFF, 0xFE]))

    require_clean(outcome)
    assert outcome.reason == MALFORMED


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/users/%ff",
        "/api/v1/users?email=%ff%fe",
        "/api/v1/users?pageToken=%c0%80",
        "/api/v1/users?%ff=1",
        "/api/v1/users:batchGet?ids=%ed%a0%80",
        "/api/v1/users/%f5%80%80%80",
    ],
)
def test_a_path_or_query_with_invalid_utf8_is_malformed(edge: Edge, path: str) -> None:
    assert get(edge, path).reason == MALFORMED


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b'{"email":',
        b'{"email":"a@example.com"',
        b'{"email":"\xff\xfe"}',
        b'{"email":"\\ud800"}',
        b"[]",
        b"null",
        b"1",
        b'"text"',
        b"true",
        b"{}{}",
        b"{},",
        b"/**/{}",
        b"\xef\xbb\xbf{}",
        b"\x00",
        b"\x1f\x8b\x08\x00",
        b"email=a@example.com",
        b"<user/>",
        '{"email":"a@example.com"}'.encode("utf-16"),
    ],
)
@pytest.mark.parametrize("path", CREATED)
def test_a_body_that_is_not_a_json_object_is_malformed(edge: Edge, path: str, body: bytes) -> None:
    assert post_raw(edge, path, body).reason == MALFORMED


def test_an_empty_body_is_an_empty_request(edge: Edge) -> None:
    outcome = post_raw(edge, "/api/v1/users", b"")

    assert outcome.reason == INVALID
    assert {"email", "password", "displayName"} <= set(outcome.fields)


# Values of another kind than the field.

OTHER_KINDS = [
    ("email", True),
    ("email", ["a@example.com"]),
    ("email", {"a": 1}),
    ("email", 12),
    ("profile", "text"),
    ("profile", [1]),
    ("profile", 1),
    ("requestId", {}),
]


@pytest.mark.parametrize(("field", "value"), OTHER_KINDS)
def test_a_value_of_another_kind_is_refused(edge: Edge, field: str, value: object) -> None:
    assert post(edge, "/api/v1/users", a_user_json(**{field: value})).reason in {MALFORMED, INVALID}


def test_null_counts_as_an_absent_field(edge: Edge) -> None:
    assert post(edge, "/api/v1/users", a_user_json(email=None)).fields == ["email"]


@pytest.mark.parametrize("number", ["1e400", "NaN", "Infinity", "-Infinity"])
def test_a_number_that_json_cannot_hold_is_malformed_in_a_profile(edge: Edge, number: str) -> None:
    body = json.dumps(a_user_json(profile={"n": 1})).replace('"n": 1', f'"n": {number}')

    assert post_raw(edge, "/api/v1/users", body.encode()).reason == MALFORMED


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_that_json_cannot_hold_is_refused_over_grpc(edge: Edge, number: float) -> None:
    request = create_user_request()
    request.profile["n"] = number

    outcome = edge.grpc(BY_NAME["CreateUser"], request)

    require_clean(outcome)
    assert (outcome.reason, outcome.fields) == (INVALID, ["profile.n"])


def test_a_field_given_twice_is_malformed(edge: Edge) -> None:
    body = json.dumps(a_user_json())[:-1] + ', "displayName": "Eve"}'

    assert post_raw(edge, "/api/v1/users", body.encode()).reason == MALFORMED


@pytest.mark.parametrize(("names", "http"), [(1_500, 201), (2_500, 400), (50_000, 413)])
def test_a_profile_may_have_any_number_of_names_within_16_kib(edge: Edge, names: int, http: int) -> None:
    body = a_user_json(profile={str(number): 1 for number in range(names)})

    assert edge.http.post("/api/v1/users", json=body).status_code == http


# Text that is poison somewhere.


@pytest.mark.parametrize(("binding", "place"), TEXTS, ids=text_id)
def test_nul_is_refused_in_every_text_that_is_kept(world: World, binding: Binding, place: Place) -> None:
    rpc = binding.rpc
    poisoned = with_value(request_json(world.request(rpc.name)), place, "correct horse\0battery")

    by_rest = _sent(world.edge, binding, poisoned)
    by_grpc = world.edge.grpc(rpc, json_format.ParseDict(poisoned, rpc.request()))

    for outcome in (by_rest, by_grpc):
        # A password is kept as a hash, so it may hold anything.
        assert outcome.is_refusal or str(place[-1]).lower().endswith("password")


@pytest.mark.parametrize("sql", NASTY_SQL)
@pytest.mark.parametrize(("binding", "place"), TEXTS, ids=text_id)
def test_sql_in_a_text_is_text(world: World, binding: Binding, place: Place, sql: str) -> None:
    rpc = binding.rpc
    request = with_value(request_json(world.request(rpc.name)), place, sql)

    by_rest = _sent(world.edge, binding, request)
    by_grpc = world.edge.grpc(rpc, json_format.ParseDict(request, rpc.request()))

    if by_grpc.is_refusal:
        require_clean(by_grpc)
    assert by_rest.is_refusal == by_grpc.is_refusal


def test_sql_in_a_name_is_kept_as_it_was_typed(world: World) -> None:
    user = world.user(display_name=NASTY_SQL[0])

    outcome = rest_outcome(world.edge.http.get(f"/api/v1/users/{user.id}"))

    assert outcome.body["displayName"] == NASTY_SQL[0]


def test_an_email_of_100_kilobytes_is_refused(edge: Edge) -> None:
    outcome = post(edge, "/api/v1/users", a_user_json(email="a" * 100_000 + "@example.com"))

    assert outcome.fields == ["email"]


# Depth and size.


@pytest.mark.parametrize("depth", [17, 60, 200, 5000])
@pytest.mark.parametrize(("begin", "end"), [('{"a":', "}"), ("[", "]")], ids=["objects", "lists"])
def test_a_profile_that_is_too_deep_is_refused(edge: Edge, depth: int, begin: str, end: str) -> None:
    profile = '{"a":' + begin * depth + "1" + end * depth + "}"
    body = json.dumps(a_user_json())[:-1] + f', "profile": {profile}}}'

    assert post_raw(edge, "/api/v1/users", body.encode()).reason in {MALFORMED, INVALID}


@pytest.mark.parametrize("depth", [17, 60, 200, 5000])
def test_a_profile_that_is_too_deep_is_refused_over_grpc(edge: Edge, depth: int) -> None:
    outcome = edge.grpc(BY_NAME["CreateUser"], create_user_request().SerializeToString() + _deep_profile(depth))

    require_clean(outcome)
    assert outcome.reason in {MALFORMED, INVALID}


def test_a_body_of_11_megabytes_is_too_large(edge: Edge) -> None:
    outcome = post_raw(edge, "/api/v1/users", b'{"displayName": "' + b"a" * 11_000_000 + b'"}')

    assert outcome.http == 413


@pytest.mark.parametrize("value", ["1,", "{},", '"",'])
def test_a_body_that_grows_on_its_way_is_refused(edge: Edge, value: str) -> None:
    values = value * (100_000 // len(value))
    body = json.dumps(a_user_json())[:-1] + f', "profile": {{"a": [{values[:-1]}]}}}}'

    assert post_raw(edge, "/api/v1/users", body.encode()).http == 400


def test_a_profile_of_20_kilobytes_is_refused(edge: Edge) -> None:
    outcome = post(edge, "/api/v1/users", a_user_json(profile={"a": [1] * 10_000}))

    assert (outcome.reason, outcome.fields) == (INVALID, ["profile"])


def test_a_profile_of_17_kilobytes_is_refused_by_its_name(edge: Edge) -> None:
    outcome = post(edge, "/api/v1/users", a_user_json(profile={"a": "a" * 17_000}))

    assert (outcome.reason, outcome.fields) == (INVALID, ["profile"])


def test_a_long_query_is_read_to_its_end(edge: Edge) -> None:
    assert get(edge, f"/api/v1/users?email={'a' * 9_000}").fields == ["email"]


def test_a_query_larger_than_any_request_is_malformed(edge: Edge) -> None:
    assert get(edge, f"/api/v1/users?email={'a' * 20_000}").reason == MALFORMED


def test_a_query_over_32_kilobytes_is_malformed(edge: Edge) -> None:
    assert get(edge, f"/api/v1/users?email={'a' * 40_000}").reason == MALFORMED


def test_20_kilobytes_of_headers_are_accepted_over_grpc(edge: Edge) -> None:
    outcome = edge.grpc(BY_NAME["ListUsers"], users.ListUsersRequest(page_size=1), metadata=[("x-long", "a" * 20_000)])

    assert not outcome.is_refusal


# Paths, verbs and fields outside of the contract.


@pytest.mark.parametrize("binding", [each for each in BINDINGS if each.has_body], ids=name_of)
def test_an_unknown_field_is_refused(world: World, binding: Binding) -> None:
    request = {**request_json(world.request(binding.rpc.name)), "role": "ROLE_ADMIN"}

    outcome = _sent(world.edge, binding, request)

    assert outcome.reason == MALFORMED
    assert '"role"' in outcome.body["message"]


@pytest.mark.parametrize("body", [b"{'role': 'ROLE_ADMIN'}", b"{role: 1}", b"{\"email\": 'a'}"])
def test_json_that_only_a_lenient_parser_reads_is_malformed(edge: Edge, body: bytes) -> None:
    assert post_raw(edge, "/api/v1/users", body).reason == MALFORMED


@pytest.mark.parametrize("binding", [each for each in BINDINGS if not each.has_body], ids=name_of)
def test_an_unknown_query_parameter_is_refused(world: World, binding: Binding) -> None:
    call = binding.call(request_json(world.request(binding.rpc.name)))

    response = world.edge.http.request(call.verb, call.path, params=(*call.query, ("limit", "1")))

    assert require_clean_error(response).reason == MALFORMED


@pytest.mark.parametrize(
    "path", ["/api", "/api/v1", "/api/v2/users", "/api/v1/carts", "/api/v1/users/1/2", "/admin", "/metrics", "/x"]
)
def test_an_unknown_path_is_not_found(edge: Edge, path: str) -> None:
    assert get(edge, path).reason == NO_ROUTE


@pytest.mark.parametrize("binding", BINDINGS, ids=name_of)
def test_another_verb_is_not_found(edge: Edge, binding: Binding) -> None:
    path = binding.template.replace("{id}", new_uuid())
    taken = {each.verb for each in BINDINGS if each.template == binding.template}

    for verb in {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"} - taken:
        assert require_clean_error(edge.http.request(verb, path)).reason == NO_ROUTE


def test_an_unknown_verb_is_refused(edge: Edge) -> None:
    assert require_clean_error(edge.http.request("BREW", "/api/v1/users")).reason == MALFORMED


@pytest.mark.parametrize("path", ["/api/v1/users/%2e%2e%2fusers", "/api/v1/users/a%5cb", "/api/v1/users/%00"])
def test_a_path_that_could_mean_another_one_is_refused(edge: Edge, path: str) -> None:
    assert get(edge, path).reason == MALFORMED


@pytest.mark.parametrize("state", ["99", "-1", "LOST", "", "1.0"])
def test_an_unknown_state_in_a_filter_is_refused(edge: Edge, state: str) -> None:
    assert get(edge, f"/api/v1/users?state={state}").reason in {MALFORMED, INVALID}


# Pages.

LISTS = [each for each in BINDINGS if "page_token" in each.rpc.request.DESCRIPTOR.fields_by_name]


def listed(world: World, binding: Binding, **parameters: str) -> httpx.Response:
    """Return the answer to a request for the list that has these parameters and names an existing resource."""
    call = binding.call(request_json(world.request(binding.rpc.name)))
    kept = {name: value for name, value in call.query if name not in parameters}
    return world.edge.http.get(call.path, params=kept | parameters)


@pytest.mark.parametrize("binding", LISTS, ids=name_of)
@pytest.mark.parametrize("size", ["-1", str(-(2**31)), str(2**31), "9" * 30, "1.5", "1e3", "many", ""])
def test_an_invalid_page_size_is_refused(world: World, binding: Binding, size: str) -> None:
    assert require_clean_error(listed(world, binding, pageSize=size)).reason in {MALFORMED, INVALID}


@pytest.mark.parametrize("binding", LISTS, ids=name_of)
def test_a_huge_page_size_is_200(world: World, binding: Binding) -> None:
    outcome = rest_outcome(listed(world, binding, pageSize=str(2**31 - 1)))

    assert outcome.http == 200
    assert 1 <= len(next(value for value in outcome.body.values() if isinstance(value, list))) <= 200


@pytest.mark.parametrize("binding", LISTS, ids=name_of)
@pytest.mark.parametrize("token", ["x", "AAAA", "=" * 8, "A" * 44, "../..", "💥", "%00", "a b", "-" * 512])
def test_a_forged_page_token_is_refused(world: World, binding: Binding, token: str) -> None:
    assert require_clean_error(listed(world, binding, pageToken=token)).fields == ["pageToken"]


# Keys of a request.


@pytest.mark.parametrize("rpc", [each for each in RPCS if each.has_request_id], ids=name_of)
def test_a_request_id_with_other_content_is_refused(world: World, rpc: Rpc) -> None:
    first, other = world.request(rpc.name), world.request(rpc.name)
    other.request_id = first.request_id
    if isinstance(first, users.ChangePasswordRequest) and isinstance(other, users.ChangePasswordRequest):
        # A key belongs to one caller, and no caller changes two passwords.
        other.id, other.new_password = first.id, first.new_password + "!"
    world.edge.grpc(rpc, first)

    for outcome in world.both(rpc.name, other):
        require_clean(outcome)
        assert outcome.reason == ("shop.system.v1", "REQUEST_ID_REUSED")


@pytest.mark.parametrize("key", ["junk", "1", "a" * 5000, "' OR 1=1", "\xff"])
def test_a_key_must_be_a_uuid(edge: Edge, key: str) -> None:
    response = edge.http.post("/api/v1/users", json=a_user_json(), headers={b"idempotency-key": key.encode("latin-1")})

    assert require_clean_error(response).reason in {INVALID, MALFORMED}


# Headers.


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "*/*",
        "json",
        "text/plain",
        "text/json",
        "application/jsonx",
        "application/xml",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
    ],
)
def test_a_body_of_another_type_is_refused(edge: Edge, content_type: str) -> None:
    assert post_raw(edge, "/api/v1/users", b"{}", **{"content-type": content_type}).http == 415


def test_a_body_without_a_type_is_refused(edge: Edge) -> None:
    assert require_clean_error(edge.http.post("/api/v1/users", content=b"{}")).http == 415


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("foo-bin", "$$$"),
        ("grpc-timeout", "soon"),
        ("grpc-timeout", "-1S"),
        ("grpc-encoding", "junk"),
        ("grpc-accept-encoding", "junk"),
        ("grpc-status", "2"),
        ("te", "junk"),
        ("traceparent", "junk"),
        ("x-request-id", "junk"),
        ("x-envoy-upstream-rq-timeout-ms", "1"),
        ("x-envoy-original-path", "/x"),
        ("accept", "text/html"),
        ("authorization", "Basic ::::"),
        ("expect", "junk"),
    ],
)
def test_a_header_that_is_not_for_callers_changes_nothing(edge: Edge, name: str, value: str) -> None:
    response = edge.http.post("/api/v1/users", json=a_user_json(), headers={name: value})

    assert response.status_code == 201, response.text


@pytest.mark.parametrize("timeout", ["soon", "-1S", "1", "S", "123456789S", "1x", ""])
def test_a_grpc_deadline_that_cannot_be_read_is_malformed(edge: Edge, timeout: str) -> None:
    outcome = edge.raw_grpc(BY_NAME["ListUsers"], users.ListUsersRequest(), headers={"grpc-timeout": timeout})

    require_clean(outcome)
    assert outcome.reason == MALFORMED


def test_an_unknown_compression_is_malformed(edge: Edge) -> None:
    outcome = edge.raw_grpc(BY_NAME["ListUsers"], users.ListUsersRequest(), headers={"grpc-encoding": "brotli"})

    require_clean(outcome)
    assert outcome.reason == MALFORMED


def test_binary_metadata_with_invalid_base64_is_ignored(edge: Edge) -> None:
    nobody = users.GetUserRequest(id=new_uuid())

    outcome = edge.raw_grpc(BY_NAME["GetUser"], nobody, headers={"foo-bin": "$$$"})

    assert outcome.reason == ("shop.user.v1", "USER_NOT_FOUND")


def test_a_header_with_an_underscore_is_malformed(edge: Edge) -> None:
    response = edge.http.get("/api/v1/users", headers={"x_user_id": "1"})

    assert require_clean_error(response).reason == MALFORMED


def test_no_refusal_repeats_a_password(world: World) -> None:
    request = users.ChangePasswordRequest(id=world.owner(), current_password=PASSWORD + "?", new_password=PASSWORD * 9)

    for outcome in world.both("ChangePassword", request):
        assert PASSWORD not in str(outcome.body)


def _sent(edge: Edge, binding: Binding, request: Json) -> Outcome:
    """Return the answer over REST: a success, or a refusal that is clean."""
    call = binding.call(request)
    headers = edge.as_owner(call.path)
    response = edge.http.request(call.verb, call.path, params=tuple(call.query), json=call.body, headers=headers)
    return rest_outcome(response) if response.is_success else require_clean_error(response)


def _deep_profile(depth: int) -> bytes:
    """Return the field `profile` of a CreateUserRequest: lists in lists."""
    value = b"\x18\x01"  # Value.string_value's neighbour: number 3 as a varint is no field, so it is ignored
    for _ in range(depth):
        value = _field(6, _field(1, value))  # Value.list_value, ListValue.values
    return _field(4, _field(1, _field(1, b"a") + _field(2, value)))


def _field(number: int, data: bytes) -> bytes:
    length, prefix = len(data), bytearray([number << 3 | 2])
    while length > 0x7F:
        prefix.append(length & 0x7F | 0x80)
        length >>= 7
    prefix.append(length)
    return bytes(prefix) + data
