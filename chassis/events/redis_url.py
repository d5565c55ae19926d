"""The URL of a Redis: one server, the primary that Sentinels name, or a Cluster.

redis-py's URLs name one server. The forms for Sentinels and for a Cluster, with several hosts, are those of redisvl,
Prefect and limits.

| form | where it leads |
|---|---|
| `redis://user:password@host:6379/0` | one server; `rediss` is over TLS, here and below |
| `redis+sentinel://user:password@host:26379,host:26379/service/0` | the primary of the service, as the Sentinels say |
| `redis+cluster://user:password@host:6379,host:6379` | a Cluster: any of its nodes, which know the others |

Options stand behind a question mark: `?ssl_ca_certs=/etc/shop/redis/ca.crt`. Sentinels are asked without a password,
unless `sentinel_password`, and `sentinel_username` if they have users, are among the options.
"""

from __future__ import annotations

import re
from collections.abc import Sequence  # noqa: TC003  pydantic reads the annotations of a setting
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import parse_qsl, unquote, urlencode

from redis import RedisError, SSLConnection
from redis.connection import parse_url

Topology: TypeAlias = Literal["server", "sentinel", "cluster"]

_SHAPE: Final = re.compile(
    r"(?P<scheme>(?i:rediss?))(\+(?P<topology>(?i:sentinel|cluster)))?://"
    r"((?P<credentials>[^@/?#]*)@)?(?P<hosts>[^@/?#]*)(?P<path>/[^?#]*)?(\?(?P<options>[^#]*))?"
)
_HOST: Final = re.compile(r"(\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<name>[^\[\]:,\s]+))(:(?P<port>[0-9]{1,5}))?")
_SENTINEL_OPTIONS: Final = {"sentinel_username": "username", "sentinel_password": "password"}
# Options that all six clients of redis-py take: for a server, Sentinels and a Cluster, each sync and async.
# Timeouts are not among them: each call needs one.
_TLS_OPTIONS: Final = frozenset(
    {"ssl_ca_certs", "ssl_cert_reqs", "ssl_certfile", "ssl_check_hostname", "ssl_ciphers", "ssl_keyfile"}
)
_OPTIONS: Final = frozenset(
    {"client_name", "db", "health_check_interval", "max_connections", "protocol", "socket_keepalive"}
)
_FORMS: Final = (
    "must look like redis://user:password@host:6379/0, redis+sentinel://user:password@host:26379,host:26379/service/0 "
    "or redis+cluster://user:password@host:6379,host:6379; "
    "in a password write %25 for %, %2F for /, %23 for #, %3F for ?, %40 for @"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisUrl:
    """A parsed URL.

    Attributes:
        topology: what is at the hosts.
        hosts: each with its port: of the server, of Sentinels, or of nodes of a Cluster.
        service: as the Sentinels call it; empty without Sentinels.
        options: for a connection to Redis, as redis-py names them: `username`, `db`, `ssl_ca_certs`.
        sentinel_options: for a connection to a Sentinel.
        is_tls: whether connections are over TLS.
    """

    topology: Topology
    hosts: Sequence[tuple[str, int]]
    service: str
    options: dict[str, Any] = field(repr=False)
    sentinel_options: dict[str, Any] = field(repr=False)
    is_tls: bool

    @classmethod
    def parse(cls, url: str) -> RedisUrl:
        """Return what the URL says.

        Raises:
            ValueError: it makes no sense. The message has nothing of the URL, which may hold a password.
        """
        found = _SHAPE.fullmatch(url)
        if found is None:
            raise ValueError(_FORMS)
        topology: Any = (found["topology"] or "server").lower()
        is_tls = found["scheme"].lower() == "rediss"
        hosts = _hosts(found["hosts"], topology)
        service, database = _path(found["path"] or "", topology)
        given = _given_options(found["options"] or "")
        sentinel = {ours: given.pop(name) for name, ours in _SENTINEL_OPTIONS.items() if name in given}
        if sentinel and topology != "sentinel":
            raise ValueError("sentinel_username and sentinel_password are for redis+sentinel:// and rediss+sentinel://")
        options = _typed_options(given, is_tls=is_tls)
        if database:
            options.setdefault("db", int(database))
        if topology == "cluster" and options.pop("db", 0):
            raise ValueError("a Cluster has no databases: leave out the number behind the hosts")
        tls = {name: options[name] for name in _TLS_OPTIONS & options.keys()}
        return cls(
            topology=topology,
            hosts=hosts,
            service=service,
            options={**options, **_credentials(found["credentials"] or "")},
            sentinel_options={**sentinel, **tls},
            is_tls=is_tls,
        )


def _hosts(text: str, topology: Topology) -> Sequence[tuple[str, int]]:
    usual = 26379 if topology == "sentinel" else 6379
    if not text and topology == "server":
        return [("localhost", usual)]
    hosts = []
    for each in text.split(","):
        found = _HOST.fullmatch(each)
        if found is None or not 0 < int(found["port"] or usual) < 65536:
            raise ValueError(_FORMS)
        hosts.append((found["ipv6"] or found["name"], int(found["port"] or usual)))
    if len(hosts) > 1 and topology == "server":
        raise ValueError("several hosts need redis+sentinel:// or redis+cluster:// in front (rediss+… over TLS)")
    return hosts


def _path(path: str, topology: Topology) -> tuple[str, str]:
    """Return the service, and the number of the database; each may be empty."""
    service, database = "", path.removeprefix("/").removesuffix("/")
    if topology == "sentinel":
        service, _, database = database.partition("/")
        if not service:
            raise ValueError("redis+sentinel:// needs the name of the service behind the hosts: …:26379/mymaster/0")
    if database and re.fullmatch("[0-9]{1,9}", database) is None:
        raise ValueError("the database behind the hosts must be a number")
    return service, database


def _credentials(text: str) -> dict[str, str]:
    username, _, password = text.partition(":")
    given = {"username": unquote(username), "password": unquote(password)}
    return {name: value for name, value in given.items() if value}


def _given_options(query: str) -> dict[str, str]:
    try:
        return dict(parse_qsl(query, keep_blank_values=True, strict_parsing=True)) if query else {}
    except ValueError:
        raise ValueError(_FORMS) from None


def _typed_options(given: dict[str, str], *, is_tls: bool) -> dict[str, Any]:
    """Return the options with the types that redis-py wants."""
    known = _OPTIONS | _TLS_OPTIONS if is_tls else _OPTIONS
    if not given.keys() <= known:
        timeouts = "; REDIS_TIMEOUT_S has the timeout" if any("timeout" in name for name in given) else ""
        over_tls = "" if is_tls else ", and over TLS (rediss) the ssl_… ones of redis-py"
        raise ValueError(f"options behind the question mark may be {', '.join(sorted(known))}{over_tls}{timeouts}")
    try:
        options: dict[str, Any] = parse_url(f"redis://?{urlencode(given)}")  # type: ignore[no-untyped-call]  # redis-py has no types there
        if is_tls:
            SSLConnection(**{name: options[name] for name in _TLS_OPTIONS & options.keys()})  # connects when it is used
    except (ValueError, RedisError):
        raise ValueError("an option behind the question mark has a value that redis-py does not take") from None
    return options
