"""Each command of a service checks the database's certificate, with nothing in its environment but its settings."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

import psycopg
import pytest

from chassis.database import migrations
from chassis.database.url import STORES
from chassis.testing import LOOPBACK, until
from devstack.certificates import Certificates
from tests.integration.inprocess import NOTES_PACKAGE, TEST_KEY, database_settings
from tests.integration.replica import REPOSITORY
from tests.support.database_cases import cases
from tests.support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.tls_postgres import TlsPostgres

# In a mount namespace of its own the authority takes the place of the public ones, where the images have them.
IN_STORE: Final = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'
ROOTS: Final = ("a file", "the system's store")
WORKERS: Final = ("serve", "worker")


@pytest.fixture(scope="module")
def server(tls_server: TlsPostgres) -> TlsPostgres:
    """The server, with the tables of the notes service."""
    migrations.upgrade(NOTES_PACKAGE, database_settings(tls_server.url("notes", role="notes_svc")))
    return tls_server


def url(server: TlsPostgres, root: str) -> str:
    own = server.url("notes", role="notes_svc").replace(LOOPBACK, "localhost")
    file = "system" if root == "the system's store" else server.certificates.authority
    return f"{own}?sslmode=verify-full&sslrootcert={file}"


def command(word: str, *, root: str, authority: Path) -> list[str]:
    """Return a command that finds the authority where the root says."""
    own = [sys.executable, "-m", NOTES_PACKAGE, word]
    if root != "the system's store":
        return own
    store = next((path for path in STORES if path.exists()), None)
    unshare = [shutil.which("unshare") or "unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    if store is None or subprocess.run([*unshare, "true"], check=False, capture_output=True).returncode:
        pytest.skip("unshare or the public authorities are missing: apt-get install util-linux ca-certificates")
    return [*unshare, "sh", "-c", IN_STORE, "sh", str(authority), str(store), *own]


def environment(url: str, **more: str) -> dict[str, str]:
    """Return what `env -i` would leave, and the settings that a service must have."""
    return {
        "PATH": os.defpath,
        "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'generated'}",
        "DATABASE_URL": url,
        "NOTES_PUBLIC_KEY": TEST_KEY,
        "HOST": LOOPBACK,
        **more,
    }


def migrate(url: str, *, root: str, authority: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command("migrate", root=root, authority=authority),
        cwd=REPOSITORY,
        env=environment(url),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def are_encrypted(server: TlsPostgres) -> list[bool]:
    """Return of each session of the service whether it is encrypted."""
    with psycopg.connect(server.superuser_url()) as connection:
        query = "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = 'notes_svc'"
        return [bool(row[0]) for row in connection.execute(query)]


@contextlib.contextmanager
def running(arguments: list[str], log: Path, **settings: Any) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(arguments, stdout=output, stderr=subprocess.STDOUT, **settings)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("root", cases(ROOTS, everyday=ROOTS[1:]))
def test_migrations_trust_the_authority(server: TlsPostgres, root: str) -> None:
    migrated = migrate(url(server, root), root=root, authority=server.certificates.authority)

    assert (migrated.returncode, migrated.stderr) == (0, "")


@pytest.mark.parametrize("root", cases(ROOTS, everyday=ROOTS[1:]))
def test_migrations_trust_no_other_authority(server: TlsPostgres, root: str, tmp_path: Path) -> None:
    strangers = Certificates(tmp_path / "strangers")
    strangers.prepare()
    own = url(server, root).replace(str(server.certificates.authority), str(strangers.authority))

    refused = migrate(own, root=root, authority=strangers.authority)

    assert refused.returncode == 1
    assert "certificate verify failed" in refused.stderr


@pytest.mark.parametrize(
    ("word", "root"),
    cases([(word, root) for word in WORKERS for root in ROOTS], everyday=[("serve", "the system's store")]),
)
async def test_services_and_workers_trust_the_authority(
    server: TlsPostgres, redis_url: str, word: str, root: str, tmp_path: Path
) -> None:
    authority = server.certificates.authority
    env = environment(url(server, root), PORT=str(free_port()), REDIS_URL=redis_url)
    log = tmp_path / "log"

    with running(command(word, root=root, authority=authority), log, cwd=REPOSITORY, env=env) as process:

        async def has_sessions() -> bool:
            assert process.poll() is None, log.read_text()
            return bool(await asyncio.to_thread(are_encrypted, server))

        await until(has_sessions, timeout_s=30)
        assert all(are_encrypted(server)), log.read_text()

    async def has_none() -> bool:
        return not await asyncio.to_thread(are_encrypted, server)

    await until(has_none)
