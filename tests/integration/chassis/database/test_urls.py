"""Each form of `DATABASE_URL` that clouds and operators hand out, with every way in which a service connects."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import psycopg
import pytest
from psycopg.sql import SQL, Literal

from chassis.database import Database
from chassis.database.connections import connect_for_long
from tests.integration.inprocess import database_settings
from tests.support.database_cases import cases
from tests.support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from sqlalchemy import Connection

    from tests.integration.tls_postgres import TlsPostgres

# Of every character that a URL gives a meaning to.
PASSWORD = "p@ss:w/o?r#d%20&=,[]'\" \\é"

FORMS = {
    "PostgreSQL's own": "postgresql://notes_svc:{password}@127.0.0.1:{port}/notes",
    "Heroku, Fly, Railway": "postgres://notes_svc:{password}@127.0.0.1:{port}/notes",
    "SQLAlchemy with psycopg": "postgresql+psycopg://notes_svc:{password}@127.0.0.1:{port}/notes",
    "SQLAlchemy with asyncpg": "postgresql+asyncpg://notes_svc:{password}@127.0.0.1:{port}/notes",
    "a scheme in capitals": "POSTGRESQL://notes_svc:{password}@127.0.0.1:{port}/notes",
    "a newline at the end, as in a Secret's file": "postgresql://notes_svc:{password}@127.0.0.1:{port}/notes\n",
    "a name": "postgresql://notes_svc:{password}@localhost:{port}/notes",
    "IPv6": "postgresql://notes_svc:{password}@[::1]:{port}/notes",
    "user and password as parameters": "postgresql://127.0.0.1:{port}/notes?user=notes_svc&password={password}",
    "host and port as parameters": "postgresql:///notes?host=127.0.0.1&port={port}&user=notes_svc&password={password}",
    "libpq's words": "host=127.0.0.1 port={port} dbname=notes user=notes_svc password={quoted} sslmode=require",
    "an address beside the name": "host=nowhere.invalid hostaddr=127.0.0.1 port={port} dbname=notes user=notes_svc "
    "password={quoted}",
    "Cloud SQL's proxy: a socket": "postgresql://notes_svc:{password}@/notes?host={sockets}&port={port}",
    "a socket as host": "postgresql://notes_svc:{password}@{sockets}:{port}/notes",
    "a password file": "postgresql://notes_svc@127.0.0.1:{port}/notes?passfile={passfile}",
    "a service file": "postgresql://?service=shop",
    "CloudNativePG, Crunchy: a service's name": "postgresql://notes_svc:{password}@localhost:{port}/notes"
    "?sslmode=verify-full&sslrootcert={ca}",
    "RDS": "postgresql://notes_svc:{password}@localhost:{port}/notes?sslmode=verify-full&sslrootcert={ca}"
    "&connect_timeout=10&application_name=shop",
    "Azure": "host=localhost port={port} dbname=notes user=notes_svc password={quoted} sslmode=require",
    "DigitalOcean, Aiven": "postgresql://notes_svc:{password}@localhost:{port}/notes?sslmode=require",
    "Neon": "postgresql://notes_svc:{password}@localhost:{port}/notes?sslmode=require&channel_binding=require",
    "JDBC's ssl": "postgresql://notes_svc:{password}@localhost:{port}/notes?ssl=true",
    "a client's certificate": "postgresql://notes_svc:{password}@localhost:{port}/notes?sslmode=verify-full"
    "&sslrootcert={ca}&sslcert={client}/tls.crt&sslkey={client}/tls.key",
    "several hosts": "postgresql://notes_svc:{password}@127.0.0.1:{dead},127.0.0.1:{port}/notes",
    "several hosts with one port": "postgresql://notes_svc:{password}@nowhere.invalid,127.0.0.1/notes?port={port}",
    "Patroni": "postgresql://notes_svc:{password}@127.0.0.1:{dead},127.0.0.1:{port}/notes"
    "?target_session_attrs=read-write",
    "hosts in any order": "postgresql://notes_svc:{password}@127.0.0.1:{dead},127.0.0.1:{port}/notes"
    "?load_balance_hosts=random&target_session_attrs=primary",
    "options of its own": "postgresql://notes_svc:{password}@127.0.0.1:{port}/notes?options=-csearch_path%3Dpublic"
    "%20-cstatement_timeout%3D2000",
    "another encoding": "postgresql://notes_svc:{password}@127.0.0.1:{port}/notes?client_encoding=latin1",
    "keepalives": "postgresql://notes_svc:{password}@127.0.0.1:{port}/notes?keepalives=1&keepalives_idle=60"
    "&tcp_user_timeout=1",
}

# One of each class: a driver's scheme, TLS, a socket, several hosts, options.
EVERYDAY = (
    "SQLAlchemy with psycopg",
    "RDS",
    "Cloud SQL's proxy: a socket",
    "Patroni",
    "options of its own",
)


@pytest.fixture(scope="module")
def server(tls_server: TlsPostgres) -> Iterator[TlsPostgres]:
    """The server, with PASSWORD as the service's password."""

    def set_password(password: str) -> None:
        with psycopg.connect(tls_server.superuser_url()) as connection:
            connection.execute(SQL("ALTER ROLE notes_svc PASSWORD {}").format(Literal(password)))

    set_password(PASSWORD)
    yield tls_server
    set_password(tls_server.passwords.password_of("notes_svc"))


@pytest.fixture(scope="module")
def facts(server: TlsPostgres, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, object]:
    """The values for the placeholders of a form."""
    folder = tmp_path_factory.mktemp("files")
    return {
        "port": server.port,
        "dead": free_port(),
        "password": quote(PASSWORD, safe=""),
        "quoted": "'" + PASSWORD.replace("\\", "\\\\").replace("'", "\\'") + "'",
        "sockets": quote(str(server.sockets), safe=""),
        "passfile": quote(str(_pass_file(folder / "pgpass")), safe=""),
        "servicefile": _service_file(folder / "services", port=server.port),
        "ca": quote(str(server.certificates.authority), safe=""),
        "client": quote(str(server.certificates.folder / "client"), safe=""),
    }


def _pass_file(path: Path) -> Path:
    escaped = PASSWORD.replace("\\", "\\\\").replace(":", "\\:")
    path.write_text(f"*:*:notes:notes_svc:{escaped}\n")
    path.chmod(0o600)
    return path


def _service_file(path: Path, *, port: int) -> Path:
    values = {"host": "127.0.0.1", "port": port, "dbname": "notes", "user": "notes_svc", "password": PASSWORD}
    path.write_text("\n".join(["[shop]", *(f"{name}={value}" for name, value in values.items())]))
    return path


SESSION = "SELECT current_user, current_database(), current_setting('statement_timeout'), 'é'"


def ask(connection: Connection) -> Any:
    return tuple(connection.exec_driver_sql(SESSION).one())


@pytest.mark.parametrize("form", cases(FORMS, everyday=EVERYDAY))
async def test_each_form_of_url_leads_threads_loop_and_migrations_to_the_database(
    form: str, facts: Mapping[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGSERVICEFILE", str(facts["servicefile"]))
    if form == "IPv6" and not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    settings = database_settings(FORMS[form].format_map(facts), statement_timeout_s=4)
    database = Database(settings, name="test")

    read, written = await database.fetch(SESSION), await database.fetch_for_write(SESSION)
    in_threads = [await database.read(ask), await database.transaction(ask)]
    await database.close()
    with connect_for_long(settings) as connection:
        migrating = connection.execute("SELECT current_user, current_database()").fetchone()

    assert [*read, *written, *in_threads] == [("notes_svc", "notes", "4s", "é")] * 4
    assert migrating == ("notes_svc", "notes")
