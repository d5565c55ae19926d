"""Which `DATABASE_URL` is refused, in one line without a part of it; which ones work is tried on a real server."""

from __future__ import annotations

import re

import pytest

from chassis.database.settings import DatabaseSettings
from chassis.database.url import DatabaseUrl
from chassis.settings import load

SECRET = "hunter2"

REFUSED = [
    ("", "must be set"),
    (SECRET, "must look like postgresql://"),
    (f"'postgresql://u:{SECRET}@h/users'", "must not be in quotes"),
    (f'"postgresql://u:{SECRET}@h/users"', "must not be in quotes"),
    # Other databases and other drivers' words.
    (f"mysql://u:{SECRET}@h/users", "must look like postgresql://"),
    (f"jdbc:postgresql://h/users?user=u&password={SECRET}", "must look like postgresql://"),
    (f"jdbc:postgresql://h:5432/users;password={SECRET}", "must look like postgresql://"),
    (f"prisma+postgres://u:{SECRET}@h/users", "must look like postgresql://"),
    (f"Server=h;Database=users;User Id=u;Password={SECRET}", "has a parameter that .* remove it"),
    (f"postgresql://u:{SECRET}@h/users?pgbouncer=true", "parameter pgbouncer: write nothing"),
    (f"postgresql://u:{SECRET}@h/users?ssl=require", "parameter ssl: write sslmode=require"),
    (f"postgresql://u:{SECRET}@h/users?schema=app", "parameter schema: write options="),
    (f"postgresql://h/users?user=u&currentSchema={SECRET}", "parameter currentSchema: write options="),
    (f"postgresql://u:{SECRET}@h/users?connection_limit=1", "parameter connection_limit: write DATABASE_POOL_SIZE"),
    (f"postgresql://u:{SECRET}@h/users?targetServerType=primary", "write target_session_attrs=read-write"),
    (f"postgresql://u:{SECRET}@h/users?reWriteBatchedInserts=true", "has a parameter that .* remove it"),
    (f"host=h dbname=users {SECRET}=1", "has a parameter that .* remove it"),
    # Passwords whose characters mean something else.
    (f"postgresql://u:p@{SECRET}@h/users", "percent-encode @"),
    (f"postgresql://u:p/{SECRET}@h/users", "percent-encode : and /"),
    (f"postgresql://u:5432/{SECRET}@h/users", "percent-encode /"),
    (f"postgresql://u:p%{SECRET}@h/users", "cannot be read"),
    (f"postgresql://u:p@,{SECRET}@h/users", "percent-encode @"),
    # Half an address.
    (f"postgresql://u:{SECRET}@h", "names no database"),
    (f"postgresql://u:{SECRET}@h/", "names no database"),
    (f"postgresql://u:{SECRET}@/users", "names no host"),
    (f"user=u password={SECRET} dbname=users", "names no host"),
    (f"postgresql://u:{SECRET}@h,/users", "a host that is none"),
    (f"postgresql://u:{SECRET}@h:99999/users", "a port that is none"),
    (f"postgresql://u:{SECRET}@h:0/users", "a port that is none"),
    (f"host=a,b port=1,2,3 user=u password={SECRET} dbname=users", "one port for all hosts"),
    (f"postgresql://u:{SECRET}@[::1/users", "cannot be read"),
    # Files that are not mounted.
    *(
        (f"postgresql://u:{SECRET}@h/users?{name}=/{SECRET}", f"parameter {name} names a file that uid .* cannot read")
        for name in ("sslrootcert", "sslcert", "sslkey", "sslcrl", "passfile")
    ),
    # Values that libpq does not know, and servers that a service has no use for.
    (f"postgresql://u:{SECRET}@h/users?sslmode=verify_full", "parameter sslmode has a value"),
    (f"postgresql://u:{SECRET}@h/users?sslmode=require&sslrootcert=system", "sslmode=verify-full"),
    (f"postgresql://u:{SECRET}@h/users?channel_binding=yes", "parameter channel_binding has a value"),
    (f"postgresql://u:{SECRET}@h,i/users?load_balance_hosts=yes", "parameter load_balance_hosts has a value"),
    (f"postgresql://u:{SECRET}@h/users?ssl_min_protocol_version=1", "parameter ssl_min_protocol_version has a value"),
    (f"postgresql://u:{SECRET}@h,i/users?target_session_attrs=writer", "parameter target_session_attrs has a value"),
    (f"postgresql://u:{SECRET}@h,i/users?target_session_attrs=prefer-standby", "must be read-write or primary"),
    (f"postgresql://u:{SECRET}@h,i/users?target_session_attrs=read-only", "must be read-write or primary"),
]


@pytest.mark.parametrize(("url", "why"), REFUSED)
def test_a_url_that_cannot_be_used_is_refused_in_one_line_without_a_part_of_it(
    url: str, why: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", url)

    with pytest.raises(SystemExit) as stopped:
        load(DatabaseSettings)

    assert stopped.value.code == 1
    [line] = capsys.readouterr().err.splitlines()
    assert re.match(f"DATABASE_URL: .*{why}", line)
    assert SECRET not in line


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("postgresql://u@h/users", None),
        ("postgresql://u@h1,h2/users", "read-write"),
        ("postgresql://u@h1:5432,h2:5433/users?target_session_attrs=primary", "primary"),
        ("host=h1,h2 dbname=users", "read-write"),
        ("hostaddr=10.0.0.1,10.0.0.2 dbname=users", "read-write"),
    ],
)
def test_of_several_hosts_the_one_that_takes_writes_is_wanted(url: str, wanted: str | None) -> None:
    assert DatabaseUrl.parse(url).parameters.get("target_session_attrs") == wanted


def test_a_url_shows_no_password() -> None:
    url = DatabaseUrl.parse(f"postgresql://u:{SECRET}@h/users?sslpassword={SECRET}")

    assert repr(url) == str(url) == "DatabaseUrl(h/users)"
    assert SECRET not in repr(DatabaseSettings(url=url))
