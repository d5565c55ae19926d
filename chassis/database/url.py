"""`DATABASE_URL` in the forms that clouds and operators hand out, read by libpq alone.

Threads, the loop and migrations connect with the same parameters, so that a form works everywhere or nowhere. A
message about a URL never repeats a part of it: a password with a `/` or an `@` that is not encoded ends up in any part.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Mapping

# `postgresql+asyncpg://` and the like name a driver of Python's; we have our own.
_SCHEME: Final = re.compile(r"^postgres(?:ql)?(?:\+[a-z0-9_]+)?://", re.IGNORECASE)
_EXAMPLE: Final = "postgresql://user:password@host:5432/database"
# Parameters of other drivers' URLs, each with what to write instead. Unknown names are not repeated in the error.
_FOREIGN: Final = {
    "schema": "options=-csearch_path%3Dname",
    "currentSchema": "options=-csearch_path%3Dname",
    "user": "user:password@ before the host",
    "pgbouncer": "nothing, a pooler is found",
    "prepareThreshold": "nothing, a pooler is found",
    "prepared_statements": "nothing, a pooler is found",
    "statement_cache_size": "nothing, a pooler is found",
    "connection_limit": "DATABASE_POOL_SIZE",
    "pool_size": "DATABASE_POOL_SIZE",
    "pool_timeout": "DATABASE_CONNECT_TIMEOUT_S",
    "statement_timeout": "DATABASE_STATEMENT_TIMEOUT_S",
    "socketTimeout": "DATABASE_STATEMENT_TIMEOUT_S",
    "targetServerType": "target_session_attrs=read-write",
    "ssl": "sslmode=require",
    "sslaccept": "sslmode=verify-full",
    "sslfactory": "sslmode=verify-full",
    "sslidentity": "sslcert= and sslkey=",
}
# A service writes: it has no use for a server that only reads.
_READING: Final = frozenset({"read-only", "standby", "prefer-standby"})
_FILES: Final = ("sslrootcert", "sslcert", "sslkey", "sslcrl", "passfile")
_NOWHERE: Final = "/nonexistent"
# Where Debian and Ubuntu, Fedora and Red Hat, and Alpine keep the public authorities.
STORES: Final = (
    Path("/etc/ssl/certs/ca-certificates.crt"),
    Path("/etc/pki/tls/certs/ca-bundle.crt"),
    Path("/etc/ssl/cert.pem"),
)


class DatabaseUrl:
    """Where a database is and how to connect to it.

    Attributes:
        parameters: as libpq has them; the password among them.
    """

    def __init__(self, parameters: Mapping[str, str]) -> None:
        self.parameters: Final = parameters

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return what a URL, or libpq's `host=… dbname=…`, says. Of several hosts it wants the one that takes writes.

        Raises:
            ValueError: it cannot be used. The message says what to do and repeats nothing of it.
        """
        parameters = _read(text.strip())
        _require_complete(parameters)
        hosts = parameters.get("host", "") or parameters.get("hostaddr", "")
        if "," in hosts:
            parameters.setdefault("target_session_attrs", "read-write")
        if parameters.get("target_session_attrs") in _READING:
            raise ValueError("target_session_attrs must be read-write or primary: a service writes")
        _require_known_values(parameters)
        if parameters.get("sslrootcert") == "system":
            parameters["sslrootcert"] = _systems_store()
        _require_files(parameters)
        return cls(parameters)

    @property
    def database(self) -> str:
        """The database's name; empty if a service file names it."""
        return self.parameters.get("dbname", "")

    @property
    def hosts(self) -> str:
        """The host, or several with commas; empty if a service file names them."""
        return self.parameters.get("host", "") or self.parameters.get("hostaddr", "")

    @property
    def ports(self) -> str:
        """The port, or several with commas; empty for 5432."""
        return self.parameters.get("port", "")

    @override
    def __repr__(self) -> str:
        """Return no secrets."""
        return f"DatabaseUrl({self.hosts}/{self.database})"


def _read(text: str) -> dict[str, str]:
    if text[:1] in {"'", '"'}:
        raise ValueError("must not be in quotes")
    is_url = "://" in text.partition("=")[0]
    if (is_url and not _SCHEME.match(text)) or (not is_url and ("=" not in text or text.startswith("jdbc:"))):
        raise ValueError(f"must look like {_EXAMPLE}")
    try:
        read = conninfo_to_dict(_SCHEME.sub("postgresql://", text))
    except psycopg.ProgrammingError as error:
        raise ValueError(_explained(str(error))) from None
    return {name: str(value) for name, value in read.items() if value is not None}


def _explained(complaint: str) -> str:
    """Return libpq's complaint about a text that it cannot read, without the part that it quotes."""
    named = re.search(r'(?:query parameter|connection option)[ :]+"([^"]*)"', complaint)
    if named and named[1] in _FOREIGN:
        return f"PostgreSQL's own drivers do not know its parameter {named[1]}: write {_FOREIGN[named[1]]}"
    if named:
        return "has a parameter that PostgreSQL's own drivers (libpq) do not know: remove it"
    return f"cannot be read: it must look like {_EXAMPLE}, special characters percent-encoded"


def _require_complete(parameters: Mapping[str, str]) -> None:
    has_service = "service" in parameters
    hosts = parameters.get("host", "") or parameters.get("hostaddr", "")
    if not hosts and not has_service:
        raise ValueError(f"names no host: it must look like {_EXAMPLE}")
    if "@" in hosts or (not all(hosts.split(",")) and not has_service):
        raise ValueError("names a host that is none: percent-encode @ and , in the password")
    ports = [port for port in parameters.get("port", "").split(",") if port]
    if not all(port.isdecimal() and 0 < int(port) < 2**16 for port in ports):
        raise ValueError("names a port that is none: percent-encode : and / in the password")
    if not parameters.get("dbname") and not has_service:
        raise ValueError(f"names no database: it must look like {_EXAMPLE}")
    if "@" in parameters.get("dbname", ""):
        raise ValueError("names a database with an @: percent-encode / in the password")


def _systems_store() -> str:
    """Return the file of the system's authorities; `system` where OpenSSL is to look for itself.

    The OpenSSL in psycopg's wheel looks in a folder of its own, which no system has.
    """
    is_named = {"SSL_CERT_FILE", "SSL_CERT_DIR"} & os.environ.keys()
    return "system" if is_named else next((str(store) for store in STORES if store.exists()), "system")


def _require_files(parameters: Mapping[str, str]) -> None:
    """Require the files of the URL. libpq reports a missing one at each connection, and a password file never."""
    for name in _FILES:
        path = parameters.get(name, "")
        if path not in {"", "system"} and not os.access(path, os.R_OK):
            raise ValueError(f"its parameter {name} names a file that uid {os.geteuid()} cannot read: mount it there")


def _require_known_values(parameters: Mapping[str, str]) -> None:
    """Have libpq look at the values, `sslmode` and the rest, with hosts that are not there, so that nothing is sent."""
    nowhere = {name: value for name, value in parameters.items() if name not in {"hostaddr", "service"}}
    nowhere["host"] = ",".join(_NOWHERE for _ in nowhere.get("host", "").split(","))
    looked_at = psycopg.pq.PGconn.connect_start(make_conninfo("", **nowhere).encode())
    complaint = looked_at.get_error_message()
    looked_at.finish()
    if "weak sslmode" in complaint:
        raise ValueError("sslrootcert=system needs sslmode=verify-full")
    if "port numbers" in complaint:
        raise ValueError("must have one port for all hosts, or one for each")
    if wrong := re.search(r'invalid "?([a-z_]+)"? value', complaint):
        raise ValueError(f"its parameter {wrong[1]} has a value that PostgreSQL's own drivers (libpq) do not know")
