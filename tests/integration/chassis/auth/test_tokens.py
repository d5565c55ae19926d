"""Access tokens that a service accepts and refuses by itself, without an edge before it."""

from __future__ import annotations

import base64
import json
import time
from typing import TYPE_CHECKING, Any
from uuid import UUID

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from grpc import StatusCode
from shop.order.v1 import order_service_pb2 as orders_pb
from shop.user.v1 import session_service_pb2 as sessions_pb
from shop.user.v1 import user_service_pb2 as pb

from chassis.auth.access_tokens import TokenSettings
from chassis.testing import SIGNER, bearer, refusal_of, token_of
from tests.support.requests import PASSWORD, create_order_request

if TYPE_CHECKING:
    from collections.abc import Callable

    from shop.order.v1.order_service_pb2_grpc import OrderServiceAsyncStub
    from shop.user.v1.session_service_pb2_grpc import SessionServiceAsyncStub
    from shop.user.v1.user_pb2 import User
    from shop.user.v1.user_service_pb2_grpc import UserServiceAsyncStub

LEEWAY_S = TokenSettings().leeway_s
DROPPED = object()
DEEP = b'{"a":' * 600


# Nothing is decided by it, and tokens of the release before have none.
NOT_NEEDED = {"client_id"}


def claims_of(user_id: str, **changes: Any) -> dict[str, Any]:
    """Return the claims of a good token, but for the changes."""
    good = jwt.decode(token_of(user_id), options={"verify_signature": False})
    return {name: value for name, value in {**good, **changes}.items() if value is not DROPPED}


def encoded(part: object) -> str:
    raw = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def signed(claims: object, *, key: Ed25519PrivateKey = SIGNER.private, **header: Any) -> str:
    """Return a token with a good signature, whatever it says."""
    fields = {"alg": "EdDSA", "typ": "at+jwt", "kid": SIGNER.kid, **header}
    head = {name: value for name, value in fields.items() if value is not DROPPED}
    content = f"{encoded(head)}.{encoded(claims)}"
    return f"{content}.{encoded(key.sign(content.encode()))}"


def by_library(claims: dict[str, Any], key: Any, alg: str) -> str:
    return jwt.encode(claims, key, algorithm=alg, headers={"kid": SIGNER.kid, "typ": "at+jwt"})


def with_secret(claims: dict[str, Any], secret: bytes) -> str:
    # The library refuses to sign with what looks like a public key, so by hand.
    algorithm = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
    content = f"{encoded({'alg': 'HS256', 'typ': 'at+jwt', 'kid': SIGNER.kid})}.{encoded(claims)}"
    return f"{content}.{encoded(algorithm.sign(content.encode(), secret))}"


def corpus(user_id: str) -> dict[str, str]:
    """Return tokens that are none, or no longer are, by what is wrong with them."""
    now = int(time.time())
    good = token_of(user_id)
    head, body, signature = good.split(".")
    public = SIGNER.private.public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    alone = {"alg": "none", "typ": "at+jwt", "kid": SIGNER.kid}

    def claims(**changes: Any) -> dict[str, Any]:
        return claims_of(user_id, **changes)

    return {
        "alg none": f"{encoded(alone)}.{body}.",
        "alg none with the signature": f"{encoded(alone)}.{body}.{signature}",
        "alg None": f"{encoded({**alone, 'alg': 'None'})}.{body}.",
        "no alg": signed(claims(), alg=DROPPED),
        "alg null": signed(claims(), alg=None),
        "HS256 with the public key": with_secret(claims(), public.public_bytes_raw()),
        "HS256 with the public key as PEM": with_secret(claims(), pem),
        "HS256 with the key as in the JWKS": with_secret(claims(), encoded(public.public_bytes_raw()).encode()),
        "RS256": by_library(claims(), rsa.generate_private_key(65537, 2048), "RS256"),
        "ES256": by_library(claims(), ec.generate_private_key(ec.SECP256R1()), "ES256"),
        "alg RS256 with our signature": signed(claims(), alg="RS256"),
        "another key": signed(claims(), key=Ed25519PrivateKey.generate()),
        "another key, in the header": signed(
            claims(), key=(other := Ed25519PrivateKey.generate()), jwk=jwk_of(other), jku="http://127.0.0.1:1/jwks.json"
        ),
        "wrong kid": signed(claims(), kid="other"),
        "no kid": signed(claims(), kid=DROPPED),
        "kid null": signed(claims(), kid=None),
        "kid a number": signed(claims(), kid=1),
        "kid a list": signed(claims(), kid=[SIGNER.kid]),
        "kid a path": signed(claims(), kid="../../../../dev/null"),
        "kid SQL": signed(claims(), kid="' OR '1'='1"),
        "kid SQL that names ours": signed(claims(), kid=f"x' UNION SELECT '{SIGNER.kid}"),
        "kid with a NUL": signed(claims(), kid=f"{SIGNER.kid}\0"),
        "kid empty": signed(claims(), kid=""),
        "typ JWT": signed(claims(), typ="JWT"),
        "no typ": signed(claims(), typ=DROPPED),
        "typ of another kind": signed(claims(), typ="logout+jwt"),
        "crit unknown": signed(claims(), crit=["x"], x=1),
        "crit b64": signed(claims(), crit=["b64"], b64=False),
        "crit empty": signed(claims(), crit=[]),
        "b64 false": signed(claims(), b64=False),
        "issued in the future": signed(claims(iat=now + 3600)),
        "not before the future": signed(claims(nbf=now + 3600)),
        "exp no number": signed(claims(exp="tomorrow")),
        "exp null": signed(claims(exp=None)),
        **{f"no {name}": signed(claims(**{name: DROPPED})) for name in claims().keys() - NOT_NEEDED},
        **{f"{name} null": signed(claims(**{name: None})) for name in claims().keys() - NOT_NEEDED},
        "wrong iss": signed(claims(iss="https://evil.example")),
        "iss a list": signed(claims(iss=["https://shop.local"])),
        "iss with a slash more": signed(claims(iss="https://shop.local/")),
        "wrong aud": signed(claims(aud="bank")),
        "aud a list of others": signed(claims(aud=["bank", "library"])),
        "sub no UUID": signed(claims(sub="admin")),
        "sub a number": signed(claims(sub=1)),
        "sub empty": signed(claims(sub="")),
        "sid no UUID": signed(claims(sid="none")),
        "unknown role": signed(claims(roles=["USER", "ROOT"])),
        "role in lower case": signed(claims(roles=["admin"])),
        "roles a text": signed(claims(roles="ADMIN")),
        "roles an object": signed(claims(roles={"ADMIN": True})),
        "role a list": signed(claims(roles=[["ADMIN"]])),
        "claims a list": signed([claims()]),
        "claims no JSON": signed(b"{"),
        "claims changed": f"{head}.{encoded(claims(roles=['ADMIN']))}.{signature}",
        "header changed": f"{encoded({'alg': 'EdDSA', 'typ': 'at+jwt', 'kid': SIGNER.kid, 'x': 1})}.{body}.{signature}",
        "no signature": f"{head}.{body}.",
        "half a signature": f"{head}.{body}.{signature[:40]}",
        "two parts": f"{head}.{body}",
        "four parts": f"{good}.{signature}",
        "five parts": f"{head}.{body}.{body}.{body}.{signature}",
        "oversized": signed(claims(padding="x" * 4096)),
        "garbage": "garbage",
        "dots": "..",
        "empty": "",
        "header no JSON": f"{encoded(b'{')}.{body}.{signature}",
        "header a list": f"{encoded([])}.{body}.{signature}",
        "header deep": f"{encoded(b'[' * 3000)}.{body}.{signature}",
        "header deep objects": f"{encoded(DEEP)}.{body}.{signature}",
        "header no UTF-8": f"{encoded(bytes([0xFF, 0xFE]))}.{body}.{signature}",
        "no base64": f"{head}.{body}.!!!",
    }


def jwk_of(key: Ed25519PrivateKey) -> dict[str, str]:
    return {"kty": "OKP", "crv": "Ed25519", "x": encoded(key.public_key().public_bytes_raw())}


async def reasons(call: Callable[[Any], Any], corpus: dict[str, str]) -> dict[str, str]:
    """Return why each token is refused, by what is wrong with it."""
    refused = {}
    for name, token in corpus.items():
        refusal = await refusal_of(call(bearer(token)))
        assert (refusal.code, refusal.domain) == (StatusCode.UNAUTHENTICATED, "shop.system.v1"), name
        refused[name] = refusal.reason
    return refused


async def test_the_user_service_refuses_bad_tokens(users: UserServiceAsyncStub, buyer: User) -> None:
    tokens = corpus(buyer.id)

    refused = await reasons(lambda metadata: users.GetUser(pb.GetUserRequest(id=buyer.id), metadata=metadata), tokens)

    assert len(tokens) > 80
    assert refused == dict.fromkeys(tokens, "TOKEN_INVALID")


async def test_the_order_service_refuses_bad_tokens(orders: OrderServiceAsyncStub, buyer: User) -> None:
    order = await orders.CreateOrder(create_order_request(buyer.id))
    tokens = corpus(buyer.id)
    get = orders_pb.GetOrderRequest(id=order.id)

    refused = await reasons(lambda metadata: orders.GetOrder(get, metadata=metadata), tokens)

    assert refused == dict.fromkeys(tokens, "TOKEN_INVALID")


async def test_a_token_that_was_good_has_expired(
    users: UserServiceAsyncStub, orders: OrderServiceAsyncStub, buyer: User
) -> None:
    now = int(time.time())
    expired = {
        "just now": signed(claims_of(buyer.id, iat=now - 900, exp=now - LEEWAY_S - 1)),
        "long ago": signed(claims_of(buyer.id, iat=0, exp=900)),
    }

    by_users = await reasons(lambda metadata: users.GetUser(pb.GetUserRequest(id=buyer.id), metadata=metadata), expired)
    by_orders = await reasons(
        lambda metadata: orders.ListOrders(orders_pb.ListOrdersRequest(), metadata=metadata), expired
    )

    assert by_users == by_orders == dict.fromkeys(expired, "TOKEN_EXPIRED")


async def test_an_expired_token_of_another_key_is_invalid_and_not_expired(
    users: UserServiceAsyncStub, buyer: User
) -> None:
    token = signed(claims_of(buyer.id, exp=900), key=Ed25519PrivateKey.generate())

    refusal = await refusal_of(users.GetUser(pb.GetUserRequest(id=buyer.id), metadata=bearer(token)))

    assert refusal.reason == "TOKEN_INVALID"


async def test_good_tokens_are_taken_however_they_are_written(users: UserServiceAsyncStub, buyer: User) -> None:
    now = int(time.time())
    good = {
        "as we make them": f"Bearer {token_of(buyer.id)}",
        "bearer in lower case": f"bearer {token_of(buyer.id)}",
        "BEARER in upper case": f"BEARER {token_of(buyer.id)}",
        "aud a list with ours": f"Bearer {signed(claims_of(buyer.id, aud=['bank', 'shop']))}",
        "a clock a little ahead": f"Bearer {signed(claims_of(buyer.id, iat=now + 3))}",
        "a clock a little behind": f"Bearer {signed(claims_of(buyer.id, exp=now - 2))}",
        "a claim more": f"Bearer {signed(claims_of(buyer.id, nbf=now - 1, client_id='web'))}",
        "sub in upper case": f"Bearer {signed(claims_of(buyer.id, sub=buyer.id.upper()))}",
    }

    for name, value in good.items():
        found = await users.GetUser(pb.GetUserRequest(id=buyer.id), metadata=(("authorization", value),))
        assert found == buyer, name


async def test_no_other_scheme_is_taken(users: UserServiceAsyncStub, buyer: User) -> None:
    token = token_of(buyer.id)
    password = base64.b64encode(f"{buyer.email}:{PASSWORD}".encode()).decode()
    values = [f"Basic {password}", f"Basic {token}", token, "Bearer", "Bearer ", f"Bearer  {token}", f"Bearer{token}"]
    values += [f"Bearer {token} ", f"Bearer {token},{token}", f"DPoP {token}", ""]

    for value in values:
        metadata = (("authorization", value),)
        refusal = await refusal_of(users.GetUser(pb.GetUserRequest(id=buyer.id), metadata=metadata))
        assert (refusal.code, refusal.reason) == (StatusCode.UNAUTHENTICATED, "TOKEN_INVALID"), value


async def test_a_refresh_token_is_no_access_token(
    users: UserServiceAsyncStub, sessions: SessionServiceAsyncStub, buyer: User
) -> None:
    login = sessions_pb.CreateSessionRequest(email=buyer.email, password=PASSWORD)
    session = await sessions.CreateSession(login)

    refusal = await refusal_of(users.GetUser(pb.GetUserRequest(id=buyer.id), metadata=bearer(session.refresh_token)))

    assert refusal.reason == "TOKEN_INVALID"


async def test_an_access_token_is_no_refresh_token(sessions: SessionServiceAsyncStub, buyer: User) -> None:
    request = sessions_pb.RefreshSessionRequest(refresh_token=token_of(buyer.id))

    refusal = await refusal_of(sessions.RefreshSession(request))

    assert (refusal.reason, refusal.fields) == ("INVALID_FIELDS", ("refreshToken",))


async def test_a_public_method_ignores_the_token(sessions: SessionServiceAsyncStub) -> None:
    # A client that sends an expired token along must still get a new one.
    jwks = await sessions.GetJwks(sessions_pb.GetJwksRequest(), metadata=bearer("garbage"))

    assert [key.kid for key in jwks.keys] == [SIGNER.kid]


async def test_no_metadata_beside_the_token_identifies_a_caller(users: UserServiceAsyncStub, buyer: User) -> None:
    metadata = (
        ("authorization", ""),
        ("x-user-id", buyer.id),
        ("x-forwarded-client-cert", "URI=spiffe://shop/order_svc"),
        ("x-roles", "ADMIN"),
        ("x-jwt-payload", encoded(claims_of(buyer.id))),
    )

    refusal = await refusal_of(users.GetUser(pb.GetUserRequest(id=buyer.id), metadata=metadata))

    assert refusal.reason == "TOKEN_INVALID"


async def test_a_token_of_the_release_before_still_counts(
    users: UserServiceAsyncStub, orders: OrderServiceAsyncStub, buyer: User
) -> None:
    metadata = bearer(signed(claims_of(buyer.id, client_id=DROPPED)))

    assert (await users.GetUser(pb.GetUserRequest(id=buyer.id), metadata=metadata)).id == buyer.id
    assert await orders.CreateOrder(create_order_request(buyer.id), metadata=metadata)


def test_a_test_token_is_like_a_real_one() -> None:
    claims = claims_of("01960000-0000-7000-8000-000000000001")

    assert set(claims) == {"iss", "aud", "sub", "exp", "iat", "jti", "sid", "roles", "client_id"}
    assert str(UUID(claims["jti"])) == claims["jti"]
