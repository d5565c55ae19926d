"""A service's log: JSON lines, one for each call, without personal data."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from typing import TYPE_CHECKING

from chassis.testing import new_uuid, plain_channel, refusal_of
from tests.integration.inprocess import NOTES, NOTES_PACKAGE
from tests.integration.replica import REPOSITORY, serving_process
from tests.support.notes_svc import notes_pb2 as pb
from tests.support.notes_svc.notes_pb2_grpc import NoteServiceStub
from tests.support.notes_svc.requests import an_update, create_note_request

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.databases import TestDatabase


async def test_a_call_is_one_line_with_its_method_code_and_request_id(
    notes_database: TestDatabase, tmp_path: Path
) -> None:
    nobody, request_id = new_uuid(), new_uuid()
    async with (
        serving_process(NOTES_PACKAGE, tmp_path, DATABASE_URL=notes_database.url, SERVICE_VERSION="1.2.3") as replica,
        plain_channel(replica.address) as channel,
    ):
        notes = NoteServiceStub(channel)
        metadata = (("x-request-id", request_id),)
        await notes.CreateNote(create_note_request(), metadata=metadata)
        await refusal_of(notes.GetNote(pb.GetNoteRequest(id=nobody), metadata=metadata))
        await refusal_of(channel.unary_unary("/notes.v1.NoteService/GetNote")(b"\xff", metadata=metadata))
        replica.process.terminate()
        await replica.exit_code(within_s=10)

    lines = [line for line in replica.log("rpc.handled") if "grpc.health" not in line["method"]]
    assert [(line["method"].rpartition("/")[2], line["code"], line.get("reason")) for line in lines] == [
        ("CreateNote", "OK", None),
        ("GetNote", "NOT_FOUND", "NOTE_NOT_FOUND"),
        ("GetNote", "INVALID_ARGUMENT", "MALFORMED_REQUEST"),
    ]
    for line in lines:
        assert (line["request_id"], line["service"], line["version"]) == (request_id, NOTES, "1.2.3")
        assert line["duration_ms"] > 0
        assert line["timestamp"].endswith("Z")


async def test_every_line_is_json(notes_database: TestDatabase, tmp_path: Path) -> None:
    async with serving_process(NOTES_PACKAGE, tmp_path, DATABASE_URL=notes_database.url) as replica:
        replica.process.terminate()
        await replica.exit_code(within_s=10)

    lines = [json.loads(line) for line in replica.output().splitlines()]
    assert {"server.started", "server.draining", "server.stopped"} <= {line["event"] for line in lines}


async def test_a_defect_shows_no_text_of_a_caller(notes_copy: TestDatabase, tmp_path: Path) -> None:
    async with (
        serving_process(NOTES_PACKAGE, tmp_path, DATABASE_URL=notes_copy.url, LOG_LEVEL="DEBUG") as replica,
        plain_channel(replica.address) as channel,
    ):
        notes = NoteServiceStub(channel)
        note = await notes.CreateNote(create_note_request(text="canary"))
        await refusal_of(notes.UpdateNote(an_update(note.id, "canary " * 5000)))
        # A defect, whose whole cause is logged.
        notes_copy.query("DROP TABLE outbox")
        await refusal_of(notes.UpdateNote(an_update(note.id, "another canary")))
        replica.process.terminate()
        await replica.exit_code(within_s=10)

    assert len(replica.log("rpc.defect")) == 1
    assert "canary" not in replica.output().lower()
    assert notes_copy.url not in replica.output()


def test_on_a_terminal_lines_are_for_people() -> None:
    shown, terminal = pty.openpty()
    script = (
        "import structlog; from chassis import telemetry; from chassis.telemetry.settings import TelemetrySettings\n"
        "with telemetry.running(TelemetrySettings(service_name='x'), command='serve'): "
        "structlog.get_logger().info('said', number=7)"
    )
    env = {**os.environ, "TERM": "xterm"}
    subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, env=env, stdout=terminal, check=True, timeout=60)
    os.close(terminal)
    line = os.read(shown, 65536)
    os.close(shown)

    assert b"\x1b[" in line
    assert b"said" in line
    assert not line.lstrip().startswith(b"{")
