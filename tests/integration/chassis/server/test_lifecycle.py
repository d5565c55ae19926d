"""`serve` and `migrate`: a replica's start and stop, and the message if it cannot start."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from grpc import StatusCode, aio
from shop.system.v1 import system_service_pb2
from shop.system.v1.system_service_pb2_grpc import SystemServiceStub

from chassis.database import locks
from chassis.service import services
from chassis.testing import LOOPBACK, new_uuid, plain_channel, refusal_of, until
from tests.integration.databases import read_only
from tests.integration.inprocess import NOTES_PACKAGE
from tests.integration.replica import NOT_SERVING, REPOSITORY, environment, run, serving_process
from tests.support import waiting
from tests.support.notes_svc import notes_pb2 as pb
from tests.support.notes_svc.notes_pb2_grpc import NoteServiceStub
from tests.support.notes_svc.requests import an_update, create_note_request

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.databases import TestDatabase

NO_DATABASE = f"postgresql://nobody:wrong@{LOOPBACK}:1/none"

# Ending takes a moment; this is for a machine that is busy with other things, and still far below the 30 s allowed.
MARGIN_S = 10


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_stopping_replica_reports_not_serving_and_serves_until_its_drain_is_over(
    notes_database: TestDatabase, tmp_path: Path, number: signal.Signals
) -> None:
    async with (
        serving_process(NOTES_PACKAGE, tmp_path, DATABASE_URL=notes_database.url, DRAIN_S="1") as replica,
        plain_channel(replica.address) as channel,
    ):
        notes = NoteServiceStub(channel)
        note = await notes.CreateNote(create_note_request())

        replica.process.send_signal(number)
        told = time.monotonic()
        await replica.until_health(NOT_SERVING)
        assert await notes.GetNote(pb.GetNoteRequest(id=note.id)) == note
        health = await SystemServiceStub(channel).GetHealth(system_service_pb2.GetHealthRequest())
        exit_code = await replica.exit_code(within_s=1 + MARGIN_S)
        took_s = time.monotonic() - told

    assert health.status == system_service_pb2.HEALTH_STATUS_DRAINING
    assert exit_code == 0
    assert took_s >= 1
    for event in ("server.started", "server.draining", "server.stopped"):
        assert len(replica.log(event)) == 1


async def test_a_call_that_is_under_way_is_finished(notes_database: TestDatabase, tmp_path: Path) -> None:
    settings = {
        "DATABASE_URL": notes_database.url,
        "DATABASE_LOCK_TIMEOUT_S": "10",
        "DATABASE_STATEMENT_TIMEOUT_S": "10",
    }
    async with (
        serving_process(NOTES_PACKAGE, tmp_path, **settings) as replica,
        plain_channel(replica.address) as channel,
    ):
        notes = NoteServiceStub(channel)
        note = await notes.CreateNote(create_note_request())
        with notes_database.locked("SELECT 1 FROM notes FOR UPDATE"):
            update = asyncio.ensure_future(notes.UpdateNote(an_update(note.id)))
            await notes_database.until_waiting()
            replica.process.terminate()
            await until(lambda: asyncio.to_thread(is_closed, replica.address))

        answer = await update
        exit_code = await replica.exit_code(within_s=MARGIN_S)

    assert answer.text == "Buy coffee"
    assert exit_code == 0


async def test_a_call_that_takes_too_long_does_not_keep_a_replica(notes_database: TestDatabase, tmp_path: Path) -> None:
    settings = {"DATABASE_URL": notes_database.url, "DATABASE_LOCK_TIMEOUT_S": "2", "STOP_GRACE_S": "0.2"}
    async with (
        serving_process(NOTES_PACKAGE, tmp_path, **settings) as replica,
        plain_channel(replica.address) as channel,
    ):
        notes = NoteServiceStub(channel)
        note = await notes.CreateNote(create_note_request())
        with notes_database.locked("SELECT 1 FROM notes FOR UPDATE"):
            update = asyncio.ensure_future(notes.UpdateNote(an_update(note.id)))
            await notes_database.until_waiting()
            replica.process.terminate()
            with pytest.raises(aio.AioRpcError) as failure:
                await update
            exit_code = await replica.exit_code(within_s=2 + MARGIN_S)

    assert failure.value.code() in {StatusCode.UNAVAILABLE, StatusCode.CANCELLED}
    assert exit_code == 0


async def test_a_second_signal_changes_nothing(notes_database: TestDatabase, tmp_path: Path) -> None:
    async with serving_process(NOTES_PACKAGE, tmp_path, DATABASE_URL=notes_database.url, DRAIN_S="1") as replica:
        replica.process.terminate()
        await replica.until_health(NOT_SERVING)
        replica.process.send_signal(signal.SIGINT)

        assert await replica.exit_code(within_s=1 + MARGIN_S) == 0


async def test_a_replica_without_a_database_serves_and_says_why_it_cannot(tmp_path: Path) -> None:
    async with (
        serving_process(NOTES_PACKAGE, tmp_path, DATABASE_URL=NO_DATABASE) as replica,
        plain_channel(replica.address) as channel,
    ):
        refusal = await refusal_of(NoteServiceStub(channel).GetNote(pb.GetNoteRequest(id=new_uuid())))
        replica.process.terminate()
        exit_code = await replica.exit_code(within_s=MARGIN_S)

    assert (refusal.code, refusal.reason) == (StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE")
    assert exit_code == 0


def test_a_taken_port_is_one_clear_line() -> None:
    with socket.create_server((LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]

        ended = run(NOTES_PACKAGE, "serve", DATABASE_URL=NO_DATABASE, PORT=str(port))

    assert ended.returncode == 1
    assert (ended.stdout, ended.stderr) == ("", f"{LOOPBACK}:{port} is taken. Set PORT to a free one.\n")


def test_a_taken_port_of_health_checks_is_named() -> None:
    with socket.create_server((LOOPBACK, 0)) as taken, socket.create_server((LOOPBACK, 0)) as other:
        port, free = taken.getsockname()[1], other.getsockname()[1]
        other.close()

        ended = run(NOTES_PACKAGE, "serve", DATABASE_URL=NO_DATABASE, PORT=str(free), HEALTH_PORT=str(port))

    assert ended.returncode == 1
    assert ended.stderr == f"{LOOPBACK}:{port} is taken. Set HEALTH_PORT to a free one.\n"


@pytest.mark.parametrize("host", ["192.0.2.1", "nowhere.invalid", "[2001:db8::1]"])
def test_an_address_of_another_machine_is_one_clear_line(host: str) -> None:
    ended = run(NOTES_PACKAGE, "serve", DATABASE_URL=NO_DATABASE, HOST=host)

    assert (ended.returncode, ended.stdout) == (1, "")
    assert re.fullmatch(rf"{re.escape(host)}:50051 cannot be listened on: .+\. Set HOST and PORT\.\n", ended.stderr)


@pytest.mark.parametrize("command", ["serve", "worker"])
def test_a_host_that_is_no_address_is_one_clear_line(command: str) -> None:
    redis = f"redis://{LOOPBACK}:1"
    ended = run(NOTES_PACKAGE, command, DATABASE_URL=NO_DATABASE, REDIS_URL=redis, HOST="*")

    said = "must be an address or a name of this machine: 0.0.0.0 is every address of IPv4, :: of both families"
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", f"HOST: {said}\n")


@pytest.mark.parametrize("command", ["serve", "worker"])
@pytest.mark.parametrize("folder", ["/proc/nowhere", "/dev/null"])
def test_a_folder_of_logs_that_cannot_be_written_is_one_clear_line(command: str, folder: str) -> None:
    redis = f"redis://{LOOPBACK}:1"
    ended = run(NOTES_PACKAGE, command, DATABASE_URL=NO_DATABASE, REDIS_URL=redis, LOG_DIR=folder)

    assert (ended.returncode, ended.stdout) == (1, "")
    assert re.fullmatch(rf"LOG_DIR: {folder}\S* cannot be written: .+\.\n", ended.stderr)


def test_a_variable_of_the_exporter_that_makes_no_sense_is_one_clear_line() -> None:
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{LOOPBACK}:1", "OTEL_EXPORTER_OTLP_TIMEOUT": "10s"}
    ended = run(NOTES_PACKAGE, "serve", DATABASE_URL=NO_DATABASE, **variables)

    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("A variable OTEL_EXPORTER_OTLP_… or OTEL_BSP_… makes no sense: ")
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize("command", ["serve", "migrate"])
def test_a_missing_setting_is_one_clear_line(command: str) -> None:
    ended = run(NOTES_PACKAGE, command)

    assert ended.returncode == 1
    assert (ended.stdout, ended.stderr) == ("", "DATABASE_URL: must be set\n")


def test_an_invalid_setting_is_named_without_its_value() -> None:
    ended = run(NOTES_PACKAGE, "serve", DATABASE_URL="canary://secret", PORT="0")

    assert ended.returncode == 1
    assert "canary" not in ended.stderr
    assert "secret" not in ended.stderr
    assert [line.partition(": ")[0] for line in ended.stderr.splitlines()] == ["PORT", "DATABASE_URL"]


def test_a_migration_without_a_database_is_one_clear_line() -> None:
    ended = run(NOTES_PACKAGE, "migrate", DATABASE_URL=NO_DATABASE)

    assert ended.returncode == 1
    assert ended.stderr.startswith("The database does not answer: ")
    assert "wrong" not in ended.stderr
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize("package", [*(service.name for service in services()), NOTES_PACKAGE])
def test_a_migration_can_be_run_again(empty_database: TestDatabase, package: str) -> None:
    first = run(package, "migrate", DATABASE_URL=empty_database.url)
    tables = tables_of(empty_database)

    second = run(package, "migrate", DATABASE_URL=empty_database.url)

    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert {"outbox", "idempotency_keys", "alembic_version"} < tables
    assert tables_of(empty_database) == tables


async def test_migrations_at_the_same_time_wait_for_one_another(empty_database: TestDatabase) -> None:
    def migrate() -> int:
        return run(NOTES_PACKAGE, "migrate", DATABASE_URL=empty_database.url).returncode

    exit_codes = await asyncio.gather(*(asyncio.to_thread(migrate) for _ in range(3)))

    assert exit_codes == [0, 0, 0]
    assert empty_database.query("SELECT count(*) FROM alembic_version") == [(1,)]


@pytest.mark.parametrize("package", [*(service.name for service in services()), NOTES_PACKAGE])
def test_code_that_went_back_leaves_a_newer_database_as_it_is(empty_database: TestDatabase, package: str) -> None:
    assert run(package, "migrate", DATABASE_URL=empty_database.url).returncode == 0
    empty_database.query("UPDATE alembic_version SET version_num = '9999'")
    tables = tables_of(empty_database)

    ended = run(package, "migrate", DATABASE_URL=empty_database.url)

    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == "The database is newer than this code, at 9999: nothing is changed\n"
    assert empty_database.query("SELECT version_num FROM alembic_version") == [("9999",)]
    assert tables_of(empty_database) == tables


def test_the_database_of_another_service_is_refused(empty_database: TestDatabase) -> None:
    names = [service.name for service in services()]
    first, *others = [*names, NOTES_PACKAGE]
    assert run(first, "migrate", DATABASE_URL=empty_database.url).returncode == 0
    tables = tables_of(empty_database)

    for other in others:
        ended = run(other, "migrate", DATABASE_URL=empty_database.url)

        assert ended.returncode == 1
        assert ended.stderr == (f"DATABASE_URL leads to the database of {first}, and {other} needs one of its own.\n")
    assert tables_of(empty_database) == tables


def test_a_migration_with_nothing_to_do_needs_no_rights(empty_database: TestDatabase) -> None:
    assert run(NOTES_PACKAGE, "migrate", DATABASE_URL=empty_database.url).returncode == 0
    with read_only(empty_database):
        again = run(NOTES_PACKAGE, "migrate", DATABASE_URL=empty_database.url)

    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")


def test_a_migration_that_waits_ends_by_itself_after_sigterm(empty_database: TestDatabase) -> None:
    # Of process 1 in a container the kernel drops a signal that has no handler.
    with empty_database.connect() as holder:
        holder.execute("SELECT pg_advisory_lock(%s)", (locks.MIGRATIONS,))
        migration = subprocess.Popen(
            [sys.executable, "-m", NOTES_PACKAGE, "migrate"],
            cwd=REPOSITORY,
            env=environment(DATABASE_URL=empty_database.url),
            stderr=subprocess.PIPE,
        )
        waiting.until(lambda: empty_database.query(_ASKING) == [(1,)], timeout_s=30)

        migration.terminate()
        _, errors = migration.communicate(timeout=MARGIN_S)

    assert (migration.returncode, errors) == (128 + signal.SIGTERM, b"")
    assert tables_of(empty_database) == set()


# The sessions of migrations that wait for their lock, which they ask for again and again.
_ASKING = """
    SELECT count(*)
    FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND query LIKE '%%pg_try_advisory_lock%%'
"""


def tables_of(database: TestDatabase) -> set[str]:
    return {table for (table,) in database.query("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}


def is_closed(address: str) -> bool:
    """Return whether connections to the address are refused."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except ConnectionRefusedError:
        return True
    return False
