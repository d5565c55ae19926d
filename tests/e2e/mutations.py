"""Requests that are wrong in a random way: made from good ones, by the contract's descriptors."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from chassis.testing import new_uuid
from tests.e2e.contract import BINDINGS, Json, Place, with_value

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Mapping, Sequence

    from tests.e2e.contract import Binding

_TEXTS: Final = (
    "",
    " ",
    "\0",
    "a\0b",
    "' OR '1'='1",
    "'; DROP TABLE users; --",
    "../../etc/passwd",
    "${jndi:ldap://x}",
    "{{7*7}}",
    "%s%n%d",
    "👩🏽‍🚀",
    "\u202e\u200b\ufeff",
    "İıß",
    "a\u0301" * 40,
    "\ud7ff\ue000\uffff\U0010ffff",
    "a" * 300,
    "é" * 2000,
    "a" * 20_000,
    "a@b.c",
    "A@xn--",
    "a@" + "b." * 120 + "c",
    "@",
    "true",
    "null",
    "NaN",
    "-0",
    "1e400",
    "v1",
    "00000000-0000-0000-0000-000000000000",
    "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF",
    "{00000000-0000-0000-0000-000000000000}",
    "2026-01-01T00:00:00Z",
    "ORDER_STATUS_SHIPPED",
    "USER_STATE_UNSPECIFIED",
    "EUR",
)
_NUMBERS: Final = (0, -0.0, 1, -1, 0.5, 2**31 - 1, 2**31, -(2**31) - 1, 2**53, 2**63 - 1, 2**63, 10**30, 1e308, 5e-324)
_HEADERS: Final = (
    ("content-type", "text/plain"),
    ("content-type", "application/json; charset=utf-8"),
    ("content-type", "application/json;charset=latin-1"),
    ("content-type", "application/grpc-web+proto"),
    ("content-type", "multipart/form-data; boundary=x"),
    ("content-encoding", "gzip"),
    ("accept", "application/xml"),
    ("accept-encoding", "zstd, x"),
    ("idempotency-key", "junk"),
    ("idempotency-key", "00000000-0000-0000-0000-000000000000"),
    ("x-request-id", "junk"),
    ("foo-bin", "$$$"),
    ("grpc-timeout", "junk"),
    ("grpc-timeout", "1n"),
    ("grpc-encoding", "gzip"),
    ("grpc-status", "13"),
    ("te", "gzip"),
    ("traceparent", "00-zz-zz-zz"),
    ("x-envoy-original-path", "/shop.user.v1.UserService/ListUsers"),
    ("x-envoy-retry-on", "5xx"),
    ("x-forwarded-for", "not, an, address"),
    ("x-http-method-override", "DELETE"),
    ("range", "bytes=0-1"),
    ("if-match", "*"),
    ("cookie", "a=" + "b" * 3000),
    ("authorization", "Bearer ....."),
    ("x_under_score", "1"),
)
# Not HEAD, whose answers have no body to look at, and not CONNECT, which is no request of a path.
_VERBS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW")
_TAILS: Final = (
    "/",
    "//",
    "/x",
    ":x",
    "%00",
    "%ff",
    "%2f",
    "/..",
    "/../..",
    ";a=b",
    "%",
    "%zz",
    "/%2e%2e",
    "\\",
    "*",
    ".",
)
_QUERY_NAMES: Final = ("pageSize", "page_size", "pageToken", "id", "ids", "userId", "status", "state", "email", "etag")
_ODD_NAMES: Final = (
    "nope",
    "",
    "items",
    "items.quantity",
    "profile",
    "profile.fields",
    "x[]",
    "a.b.c",
    "__proto__",
    "é",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """An HTTP request, good or not.

    Attributes:
        binding: what it started from.
        verb: in capitals.
        path: with what it should not hold, already as it goes over the wire.
        query: name and value of each parameter, before they are quoted.
        body: the bytes, if any.
        headers: in any case.
        mutations: what was done to it.
    """

    binding: Binding
    verb: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    mutations: tuple[str, ...] = ()

    @property
    def target(self) -> str:
        """Path and query."""
        query = "&".join(f"{quote(name)}={quote(value)}" for name, value in self.query)
        return f"{self.path}?{query}" if query else self.path


class Mutator:
    """Makes cases from good requests.

    Args:
        chance: decides everything but the ids, so that a seed gives the same cases again.
        good: for the name of every method, requests that are fine, as JSON.
    """

    def __init__(self, chance: random.Random, good: Mapping[str, Sequence[Json]]) -> None:
        self._chance = chance
        self._good = good
        self._on_content: tuple[Callable[[Json], Json], ...] = (
            self._other_value,
            self._other_value,
            self._other_value,
            self._without_something,
            self._with_something,
        )
        self._on_request: tuple[Callable[[Case], Case], ...] = (
            self._broken_body,
            self._other_verb,
            self._odd_path,
            self._odd_query,
            self._odd_header,
            self._body_where_it_may_not_be,
        )

    def case(self) -> Case:
        """Return a case: a good request with up to three changes to its content and up to two around it."""
        binding = self._chance.choice(BINDINGS)
        content = self._chance.choice(self._good[binding.rpc.name])
        done = []
        for _ in range(self._chance.choice((0, 0, 1, 1, 2))):
            change = self._chance.choice(self._on_content)
            content = change(content)
            done.append(change.__name__)
        call = binding.call(content)
        case = Case(
            binding=binding,
            verb=call.verb,
            path=call.path,
            query=tuple((name, value.encode(errors="replace").decode()) for name, value in call.query),
            body=None if call.body is None else json.dumps(call.body).encode(),
            headers={} if call.body is None else {"content-type": "application/json"},
        )
        for _ in range(self._chance.choice((0, 0, 1, 1, 2))):
            change_request = self._chance.choice(self._on_request)
            case = change_request(case)
            done.append(change_request.__name__)
        return replace(case, mutations=tuple(done))

    def _value(self, depth: int = 0) -> Any:
        kind = self._chance.randrange(7 if depth < 3 else 4)
        match kind:
            case 0 | 1:
                return self._chance.choice(_TEXTS)
            case 2:
                return self._chance.choice(_NUMBERS)
            case 3:
                return self._chance.choice((None, True, False, new_uuid()))
            case 4:
                return [self._value(depth + 1) for _ in range(self._chance.choice((0, 1, 2, 120)))]
            case 5:
                return {self._chance.choice(_TEXTS): self._value(depth + 1) for _ in range(self._chance.randrange(4))}
            case _:
                return self._nested(self._chance.choice((5, 17, 60, 150)))

    def _nested(self, depth: int) -> Any:
        value: Any = 1
        for _ in range(depth):
            value = [value] if self._chance.random() < 0.5 else {"a": value}
        return value

    def _place(self, content: Any, above: Place = ()) -> Place:
        """Return a random place in the content, more often a deep one."""
        children: list[tuple[str | int, Any]] = []
        if isinstance(content, dict):
            children = list(content.items())
        elif isinstance(content, list):
            children = list(enumerate(content))
        if not children or (above and self._chance.random() < 0.25):
            return above
        key, value = self._chance.choice(children)
        return self._place(value, (*above, key))

    def _other_value(self, content: Json) -> Json:
        place = self._place(content)
        return with_value(content, place, self._value()) if place else content

    def _without_something(self, content: Json) -> Json:
        names = list(content)
        gone = self._chance.choice(names) if names else ""
        return {name: value for name, value in content.items() if name != gone}

    def _with_something(self, content: Json) -> Json:
        return {**content, self._chance.choice((*_ODD_NAMES, *_QUERY_NAMES)): self._value()}

    def _broken_body(self, case: Case) -> Case:
        body = case.body or b"{}"
        at = self._chance.randrange(len(body) + 1)
        broken = self._chance.choice(
            (
                body[:at],
                body[:at] + bytes([self._chance.randrange(256)]) + body[at:],
                body[:at] + bytes([self._chance.randrange(256)]) + body[at + 1 :],
                body[:at] + b"\xff\xfe\x00" + body[at:],
                body + body,
                b"[" + body + b"]",
                body.replace(b'"', b"'"),
                body.replace(b",", b",,"),
                body[:-1] + b"," + body[1:],  # every name twice
                b"[" * 20_000,
                b'{"a":' * 20_000,
                b"",
                b"null",
                body.decode(errors="replace").encode("utf-16"),
            )
        )
        return replace(case, body=broken)

    def _other_verb(self, case: Case) -> Case:
        return replace(case, verb=self._chance.choice(_VERBS))

    def _odd_path(self, case: Case) -> Case:
        at = self._chance.randrange(1, len(case.path) + 1)
        tail = self._chance.choice(_TAILS)
        path = self._chance.choice((case.path + tail, case.path[:at] + tail + case.path[at:], case.path[:at], tail))
        return replace(case, path=path if path.startswith("/") else "/" + path)

    def _odd_query(self, case: Case) -> Case:
        name = self._chance.choice((*_QUERY_NAMES, *_ODD_NAMES))
        value = str(self._chance.choice((*_TEXTS[:-1], *_NUMBERS))).encode(errors="replace").decode()[:5000]
        return replace(case, query=(*case.query, (name, value)))

    def _odd_header(self, case: Case) -> Case:
        name, value = self._chance.choice(_HEADERS)
        return replace(case, headers={**case.headers, name: value})

    def _body_where_it_may_not_be(self, case: Case) -> Case:
        return replace(case, body=case.body or b'{"id": "1"}')
