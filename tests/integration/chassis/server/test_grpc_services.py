"""gRPC's own services, health and reflection: no call to them is a defect of the replica, whatever its caller sends."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

import pytest
from grpc import StatusCode
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from structlog.testing import capture_logs

from chassis.telemetry.metrics import REGISTRY
from chassis.testing import server_settings
from tests.integration.chassis.notes import notes_service
from tests.integration.http2 import caller_of, frame
from tests.integration.inprocess import database_settings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from google.protobuf.message import Message

    from tests.integration.databases import TestDatabase
    from tests.integration.http2 import Answer

CHECK: Final = "/grpc.health.v1.Health/Check"
WATCH: Final = "/grpc.health.v1.Health/Watch"
REFLECTION: Final = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
INVALID_ARGUMENT: Final[int] = StatusCode.INVALID_ARGUMENT.value[0]
NOT_FOUND: Final[int] = StatusCode.NOT_FOUND.value[0]

Ask = reflection_pb2.ServerReflectionRequest
MISSING: Final[dict[str, tuple[str, Message, int]]] = {
    "health of a service": (CHECK, health_pb2.HealthCheckRequest(service="nope"), NOT_FOUND),
    "health for ever": (WATCH, health_pb2.HealthCheckRequest(service="nope"), StatusCode.OK.value[0]),
    "nothing": (REFLECTION, Ask(), StatusCode.OK.value[0]),
    "a file": (REFLECTION, Ask(file_by_filename="nope.proto"), StatusCode.OK.value[0]),
    "a symbol": (REFLECTION, Ask(file_containing_symbol="a" * 1000), StatusCode.OK.value[0]),
    "an extension": (
        REFLECTION,
        Ask(file_containing_extension={"containing_type": "nope", "extension_number": -1}),
        StatusCode.OK.value[0],
    ),
    "an extension of what has none": (
        REFLECTION,
        Ask(file_containing_extension={"containing_type": "shop.system.v1.Health", "extension_number": 1}),
        StatusCode.OK.value[0],
    ),
    "extensions": (REFLECTION, Ask(all_extension_numbers_of_type="nope"), StatusCode.OK.value[0]),
}


@pytest.mark.parametrize(("method", "question", "code"), MISSING.values(), ids=MISSING)
async def test_a_question_about_what_is_not_here_is_no_defect(
    replica: Replica, *, method: str, question: Message, code: int
) -> None:
    # Health/Watch has no end of its own: its deadline ends it.
    headers = [("grpc-timeout", "200m")] if method == WATCH else []

    answer = await replica.ask(method, question.SerializeToString(), headers=headers)

    assert method == WATCH or answer.code == code
    assert replica.errors() == []


@pytest.mark.parametrize("method", [CHECK, WATCH, REFLECTION])
@pytest.mark.parametrize("message", [b"\xff\xff", b"\x0a\x05ab", b"\x00", b"\x0a\x01\xff"])
async def test_bytes_that_are_no_message_are_refused_as_of_any_method(
    replica: Replica, *, method: str, message: bytes
) -> None:
    answer = await replica.ask(method, message)

    assert (answer.code, answer.reason) == (INVALID_ARGUMENT, "MALFORMED_REQUEST")
    assert replica.errors() == []


async def test_a_health_check_is_counted_and_logged_under_the_code_of_its_answer(replica: Replica) -> None:
    before = checks_counted("NOT_FOUND")

    await replica.ask(CHECK, health_pb2.HealthCheckRequest(service="nope").SerializeToString())

    assert checks_counted("NOT_FOUND") - before == 1
    assert [line["code"] for line in replica.lines if line["event"] == "rpc.handled"] == ["NOT_FOUND"]


class Replica:
    """A replica that answers one call and stops, so that everything that it logs about the call is logged."""

    def __init__(self, database: TestDatabase, records: pytest.LogCaptureFixture) -> None:
        self._database = database_settings(database.url)
        self._records = records
        self.lines: Sequence[Mapping[str, Any]] = ()

    async def ask(self, method: str, message: bytes, *, headers: Sequence[tuple[str, str]] = ()) -> Answer:
        with capture_logs() as self.lines:
            server = server_settings(grpc_reflection=True)
            async with notes_service(self._database, server=server) as address, caller_of(address) as caller:
                return await caller.call(method, frame(message), headers=headers)

    def errors(self) -> list[object]:
        """Return what was logged at level error: by us, and by gRPC."""
        ours = [line for line in self.lines if line["log_level"] == "error"]
        return [*ours, *(each.getMessage() for each in self._records.records if each.levelno >= logging.ERROR)]


@pytest.fixture
def replica(notes_database: TestDatabase, caplog: pytest.LogCaptureFixture) -> Replica:
    return Replica(notes_database, caplog)


def checks_counted(code: str) -> float:
    labels = {"rpc_method": CHECK[1:], "rpc_response_status_code": code, "rpc_system_name": "grpc", "error_type": ""}
    return REGISTRY.get_sample_value("rpc_server_call_duration_seconds_count", labels) or 0
