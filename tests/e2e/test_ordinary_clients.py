"""Headers that ordinary clients and proxies send, and headers of answers that they rely on."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import httpx
import pytest

from chassis.testing import new_uuid
from envoy.files import FILES
from tests.e2e.callers import CLEAR_TEXT, require_clean_error, rest_outcome
from tests.e2e.contract import BINDINGS, BY_NAME, RPCS, Binding, Rpc, name_of
from tests.e2e.variations import Sent, Wire, as_grpc
from tests.e2e.world import request_json
from tests.support.requests import PASSWORD

if TYPE_CHECKING:
    from tests.e2e.callers import Edge
    from tests.e2e.world import World

INVALID: Final = ("shop.system.v1", "INVALID_FIELDS")
MISMATCH: Final = ("shop.system.v1", "ETAG_MISMATCH")
KEYS: Final = "/.well-known/jwks.json"


def has_etag(rpc: Rpc) -> bool:
    return "etag" in rpc.request.DESCRIPTOR.fields_by_name


CONDITIONAL: Final = [binding for binding in BINDINGS if has_etag(binding.rpc)]
UNCONDITIONAL: Final = [binding for binding in BINDINGS if not has_etag(binding.rpc)]


def sent(world: World, binding: Binding, **headers: str) -> httpx.Response:
    """Make a good call without an etag."""
    request = {name: value for name, value in request_json(world.request(binding.rpc.name)).items() if name != "etag"}
    call = binding.call(request)
    arguments: Any = {"params": tuple(call.query), "json": call.body}
    headers = {**world.edge.as_owner(call.path), **headers}
    return world.edge.http.request(call.verb, call.path, headers=headers, **arguments)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer "])
def test_a_token_may_be_written_in_each_way_that_http_allows(world: World, scheme: str) -> None:
    binding = next(each for each in BINDINGS if each.rpc.name == "GetUser")
    call = binding.call(request_json(world.request(binding.rpc.name)))
    token = world.edge.http.headers["authorization"].removeprefix("Bearer ")

    found = world.edge.http.get(call.path, headers={"authorization": f"{scheme} {token}"})
    refused = world.edge.http.get(call.path, headers={"authorization": f"{scheme} {token}x"})

    assert (found.status_code, refused.status_code) == (200, 401)


# Offers of another protocol


@pytest.mark.parametrize("protocol", ["TLS/1.2", "h2c", "websocket", "h2c, TLS/1.2", "x"])
@pytest.mark.parametrize("path", ["/healthz", "/health", "/docs", KEYS, "/api/v1/users"])
def test_an_offer_to_upgrade_is_ignored(edge: Edge, path: str, protocol: str) -> None:
    headers = {"connection": "Upgrade, HTTP2-Settings", "upgrade": protocol, "http2-settings": "AAMAAABkAAQAAP__"}

    response = edge.http.get(path, headers=headers)

    assert response.status_code == 200


@pytest.mark.parametrize("request_line", ["GET /healthz HTTP/1.0", "GET /api/v1/users HTTP/1.0"])
@pytest.mark.parametrize("host", ["", "Host: shop.example\r\n"])
def test_a_client_of_http_1_0_is_asked_for_http_1_1(edge: Edge, request_line: str, host: str) -> None:
    parts = urlsplit(edge.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=5) as connection:
        connection.sendall(f"{request_line}\r\n{host}\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b"")).decode()

    assert answer.split()[1] == "400"
    assert "HTTP/1.1" in answer.partition("\r\n\r\n")[2]


@pytest.mark.parametrize("te", [None, "", "gzip", "trailers, deflate;q=0.5"])
@pytest.mark.parametrize("rpc", [rpc for rpc in RPCS if not rpc.is_stream], ids=name_of)
def test_a_grpc_call_needs_no_te(world: World, rpc: Rpc, te: str | None) -> None:
    request = world.request(rpc.name)
    owner = world.edge.as_owner(f"{getattr(request, 'id', '')}:{rpc.name}").get("authorization", "")
    token = owner.removeprefix("Bearer ") or world.edge.token
    call = as_grpc(rpc.path, request.SerializeToString(), token=token)
    without: Sent = Sent(
        verb=call.verb,
        path=call.path,
        headers=tuple(each for each in call.headers if each[0] != "te") + ((("te", te),) if te is not None else ()),
        body=call.body,
    )

    with Wire(world.edge.url) as wire:
        heard = wire.ask(without)

    assert heard.is_success, heard


# Writes that are meant for one state of a resource


@pytest.mark.parametrize("form", ['"{}"', "{}", 'W/"v0", "{}"'])
@pytest.mark.parametrize("binding", CONDITIONAL, ids=name_of)
def test_a_write_with_the_current_etag_in_its_header_is_done(world: World, binding: Binding, form: str) -> None:
    response = sent(world, binding, **{"if-match": form.format("v1")})

    assert response.is_success, response.text


@pytest.mark.parametrize("binding", CONDITIONAL, ids=name_of)
def test_if_match_with_a_star_matches_any_existing_resource(world: World, binding: Binding) -> None:
    assert sent(world, binding, **{"if-match": "*"}).is_success


@pytest.mark.parametrize("form", ['"v0"', "v0"])
@pytest.mark.parametrize("binding", CONDITIONAL, ids=name_of)
def test_a_write_with_a_stale_etag_in_its_header_is_412(world: World, binding: Binding, form: str) -> None:
    response = sent(world, binding, **{"if-match": form})

    assert response.status_code == 412
    assert rest_outcome(response).reason == MISMATCH


@pytest.mark.parametrize("binding", CONDITIONAL, ids=name_of)
def test_a_stale_etag_in_the_request_is_409(world: World, binding: Binding) -> None:
    request = {**request_json(world.request(binding.rpc.name)), "etag": "v0"}

    outcome = world.edge.rest(binding.call(request))

    assert (outcome.http, outcome.reason) == (409, MISMATCH)


@pytest.mark.parametrize("form", ['W/"v1"', '"v1", "v2"', '"v1', '""', "", "*, *", '*, "v1"', '"v 1"'])
@pytest.mark.parametrize("binding", CONDITIONAL, ids=name_of)
def test_a_header_that_names_not_one_etag_is_refused(world: World, binding: Binding, form: str) -> None:
    outcome = require_clean_error(sent(world, binding, **{"if-match": form}))

    assert (outcome.reason, outcome.fields) == (INVALID, ["if-match"])


@pytest.mark.parametrize("binding", CONDITIONAL, ids=name_of)
def test_two_different_etags_are_refused(world: World, binding: Binding) -> None:
    request = {**request_json(world.request(binding.rpc.name)), "etag": "v1"}

    outcome = world.edge.rest(binding.call(request), headers={"if-match": '"v2"'})

    assert (outcome.reason, outcome.fields) == (INVALID, ["if-match"])


@pytest.mark.parametrize("form", ['"v1"', "*", 'W/"v1"'])
@pytest.mark.parametrize("binding", UNCONDITIONAL, ids=name_of)
def test_a_call_without_an_etag_refuses_the_header(world: World, binding: Binding, form: str) -> None:
    outcome = require_clean_error(sent(world, binding, **{"if-match": form}))

    assert (outcome.reason, outcome.fields) == (INVALID, ["if-match"])


@pytest.mark.parametrize("rpc", [rpc for rpc in RPCS if has_etag(rpc)], ids=name_of)
def test_over_grpc_the_header_is_metadata(world: World, rpc: Rpc) -> None:
    request: Any = world.request(rpc.name)
    request.etag = ""

    outcome = world.edge.grpc(rpc, request, metadata=[("if-match", '"v0"')])

    assert outcome.reason == MISMATCH


@pytest.mark.parametrize("form", ['"{}"', "{}"])
def test_the_key_of_a_write_stands_in_quotes_or_not(world: World, form: str) -> None:
    key = new_uuid()
    path = f"/api/v1/users/{world.user().id}"
    first = world.edge.http.patch(path, json={"displayName": "Ada"}, headers={"idempotency-key": form.format(key)})

    again = world.edge.http.patch(path, json={"displayName": "Ada"}, headers={"idempotency-key": key})

    assert first.status_code == 200
    assert again.json() == first.json()


@pytest.mark.parametrize("key", ["", '"', '""', '"{}', "{}, {}", '"{}", "{}"', "urn:uuid:{}", "junk"])
def test_a_malformed_key_is_refused_by_the_headers_name(world: World, key: str) -> None:
    headers = {"idempotency-key": key.format(new_uuid(), new_uuid())}

    response = world.edge.http.patch(f"/api/v1/users/{world.user().id}", json={"displayName": "A"}, headers=headers)

    assert require_clean_error(response).fields == ["idempotency-key"]


@pytest.mark.parametrize(
    ("name", "lines", "outcome"),
    [
        ("idempotency-key", [new_uuid(), new_uuid()], "refused"),
        ("if-match", ['"v1"', '"v0"'], "refused"),
        ("if-match", ['"v0"', '"v1"'], "refused"),
        ("if-match", ['"v1"', 'W/"v0"'], "done"),
        ("if-match", ['W/"v0"', '"v1"'], "done"),
    ],
)
def test_lines_of_one_header_are_one_list(world: World, name: str, lines: list[str], outcome: str) -> None:
    headers = [(name, line) for line in lines]

    response = world.edge.http.patch(f"/api/v1/users/{world.user().id}", json={"displayName": "A"}, headers=headers)

    if outcome == "done":
        assert response.is_success, response.text
    else:
        assert require_clean_error(response).fields == [name]


# Caches, proxies, browsers


@pytest.mark.parametrize("path", [KEYS, *(file.path for file in FILES)])
@pytest.mark.parametrize("origin", [None, "http://localhost:3000", "https://elsewhere.example"])
def test_cacheable_answers_vary_by_origin(edge: Edge, path: str, origin: str | None) -> None:
    response = edge.http.get(path, headers={"origin": origin} if origin else {})

    varies = {name.strip().lower() for value in response.headers.get_list("vary") for name in value.split(",")}
    assert "origin" in varies
    assert "no-store" not in response.headers["cache-control"]


def test_hsts_is_sent_only_if_an_operator_turns_it_on(edge: Edge) -> None:
    assert "strict-transport-security" not in edge.http.get("/health").headers


# Challenges for tokens


def test_a_challenge_names_an_error_only_if_a_token_was_sent(world: World) -> None:
    path = f"/api/v1/users/{new_uuid()}"
    users_own = f"Bearer {world.token_of(world.user())}"
    wrong = {"email": world.user().email, "password": PASSWORD + "?"}

    def challenge(verb: str, path: str, authorization: str = "", **arguments: Any) -> str | None:
        headers = {"authorization": authorization} if authorization else {}
        with httpx.Client(base_url=world.edge.url, timeout=10, trust_env=False, verify=CLEAR_TEXT) as client:
            answer = client.request(verb, path, headers=headers, **arguments)
        return answer.headers.get("www-authenticate")

    assert challenge("GET", path) == "Bearer"
    assert challenge("GET", path, "Basic YTpi") == "Bearer"
    assert challenge("GET", path, "Bearer junk") == 'Bearer error="invalid_token"'
    assert challenge("GET", "/api/v1/users", users_own) == 'Bearer error="insufficient_scope"'
    assert challenge("POST", "/api/v1/sessions", json=wrong) == "Bearer"
    assert challenge("POST", "/api/v1/sessions", users_own, json=wrong) == "Bearer"
    assert challenge("GET", "/api/v1/orders", users_own) is None


def test_a_dead_token_at_a_public_call_is_not_blamed(world: World) -> None:
    assert BY_NAME["GetJwks"].is_public
    assert httpx.get(world.edge.url + KEYS, headers={"authorization": "Bearer x"}, trust_env=False).status_code == 200
