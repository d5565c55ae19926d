"""Domain errors: each names a reason of the contract, and each becomes a status in one place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest
import structlog
from google.rpc import error_details_pb2
from grpc import aio

from chassis import errors
from chassis.server.status import code_of, reject, status_of
from chassis.service import services
from tests.support.builders import a_call
from tests.support.domain_errors import ERRORS, an_error, name_of
from tests.support.reasons import REASONS

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from google.rpc.status_pb2 import Status

# No class has these: the edge answers them itself.
GIVEN_BY_THE_EDGE = {
    ("shop.system.v1", "ROUTE_NOT_FOUND"),
    ("shop.system.v1", "PAYLOAD_TOO_LARGE"),
    ("shop.system.v1", "UNSUPPORTED_MEDIA_TYPE"),
    ("shop.system.v1", "RATE_LIMITED"),
}
# Of its own: one that inherits its reason is the same to callers.
WITH_REASON = [kind for kind in ERRORS if "reason" in vars(kind)]


@pytest.mark.parametrize("kind", ERRORS, ids=name_of)
def test_an_error_has_a_reason_of_the_contract_and_its_code(kind: type[errors.DomainError]) -> None:
    assert code_of(an_error(kind)).name == REASONS[kind.domain, kind.reason].code


def test_every_reason_is_some_errors_or_the_edges() -> None:
    raised = {(kind.domain, kind.reason) for kind in WITH_REASON}

    assert REASONS.keys() - raised == GIVEN_BY_THE_EDGE, "raise it: a class in errors.py of the service"


def test_every_service_has_its_reasons_to_itself() -> None:
    owners = {"shop.system.v1": "chassis"}
    owners |= {served.rpartition(".")[0]: service.name for service in services() for served in service.serves}

    elsewhere = {name_of(kind) for kind in WITH_REASON if owners[kind.domain] != kind.__module__.partition(".")[0]}

    assert elsewhere == set()


def test_no_two_errors_have_the_same_reason() -> None:
    reasons = [(kind.domain, kind.reason) for kind in WITH_REASON]

    assert len(reasons) == len(set(reasons))


class OfNoKind(errors.DomainError):
    reason = "MADE_UP"


def test_an_error_that_is_not_a_domain_error_is_internal() -> None:
    assert code_of(OfNoKind("message")) is grpc.StatusCode.INTERNAL


class OfTwoKinds(errors.Aborted, errors.InvalidArgument):
    reason = "MADE_UP"


def test_of_two_kinds_the_nearer_one_counts() -> None:
    assert code_of(OfTwoKinds("message")) is grpc.StatusCode.ABORTED


def detail(status: Status, kind: type[Message]) -> Any:
    """Return the status's one detail of this kind, or None."""
    found = [each for each in status.details if each.Is(kind.DESCRIPTOR)]
    if not found:
        return None
    (only,) = found
    message = kind()
    only.Unpack(message)
    return message


@pytest.mark.parametrize("error", [*map(an_error, ERRORS)], ids=lambda error: name_of(type(error)))
def test_a_status_has_the_code_the_message_and_the_reason_as_its_first_detail(error: errors.DomainError) -> None:
    status = status_of(error)

    assert status.details[0].Is(error_details_pb2.ErrorInfo.DESCRIPTOR)
    told = detail(status, error_details_pb2.ErrorInfo)
    assert (told.reason, told.domain, dict(told.metadata)) == (error.reason, error.domain, error.metadata)
    assert (status.code, status.message) == (code_of(error).value[0], error.message)


@pytest.mark.parametrize("error", [*map(an_error, ERRORS)], ids=lambda error: name_of(type(error)))
def test_a_status_names_every_wrong_field(error: errors.DomainError) -> None:
    bad_request = detail(status_of(error), error_details_pb2.BadRequest)

    told = [] if bad_request is None else [(each.field, each.reason) for each in bad_request.field_violations]
    assert told == [(each.field, each.rule) for each in error.violations]


@pytest.mark.parametrize("error", [*map(an_error, ERRORS)], ids=lambda error: name_of(type(error)))
def test_a_status_says_when_to_try_again_if_that_is_worth_it(error: errors.DomainError) -> None:
    retry = detail(status_of(error), error_details_pb2.RetryInfo)

    told_s = None if retry is None else retry.retry_delay.ToNanoseconds() / 1e9
    assert told_s == error.retry_after_s
    assert (told_s is not None) == ("RetryInfo" in REASONS[error.domain, error.reason].text)
    assert told_s is not None or not isinstance(error, errors.Unavailable)


@pytest.mark.parametrize("error", [*map(an_error, ERRORS)], ids=lambda error: name_of(type(error)))
def test_a_failed_precondition_names_itself(error: errors.DomainError) -> None:
    failure = detail(status_of(error), error_details_pb2.PreconditionFailure)

    told = [] if failure is None else [each.type for each in failure.violations]
    assert told == ([error.reason] if isinstance(error, errors.FailedPrecondition) else [])


def test_invalid_fields_are_named_in_the_message_too() -> None:
    wrong = [errors.FieldViolation("email", "must be short"), errors.FieldViolation("", "must not be empty")]

    message = errors.InvalidFields(wrong).message

    assert message == "Correct these fields: email: must be short; request: must not be empty"


def test_a_missing_role_is_named_in_one_order() -> None:
    error = errors.RoleRequired({"SUPPORT", "ADMIN"})

    assert error.metadata == {"roles": "ADMIN,SUPPORT"}
    assert error.message == "This takes one of the roles ADMIN, SUPPORT."


def test_a_refusal_that_no_role_would_lift_names_no_role() -> None:
    error = errors.RoleRequired([])

    assert (error.metadata, error.message) == ({"roles": ""}, "Only the user may do this.")


class Aborting:
    """The part of grpc.aio's context that reject() uses: abort(), which ends the call by raising."""

    def __init__(self) -> None:
        self.code = grpc.StatusCode.OK
        self.message = ""
        self.trailer: dict[str, Any] = {}

    async def abort(self, code: grpc.StatusCode, message: str, trailer: tuple[tuple[str, Any], ...]) -> None:
        self.code, self.message, self.trailer = code, message, dict(trailer)
        raise aio.AbortError


async def answered(error: Exception) -> Aborting:
    context: Any = Aborting()
    with pytest.raises(aio.AbortError):
        await reject(error, context, a_call())
    answer: Aborting = context
    return answer


class Busy(errors.Unavailable):
    reason = "MADE_UP"


@pytest.mark.parametrize(("retry_after_s", "header"), [(0.1, "1"), (1, "1"), (12.5, "13"), (60, "60")])
async def test_retry_after_is_in_whole_seconds_and_never_too_early(retry_after_s: float, header: str) -> None:
    answer = await answered(Busy("message", retry_after_s=retry_after_s))

    assert answer.trailer["retry-after"] == header
    # Negative: a gRPC client that retries by itself must not do so before the time that we have just named.
    assert answer.trailer["grpc-retry-pushback-ms"] == "-1"


async def test_the_details_travel_in_the_trailer() -> None:
    error = errors.EtagMismatch(current="v2")

    answer = await answered(error)

    assert (answer.code, answer.message) == (grpc.StatusCode.ABORTED, error.message)
    assert answer.trailer == {"grpc-status-details-bin": status_of(error).SerializeToString()}


async def test_a_defect_is_logged_whole_and_answered_with_a_fixed_sentence() -> None:
    defect = RuntimeError("SELECT secret FROM users -- /srv/made_up/repository.py")

    with structlog.testing.capture_logs() as logged:
        answer = await answered(defect)

    assert answer.code is grpc.StatusCode.INTERNAL
    told = answer.message + repr(answer.trailer)
    assert "INTERNAL" in told
    assert not [word for word in ("secret", "SELECT", "/srv", "RuntimeError") if word in told]
    assert [(each["event"], each["exc_info"]) for each in logged] == [("rpc.defect", defect)]


async def test_a_refusal_is_not_logged_as_a_defect() -> None:
    with structlog.testing.capture_logs() as logged:
        await answered(errors.InvalidPageToken())

    assert logged == []


async def test_the_call_knows_how_it_was_answered() -> None:
    call = a_call()
    context: Any = Aborting()

    with pytest.raises(aio.AbortError):
        await reject(errors.EtagMismatch(current="v2"), context, call)

    assert (call.code, call.reason) == ("ABORTED", "ETAG_MISMATCH")
