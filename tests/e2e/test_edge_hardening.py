"""The edge's refusals, headers and limits, with the whole system behind it.

The limits are the real ones. They count by address, so each caller here has an address of its own.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import itertools
import json
import socket
import struct
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import grpc
import httpx
import jwt
import psycopg
import pytest
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from shop.user.v1 import user_pb2
from shop.user.v1 import user_service_pb2 as users

from devstack.settings import Settings
from tests.e2e.callers import CLEAR_TEXT
from tests.e2e.conftest import stack_of
from tests.e2e.http2 import frame
from tests.support.ports import free_port
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from devstack.stack import Stack

    Forgery = Callable[["Forger"], str]

ORIGIN: Final = "https://shop.example"
PASSWORD: Final = "correct horse battery staple"
GET_USER: Final = "/shop.user.v1.UserService/GetUser"
CREATE_SESSION: Final = "/shop.user.v1.SessionService/CreateSession"
GRPC: Final = {"content-type": "application/grpc", "te": "trailers"}
GRPC_WEB: Final = {"content-type": "application/grpc-web+proto", "x-grpc-web": "1"}
KEYS_SECRET: Final = Fernet.generate_key().decode()

SECURITY_HEADERS: Final = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cache-control": "no-store",
}

_ADDRESSES: Final = (f"127.0.{high}.{low}" for high, low in itertools.product(range(1, 256), range(1, 255)))


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    settings = Settings(
        edge_port=free_port(),
        home=tmp_path_factory.mktemp("hardened"),
        drain_s=0.2,
        replicas=1,
        rate_limit=100,
        public_write_limit=20,
        cors_origins=(ORIGIN,),
    )
    env = {"user_svc": {"ARGON2_MEMORY_KIB": "64", "KEYS_SECRET": KEYS_SECRET}}
    with stack_of(settings, extra_env=env) as stack:
        yield stack


@pytest.fixture
def stranger(system: Stack) -> Iterator[httpx.Client]:
    with caller(system) as client:
        yield client


@pytest.fixture
def ada(system: Stack) -> Iterator[User]:
    with caller(system) as client:
        yield registered(client)


@pytest.fixture(scope="module")
def forger(system: Stack) -> Forger:
    """A forger with our own signing key, to show that a good signature is not enough."""
    with caller(system) as client:
        user = registered(client)
    with contextlib.closing(psycopg.connect(system.database_url("users"))) as connection:
        row = connection.execute("SELECT kid, sealed_key FROM signing_keys ORDER BY active_from DESC").fetchone()
    assert row
    private = Ed25519PrivateKey.from_private_bytes(Fernet(KEYS_SECRET).decrypt(bytes(row[1])))
    return Forger(kid=row[0], private=private, user=user)


@pytest.fixture(scope="module")
def channel(system: Stack) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(urlsplit(system.edge_url).netloc, [("grpc.enable_http_proxy", 0)]) as channel:
        yield channel


def caller(system: Stack, *, address: str | None = None) -> httpx.Client:
    """Return a client with an address of its own."""
    transport = httpx.HTTPTransport(local_address=address or next(_ADDRESSES), verify=CLEAR_TEXT)
    return httpx.Client(base_url=system.edge_url, transport=transport, timeout=30)


@dataclass(frozen=True, slots=True)
class User:
    """A registered user with a session."""

    client: httpx.Client
    id: str
    email: str
    session_id: str
    access_token: str
    refresh_token: str

    @property
    def path(self) -> str:
        return f"/api/v1/users/{self.id}"

    @property
    def bearer(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.access_token}"}


def registered(client: httpx.Client) -> User:
    email = f"{uuid4()}@shop.example"
    new = {"email": email, "password": PASSWORD, "displayName": "Ada"}
    created = client.post("/api/v1/users", json=new)
    assert created.status_code == 201, created.text
    session = client.post("/api/v1/sessions", json={"email": email, "password": PASSWORD})
    assert session.status_code == 201, session.text
    body = session.json()
    return User(client, body["userId"], email, body["id"], body["accessToken"], body["refreshToken"])


@dataclass(frozen=True, slots=True)
class Forger:
    """Makes tokens that differ from good ones in one thing."""

    kid: str
    private: Ed25519PrivateKey
    user: User

    def token(
        self, *, key: Any = None, alg: str = "EdDSA", drop: str = "", header: Any = None, **claims: object
    ) -> str:
        now = int(time.time())
        payload = {
            "iss": "https://shop.local",
            "aud": "shop",
            "sub": self.user.id,
            "sid": self.user.session_id,
            "roles": ["USER"],
            "jti": str(uuid4()),
            "iat": now,
            "exp": now + 300,
            **claims,
        }
        payload.pop(drop, None)
        headers = {"typ": "at+jwt", "kid": self.kid, **(header or {})}
        headers = {name: value for name, value in headers.items() if value is not None}
        return jwt.encode(payload, key if key is not None else self.private, algorithm=alg, headers=headers)

    def unsigned(self, alg: str) -> str:
        """Return a token whose header names the algorithm and whose signature is empty."""
        _, payload, _ = self.token().split(".")
        return f"{_b64({'alg': alg, 'typ': 'at+jwt', 'kid': self.kid})}.{payload}."

    def altered(self, **claims: object) -> str:
        """Return a good token with other claims and the signature that it had."""
        header, payload, signature = self.token().split(".")
        was = json.loads(base64.urlsafe_b64decode(payload + "=="))
        return f"{header}.{_b64({**was, **claims})}.{signature}"

    @property
    def public_bytes(self) -> bytes:
        return self.private.public_key().public_bytes_raw()


def _b64(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


_RSA: Final = rsa.generate_private_key(public_exponent=65537, key_size=2048)

FORGERIES: Final[dict[str, Forgery]] = {
    "none": lambda forger: forger.unsigned("none"),
    "None": lambda forger: forger.unsigned("None"),
    "EdDSA without a signature": lambda forger: forger.unsigned("EdDSA"),
    "HS256 with the public key": lambda forger: forger.token(alg="HS256", key=forger.public_bytes),
    "HS256 with the key as it is published": lambda forger: forger.token(
        alg="HS256", key=base64.urlsafe_b64encode(forger.public_bytes).rstrip(b"=")
    ),
    "RS256": lambda forger: forger.token(alg="RS256", key=_RSA),
    "somebody's own key": lambda forger: forger.token(key=Ed25519PrivateKey.generate()),
    "unknown kid": lambda forger: forger.token(header={"kid": "0123456789abcdef"}),
    "no kid": lambda forger: forger.token(header={"kid": None}),
    "path in kid": lambda forger: forger.token(header={"kid": "../../../../dev/null"}),
    "SQL in kid": lambda forger: forger.token(header={"kid": "' OR '1'='1"}),
    "own jwk in the header": lambda forger: forger.token(
        key=Ed25519PrivateKey.generate(), header={"jwk": {"kty": "OKP", "crv": "Ed25519", "x": "AAAA"}}
    ),
    "issued in the future": lambda forger: forger.token(iat=int(time.time()) + 3600, exp=int(time.time()) + 7200),
    "not yet valid": lambda forger: forger.token(nbf=int(time.time()) + 3600),
    "no exp": lambda forger: forger.token(drop="exp"),
    "no sub": lambda forger: forger.token(drop="sub"),
    "no roles": lambda forger: forger.token(drop="roles"),
    "wrong iss": lambda forger: forger.token(iss="https://evil.example"),
    "wrong aud": lambda forger: forger.token(aud="bank"),
    "no aud": lambda forger: forger.token(drop="aud"),
    "unknown crit": lambda forger: forger.token(header={"crit": ["b64"], "b64": True}),
    "another typ": lambda forger: forger.token(header={"typ": "JWT"}),
    "more roles": lambda forger: forger.altered(roles=["ADMIN"]),
    "another sub": lambda forger: forger.altered(sub=str(UUID(int=1))),
    "a refresh token": lambda forger: forger.user.refresh_token,
    "noise": lambda _forger: "x.y.z",
    "5 KB": lambda forger: forger.token(jti="x" * 5_000),
}


def reason_of(response: httpx.Response) -> str:
    """Return the reason of the refusal, once it is sure to have the one shape."""
    assert response.headers["content-type"] == "application/json", response.text
    status = response.json()
    assert set(status) == {"code", "message", "details"}
    info = status["details"][0]
    assert info["@type"] == "type.googleapis.com/google.rpc.ErrorInfo"
    return str(info["reason"])


def grpc_refusal(channel: grpc.Channel, token: str, *, user_id: str) -> tuple[grpc.StatusCode, str]:
    call = channel.unary_unary(GET_USER, response_deserializer=user_pb2.User.FromString)
    with pytest.raises(grpc.RpcError) as refusal:
        call(
            users.GetUserRequest(id=user_id).SerializeToString(),
            metadata=(("authorization", f"Bearer {token}"),),
            timeout=10,
        )
    status = rpc_status.from_call(refusal.value)
    assert status
    info = error_details_pb2.ErrorInfo()
    status.details[0].Unpack(info)
    return refusal.value.code(), info.reason


def framed(message: bytes) -> bytes:
    return b"\0" + len(message).to_bytes(4, "big") + message


# Authentication


def test_a_key_is_published_before_the_first_login(system: Stack, stranger: httpx.Client) -> None:
    # The first of all tests here: the edge caches the keys, and an empty answer would have the first users refused.
    response = stranger.get("/.well-known/jwks.json")

    assert len(response.json()["keys"]) == 1


def test_a_user_registers_logs_in_refreshes_and_logs_out_over_rest(ada: User) -> None:
    me = ada.client.get(ada.path, headers=ada.bearer)
    refreshed = ada.client.post("/api/v1/sessions:refresh", json={"refreshToken": ada.refresh_token})
    bearer = {"authorization": f"Bearer {refreshed.json()['accessToken']}"}
    me_again = ada.client.get(ada.path, headers=bearer)
    gone = ada.client.delete(f"/api/v1/sessions/{ada.session_id}", headers=bearer)
    too_late = ada.client.post("/api/v1/sessions:refresh", json={"refreshToken": refreshed.json()["refreshToken"]})

    assert (me.status_code, me.json()["email"]) == (200, ada.email)
    assert me_again.json() == me.json()
    assert gone.status_code == 200
    assert too_late.status_code == 401


def test_users_delete_themselves_with_their_password_in_a_body(ada: User) -> None:
    without = ada.client.delete(ada.path, headers=ada.bearer)
    wrong = ada.client.post(f"{ada.path}:delete", json={"currentPassword": "wrong horse"}, headers=ada.bearer)
    gone = ada.client.post(f"{ada.path}:delete", json={"currentPassword": PASSWORD}, headers=ada.bearer)

    assert (without.status_code, wrong.status_code, gone.status_code) == (400, 401, 200)
    assert "POST /api/v1/users/{id}:delete" in without.json()["message"]
    assert ada.client.get(ada.path, headers=ada.bearer).json()["state"] == "USER_STATE_DELETED"


def test_the_forgers_own_token_is_good_until_something_is_changed(system: Stack, forger: Forger) -> None:
    with caller(system) as client:
        response = client.get(forger.user.path, headers={"authorization": f"Bearer {forger.token()}"})

    assert response.status_code == 200


@pytest.mark.parametrize("forgery", FORGERIES.values(), ids=FORGERIES)
def test_a_forged_token_is_refused_in_one_shape(
    stranger: httpx.Client, forger: Forger, channel: grpc.Channel, forgery: Forgery
) -> None:
    token = forgery(forger)

    response = stranger.get(forger.user.path, headers={"authorization": f"Bearer {token}"})

    assert (response.status_code, reason_of(response)) == (401, "TOKEN_INVALID")
    assert response.json()["code"] == 16
    assert response.headers["www-authenticate"] == 'Bearer error="invalid_token"'
    assert grpc_refusal(channel, token, user_id=forger.user.id) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_INVALID")


def test_an_expired_token_has_a_reason_of_its_own(
    stranger: httpx.Client, forger: Forger, channel: grpc.Channel
) -> None:
    token = forger.token(iat=int(time.time()) - 1000, exp=int(time.time()) - 60)

    response = stranger.get(forger.user.path, headers={"authorization": f"Bearer {token}"})

    assert (response.status_code, reason_of(response)) == (401, "TOKEN_EXPIRED")
    assert response.headers["www-authenticate"] == 'Bearer error="invalid_token"'
    assert grpc_refusal(channel, token, user_id=forger.user.id) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_EXPIRED")


@pytest.mark.parametrize("authorization", [None, "Basic YTpi", "Bearer", "Token x", "Basic Bearer {}", "Bearer {}, {}"])
def test_other_authorization_schemes_count_as_no_token(
    stranger: httpx.Client, forger: Forger, authorization: str | None
) -> None:
    token = forger.token()
    headers = {} if authorization is None else {"authorization": authorization.format(token, token)}

    response = stranger.get(forger.user.path, headers=headers)

    assert (response.status_code, reason_of(response)) == (401, "TOKEN_INVALID")


def test_the_edge_and_the_service_refuse_a_token_in_the_same_words(stranger: httpx.Client, forger: Forger) -> None:
    at_the_edge = stranger.get(forger.user.path)
    in_the_service = stranger.get(
        forger.user.path, headers={"authorization": f"Bearer {forger.token(header={'kid': None})}"}
    )

    assert at_the_edge.json() == in_the_service.json()
    assert at_the_edge.headers.keys() == in_the_service.headers.keys()


@pytest.mark.parametrize("name", ["access_token", "token", "authorization"])
def test_a_token_in_the_query_is_ignored_and_in_no_log(
    system: Stack, stranger: httpx.Client, forger: Forger, name: str
) -> None:
    token = forger.token()

    response = stranger.get(forger.user.path, params={name: token})

    assert response.status_code == 401
    for log in system.home.logs.iterdir():
        assert token not in log.read_text(), log


@pytest.mark.parametrize("path", ["/api/v1/users/", "/shop.user.v1.UserService/", "/"])
def test_a_line_of_the_log_is_short_however_long_the_path(system: Stack, stranger: httpx.Client, path: str) -> None:
    request_id = stranger.get(path + "a" * 30_000).headers["x-request-id"]

    def lines() -> list[str]:
        texts = [log.read_text() for log in system.home.logs.iterdir()]
        return [line for text in texts for line in text.splitlines() if request_id in line]

    until(lambda: bool(lines()))
    assert all(len(line) < 1_200 for line in lines())


def test_a_bad_token_does_not_block_public_methods(stranger: httpx.Client) -> None:
    response = stranger.get("/.well-known/jwks.json", headers={"authorization": "Bearer x.y.z"})

    assert response.status_code == 200


# Authorization


def test_another_user_is_answered_as_a_missing_one(ada: User, forger: Forger) -> None:
    absent = str(UUID(int=7, version=4))

    foreign = ada.client.get(forger.user.path, headers=ada.bearer)
    nobody = ada.client.get(f"/api/v1/users/{absent}", headers=ada.bearer)

    assert (foreign.status_code, reason_of(foreign)) == (404, "USER_NOT_FOUND")
    assert foreign.text.replace(forger.user.id, "?") == nobody.text.replace(absent, "?")


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
def test_another_user_cannot_be_changed(ada: User, forger: Forger, method: str) -> None:
    body = {"displayName": "Eve"} if method == "PATCH" else None

    response = ada.client.request(method, forger.user.path, json=body, headers=ada.bearer)

    assert (response.status_code, reason_of(response)) == (404, "USER_NOT_FOUND")


def test_an_id_in_the_query_does_not_replace_the_one_in_the_path(ada: User, forger: Forger) -> None:
    response = ada.client.get(ada.path, params={"id": forger.user.id}, headers=ada.bearer)

    assert response.status_code in {400, 404}


@pytest.mark.parametrize("field", [{"roles": ["ROLE_ADMIN"]}, {"state": "USER_STATE_SUSPENDED"}, {"createdAt": "x"}])
def test_fields_that_the_server_decides_cannot_be_sent(ada: User, field: dict[str, object]) -> None:
    in_the_body = ada.client.patch(ada.path, json={"displayName": "A", **field}, headers=ada.bearer)
    in_the_query = ada.client.patch(
        ada.path, params={name: str(value) for name, value in field.items()}, json={}, headers=ada.bearer
    )
    at_birth = ada.client.post(
        "/api/v1/users", json={"email": "eve@shop.example", "password": PASSWORD, "displayName": "E", **field}
    )

    for response in (in_the_body, in_the_query, at_birth):
        assert (response.status_code, reason_of(response)) == (400, "MALFORMED_REQUEST")
    assert ada.client.get(ada.path, headers=ada.bearer).json()["roles"] == ["ROLE_USER"]


# How often


def test_after_100_calls_an_address_has_to_wait_and_others_do_not(system: Stack, stranger: httpx.Client) -> None:
    statuses = [stranger.get("/api/v1/users").status_code for _ in range(100)]
    refusal = stranger.get("/api/v1/users")
    with caller(system) as neighbour:
        let_in = neighbour.get("/api/v1/users")

    assert statuses == [401] * 100
    assert (refusal.status_code, reason_of(refusal)) == (429, "RATE_LIMITED")
    assert refusal.headers["retry-after"] == "9"
    assert refusal.json()["details"][1]["retryDelay"] == "9s"
    assert refusal.headers["x-ratelimit-limit"] == "100"
    assert refusal.headers["x-ratelimit-remaining"] == "0"
    assert let_in.status_code == 401
    assert let_in.headers["x-ratelimit-remaining"] == "99"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/v1/sessions", {"email": "", "password": ""}),
        ("/api/v1/sessions:refresh", {"refreshToken": "guess"}),
        ("/api/v1/users", {"email": "", "password": "", "displayName": ""}),
    ],
)
def test_each_public_write_is_limited_to_20(stranger: httpx.Client, path: str, body: object) -> None:
    statuses = {stranger.post(path, json=body).status_code for _ in range(20)}
    refusal = stranger.post(path, json=body)
    elsewhere = stranger.get("/api/v1/users")

    assert 429 not in statuses
    assert (refusal.status_code, reason_of(refusal)) == (429, "RATE_LIMITED")
    assert refusal.headers["retry-after"] == "45"
    assert elsewhere.status_code == 401


def test_rest_and_grpc_logins_share_one_limit(stranger: httpx.Client) -> None:
    for attempt in range(20):
        path = ("/api//v1/./sessions?a=" + str(attempt), "/api/v1/sessions", "/api/v1/sessions:refresh")[attempt % 3]
        stranger.post(path, json={})

    over_grpc = stranger.post(CREATE_SESSION, content=framed(b""), headers=GRPC)

    assert over_grpc.headers["grpc-status"] == "8"


@pytest.mark.parametrize("headers", [GRPC, GRPC_WEB], ids=["grpc", "grpc-web"])
def test_grpc_callers_get_the_limit_as_a_grpc_status(stranger: httpx.Client, headers: dict[str, str]) -> None:
    for _ in range(100):
        stranger.get("/api/v1/users")

    refusal = stranger.post(GET_USER, content=framed(b""), headers=headers)

    status = status_of(refusal)
    assert (refusal.status_code, refusal.headers["grpc-status"], status.code) == (200, "8", 8)
    assert refusal.headers["retry-after"] == "9"
    info = error_details_pb2.ErrorInfo()
    status.details[0].Unpack(info)
    assert info.reason == "RATE_LIMITED"


def status_of(response: httpx.Response) -> status_pb2.Status:
    details = response.headers["grpc-status-details-bin"]
    return status_pb2.Status.FromString(base64.b64decode(details + "=" * (-len(details) % 4)))


@pytest.mark.parametrize(
    "header", ["x-forwarded-for", "forwarded", "x-real-ip", "x-envoy-external-address", "client-ip"]
)
def test_a_claimed_address_has_no_limit_of_its_own(stranger: httpx.Client, header: str) -> None:
    for number in range(100):
        value = f"203.0.113.{number}"
        stranger.get("/api/v1/users", headers={header: f"for={value}" if header == "forwarded" else value})

    refusal = stranger.get("/api/v1/users", headers={header: "203.0.113.200"})

    assert refusal.status_code == 429


def test_health_checks_and_preflights_are_not_counted(stranger: httpx.Client) -> None:
    preflight = {"origin": ORIGIN, "access-control-request-method": "GET"}
    for _ in range(60):
        stranger.get("/healthz")
        stranger.get("/health")
        stranger.options("/api/v1/users", headers=preflight)

    assert stranger.get("/api/v1/users").headers["x-ratelimit-remaining"] == "99"


# Headers for browsers


@pytest.mark.parametrize("path", ["/api/v1/users", "/api/v1/users/1", "/api/v1/users/1:delete", "/health", GET_USER])
def test_a_page_of_an_allowed_origin_may_call_every_method(stranger: httpx.Client, path: str) -> None:
    asked = {
        "origin": ORIGIN,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
    }

    preflight = stranger.options(path, headers=asked)
    call = stranger.get(path, headers={"origin": ORIGIN})

    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == ORIGIN
    assert "authorization" in preflight.headers["access-control-allow-headers"]
    assert {"GET", "POST", "PATCH", "DELETE"} <= set(preflight.headers["access-control-allow-methods"].split(","))
    assert call.headers["access-control-allow-origin"] == ORIGIN
    assert "retry-after" in call.headers["access-control-expose-headers"]
    assert "access-control-allow-credentials" not in call.headers


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        "http://shop.example",
        "https://shop.example.evil.example",
        "https://a.shop.example",
    ],
)
def test_a_page_of_another_origin_may_not_call(stranger: httpx.Client, origin: str) -> None:
    preflight = stranger.options("/api/v1/users", headers={"origin": origin, "access-control-request-method": "POST"})
    call = stranger.get("/api/v1/users", headers={"origin": origin})

    for response in (preflight, call):
        assert not [name for name in response.headers if name.startswith("access-control-")]


def _refused_by_rate(client: httpx.Client, _user: User) -> httpx.Response:
    for _ in range(100):
        client.get("/api/v1/users")
    return client.get("/api/v1/users")


ANSWERS: Final[dict[str, tuple[int, Callable[[httpx.Client, User], httpx.Response]]]] = {
    "success": (200, lambda client, user: client.get(user.path, headers=user.bearer)),
    "health": (200, lambda client, _user: client.get("/healthz")),
    "preflight": (
        200,
        lambda client, _user: client.options(
            "/api/v1/users", headers={"origin": ORIGIN, "access-control-request-method": "GET"}
        ),
    ),
    "malformed": (400, lambda client, _user: client.post("/api/v1/users", json={"nope": 1})),
    "underscore": (400, lambda client, _user: client.get("/healthz", headers={"x_user_id": "1"})),
    "escaped slash": (400, lambda client, _user: client.get("/api%2Fv1/users")),
    "no token": (401, lambda client, user: client.get(user.path)),
    "role": (403, lambda client, user: client.get("/api/v1/users", headers=user.bearer)),
    "no route": (404, lambda client, _user: client.get("/nowhere")),
    "too large": (413, lambda client, _user: client.post("/api/v1/users", content=b"{" + b" " * 11 * 1024 * 1024)),
    "media type": (415, lambda client, _user: client.post("/api/v1/users", content="{}")),
    "too many": (429, _refused_by_rate),
    "long headers": (400, lambda client, _user: client.get("/healthz", headers={"x-a": "a" * 40_000})),
    "grpc": (
        200,
        lambda client, _user: client.post(GET_USER, content=framed(b""), headers=GRPC),
    ),
}


@pytest.mark.parametrize(("status", "ask"), ANSWERS.values(), ids=ANSWERS)
def test_every_answer_has_the_security_headers_and_does_not_reveal_the_edge(
    stranger: httpx.Client, ada: User, status: int, ask: Callable[[httpx.Client, User], httpx.Response]
) -> None:
    response = ask(stranger, ada)

    assert response.status_code == status, response.text
    assert {name: response.headers.get(name) for name in SECURITY_HEADERS} == SECURITY_HEADERS
    assert not [name for name in response.headers if name == "server" or name.startswith("x-envoy-")]
    assert "envoy" not in response.text.lower()


def test_the_public_keys_may_be_kept_for_as_long_as_the_edge_keeps_them(stranger: httpx.Client) -> None:
    response = stranger.get("/.well-known/jwks.json")

    assert response.headers["cache-control"] == "public, max-age=30"
    assert [key["alg"] for key in response.json()["keys"]] == ["EdDSA"]


# In which form


@pytest.mark.parametrize("content_type", ["application/grpc-web+proto", "application/grpc-web-text"])
def test_browsers_can_call_over_grpc_web(ada: User, content_type: str) -> None:
    body = framed(users.GetUserRequest(id=ada.id).SerializeToString())
    is_text = content_type.endswith("text")

    response = ada.client.post(
        GET_USER,
        content=base64.b64encode(body) if is_text else body,
        headers={
            "content-type": content_type,
            "accept": content_type,
            "x-grpc-web": "1",
            "origin": ORIGIN,
            **ada.bearer,
        },
    )

    data = unwrapped(response.content) if is_text else response.content
    length = int.from_bytes(data[1:5], "big")
    assert user_pb2.User.FromString(data[5 : 5 + length]).email == ada.email
    assert b"grpc-status:0" in data[5 + length :].replace(b": ", b":")
    assert response.headers["access-control-allow-origin"] == ORIGIN


def unwrapped(text: bytes) -> bytes:
    """Return the bytes of a text that is base64 in pieces, each with an end of its own."""
    return b"".join(base64.b64decode(text[at : at + 4]) for at in range(0, len(text), 4))


def test_a_grpc_web_call_without_a_token_ends_as_a_grpc_call(stranger: httpx.Client, ada: User) -> None:
    body = framed(users.GetUserRequest(id=ada.id).SerializeToString())

    response = stranger.post(GET_USER, content=body, headers=GRPC_WEB)

    assert (response.status_code, response.headers["grpc-status"]) == (200, "16")
    assert status_of(response).code == 16
    assert response.headers["content-type"].startswith("application/grpc-web")


@pytest.mark.parametrize("encoding", ["gzip", "br", "zstd"])
def test_a_long_answer_is_compressed(ada: User, encoding: str) -> None:
    profile = {"notes": "the same again and again, " * 200}
    ada.client.patch(ada.path, json={"profile": profile}, headers=ada.bearer)

    with ada.client.stream("GET", ada.path, headers={"accept-encoding": encoding, **ada.bearer}) as response:
        raw = b"".join(response.iter_raw())

    assert response.headers["content-encoding"] == encoding
    assert "accept-encoding" in response.headers["vary"].lower()
    assert len(raw) < 1000
    if encoding == "gzip":
        assert json.loads(gzip.decompress(raw))["profile"] == profile


def test_a_short_answer_is_not_compressed(ada: User) -> None:
    response = ada.client.get(ada.path, headers=ada.bearer)

    assert "content-encoding" not in response.headers


# Violations of HTTP


def spoken(system: Stack, request: bytes, *, timeout_s: float = 5) -> bytes:
    """Send the bytes and return everything that comes back until the edge hangs up or says nothing more."""
    port = urlsplit(system.edge_url).port
    answer = b""
    with socket.create_connection(("127.0.0.1", port or 0), timeout=timeout_s) as connection:
        connection.sendall(request)
        with contextlib.suppress(TimeoutError, ConnectionResetError):
            while chunk := connection.recv(65536):
                answer += chunk
    return answer


SMUGGLED: Final = b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"

POST: Final = b"POST /health HTTP/1.1\r\nHost: a\r\n"

SMUGGLING: Final = {
    "CL and TE": POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "TE and CL": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "two CL": POST + b"Content-Length: 0\r\nContent-Length: 34\r\n\r\n",
    "CL list": POST + b"Content-Length: 0, 34\r\n\r\n",
    "signed CL": POST + b"Content-Length: +0\r\n\r\n",
    "unknown TE": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "two TE": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n",
    "TE with vertical tab": POST + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
    "space before colon": POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "NUL": b"GET /health HTTP/1.1\r\nHost: a\r\nX-A: b\x00c\r\n\r\n",
    "no host": b"GET /health HTTP/1.1\r\n\r\n",
    "chunk size": POST + b"Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n",
    "huge chunk size": POST + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n\r\n",
    "HTTP/1.0": b"GET /health HTTP/1.0\r\n\r\n",
    "HTTP/0.9": b"GET /health\r\n\r\n",
}


@pytest.mark.parametrize("shape", SMUGGLING.values(), ids=SMUGGLING)
def test_a_request_that_two_servers_could_read_differently_ends_the_connection(system: Stack, shape: bytes) -> None:
    answer = spoken(system, shape + SMUGGLED)

    assert answer.count(b"HTTP/1.1 ") <= 1, answer.decode()
    assert not answer or answer.split()[1] in {b"400", b"404", b"501"}, answer.decode()


TOLERATED: Final = {
    "folded header": b"GET /health HTTP/1.1\r\nHost: a\r\nX-A: b\r\n Transfer-Encoding: chunked\r\n\r\n",
    "bare LF": b"GET /health HTTP/1.1\nHost: a\n\n",
    "bare LF in a header": b"GET /health HTTP/1.1\r\nHost: a\r\nX-A: b\nX-B: c\r\n\r\n",
    "bare CR": b"GET /health HTTP/1.1\r\nHost: a\r\nX-A: b\rX-B: c\r\n\r\n",
}


@pytest.mark.parametrize("shape", TOLERATED.values(), ids=TOLERATED)
def test_a_request_that_envoy_tolerates_is_one_request_and_hides_no_second(system: Stack, shape: bytes) -> None:
    # Envoy reads these as RFC 9112 lets a server read them (2.2, 5.2). Nothing can hide in them: to the services each
    # request travels in HTTP/2 frames of its own.
    answer = spoken(system, shape + SMUGGLED)

    assert [part.split()[0] for part in answer.split(b"HTTP/1.1 ")[1:]] == [b"200", b"200"], answer.decode()


def test_two_hosts_are_refused(system: Stack) -> None:
    answer = spoken(system, b"GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n")

    assert answer.split()[1] == b"400"


def test_a_slow_sender_of_headers_is_cut_off_after_10_seconds(system: Stack) -> None:
    started = time.monotonic()

    answer = spoken(system, b"GET /health HTTP/1.1\r\nHost: a\r\nX-A: ", timeout_s=20)

    assert 9 < time.monotonic() - started < 19
    assert not answer or answer.split()[1] == b"504"


def test_a_connection_that_only_opens_and_resets_calls_is_closed(system: Stack) -> None:
    port = urlsplit(system.edge_url).port
    headers = b"\x82\x86\x04\x07/health\x01\x01a"  # GET, http, :path, :authority, as RFC 7541 writes them

    with socket.create_connection(("127.0.0.1", port or 0), timeout=5) as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b""))
        with contextlib.suppress(ConnectionError):
            for stream in range(1, 4001, 2):
                connection.sendall(frame(1, 5, stream, headers) + frame(3, 0, stream, struct.pack(">I", 8)))
        was_closed = False
        with contextlib.suppress(TimeoutError):
            try:
                while connection.recv(65536):
                    pass
                was_closed = True
            except ConnectionError:
                was_closed = True

    assert was_closed


# Open ports


def test_only_the_edges_own_port_could_be_reached_from_elsewhere(system: Stack) -> None:
    inner = {urlsplit(system.edge.admin_url).port, system.edge.keys_port}

    addresses = {address for address, port in listening() if port in inner}

    assert addresses == {"127.0.0.1"}


def listening() -> Iterator[tuple[str, int]]:
    """Yield the address and port of every listening IPv4 socket of this machine."""
    for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
        local, state = line.split()[1], line.split()[3]
        if state == "0A":
            address, port = local.split(":")
            yield socket.inet_ntoa(bytes.fromhex(address)[::-1]), int(port, 16)
