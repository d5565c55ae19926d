"""Domain errors: each names a reason of the contract, and each becomes a status in one place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

import grpc
import pytest
import structlog
from google.rpc import error_details_pb2
from grpc import aio
from shop.order.v1 import error_reason_pb2 as order_reasons
from shop.system.v1 import error_reason_pb2 as system_reasons
from shop.user.v1 import error_reason_pb2 as user_reasons

import order_svc.errors
import user_svc.errors
from chassis import errors
from chassis.server.status import code_of, reject, status_of
from tests.support.builders import SOME_ID, a_call

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from google.rpc.status_pb2 import Status

ENUMS: dict[str, Any] = {
    "shop.system.v1": system_reasons.ErrorReason,
    "shop.user.v1": user_reasons.ErrorReason,
    "shop.order.v1": order_reasons.ErrorReason,
}
# No class has these: the edge answers them itself.
GIVEN_BY_THE_EDGE = {
    ("shop.system.v1", "ROUTE_NOT_FOUND"),
    ("shop.system.v1", "PAYLOAD_TOO_LARGE"),
    ("shop.system.v1", "UNSUPPORTED_MEDIA_TYPE"),
    ("shop.system.v1", "RATE_LIMITED"),
}
# The contract's table of errors.
CODES = {
    "INVALID_FIELDS": "INVALID_ARGUMENT",
    "INVALID_PAGE_TOKEN": "INVALID_ARGUMENT",
    "MALFORMED_REQUEST": "INVALID_ARGUMENT",
    "CURRENCY_MISMATCH": "INVALID_ARGUMENT",
    "AMOUNT_OUT_OF_RANGE": "INVALID_ARGUMENT",
    "REQUEST_ID_REUSED": "ALREADY_EXISTS",
    "ANSWER_ERASED": "ALREADY_EXISTS",
    "EMAIL_TAKEN": "ALREADY_EXISTS",
    "USER_NOT_FOUND": "NOT_FOUND",
    "ORDER_NOT_FOUND": "NOT_FOUND",
    "ETAG_MISMATCH": "ABORTED",
    "INVALID_STATUS_TRANSITION": "FAILED_PRECONDITION",
    "ORDERING_USER_NOT_FOUND": "FAILED_PRECONDITION",
    "USER_NOT_ACTIVE": "FAILED_PRECONDITION",
    "INVALID_CREDENTIALS": "UNAUTHENTICATED",
    "TOKEN_INVALID": "UNAUTHENTICATED",
    "TOKEN_EXPIRED": "UNAUTHENTICATED",
    "TOKEN_REUSED": "UNAUTHENTICATED",
    "ROLE_REQUIRED": "PERMISSION_DENIED",
    "TOO_MANY_ATTEMPTS": "RESOURCE_EXHAUSTED",
    "OVERLOADED": "RESOURCE_EXHAUSTED",
    "STREAM_TOO_SLOW": "RESOURCE_EXHAUSTED",
    "SERVER_STOPPING": "UNAVAILABLE",
    "RESUME_TOKEN_EXPIRED": "FAILED_PRECONDITION",
    "SERVICE_UNAVAILABLE": "UNAVAILABLE",
    "USER_SERVICE_UNAVAILABLE": "UNAVAILABLE",
    "DATABASE_UNAVAILABLE": "UNAVAILABLE",
    "DEADLINE_EXCEEDED": "DEADLINE_EXCEEDED",
    "INTERNAL": "INTERNAL",
}


def kinds_of(base: type[errors.DomainError]) -> list[type[errors.DomainError]]:
    return [kind for direct in base.__subclasses__() for kind in (direct, *kinds_of(direct))]


def is_ours(kind: type) -> bool:
    return kind.__module__.partition(".")[0] in {"chassis", "user_svc", "order_svc"}


WITH_REASON = sorted(
    # Of its own: one that inherits its reason is the same to callers.
    {kind for kind in kinds_of(errors.DomainError) if is_ours(kind) and "reason" in vars(kind)},
    key=lambda kind: (kind.domain, kind.reason),
)


def made(kind: type[errors.DomainError]) -> errors.DomainError:
    """Return an error of the kind without the facts that it is raised with."""
    error = kind.__new__(kind)
    errors.DomainError.__init__(error, "message")
    return error


@pytest.mark.parametrize("kind", WITH_REASON, ids=lambda kind: kind.__name__)
def test_an_errors_reason_is_in_the_enum_of_its_domain(kind: type[errors.DomainError]) -> None:
    assert f"ERROR_REASON_{kind.reason}" in ENUMS[kind.domain].keys()  # noqa: SIM118  an enum of protobuf


@pytest.mark.parametrize("kind", WITH_REASON, ids=lambda kind: kind.__name__)
def test_an_error_has_the_code_of_the_contract(kind: type[errors.DomainError]) -> None:
    assert code_of(made(kind)).name == CODES[kind.reason]


def test_every_reason_is_some_errors_or_the_edges() -> None:
    declared = {
        (domain, name.removeprefix("ERROR_REASON_"))
        for domain, enum in ENUMS.items()
        for name in enum.keys()  # noqa: SIM118  an enum of protobuf
        if name != "ERROR_REASON_UNSPECIFIED"
    }
    raised = {(kind.domain, kind.reason) for kind in WITH_REASON}

    assert declared - raised == GIVEN_BY_THE_EDGE
    assert raised <= declared


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


EVERY_ERROR = [
    errors.InvalidFields([errors.FieldViolation("items[0].quantity", "must be at least 1", "int32.gte")]),
    errors.InvalidPageToken(),
    errors.MalformedRequest(),
    errors.RequestIdReused(SOME_ID),
    errors.AnswerErased(SOME_ID),
    errors.EtagMismatch(current="v2"),
    errors.DatabaseUnavailable(),
    errors.DeadlineExceeded(),
    errors.TokenInvalid(),
    errors.TokenExpired(),
    errors.RoleRequired(["ADMIN", "SUPPORT"]),
    errors.KeysUnavailable(),
    user_svc.errors.UserNotFound(UUID(SOME_ID)),
    user_svc.errors.EmailTaken(),
    user_svc.errors.UserNotActive(UUID(SOME_ID)),
    user_svc.errors.InvalidCredentials(),
    user_svc.errors.TooManyAttempts(retry_after_s=4),
    user_svc.errors.TokenReused(),
    order_svc.errors.OrderNotFound(UUID(SOME_ID)),
    order_svc.errors.CurrencyMismatch("items[0].unitPrice.currencyCode", expected="EUR"),
    order_svc.errors.AmountOutOfRange("items", limit="1000"),
    order_svc.errors.UnknownCurrency("currencyCode", currency_code="ZZZ"),
    order_svc.errors.AmountTooFine(["items[0].unitPrice"], currency_code="JPY", minor_unit="1"),
    order_svc.errors.InvalidStatusTransition(UUID(SOME_ID), current="SHIPPED", wanted="PENDING", allowed=["DELIVERED"]),
    order_svc.errors.OrderingUserNotFound(UUID(SOME_ID)),
    order_svc.errors.UserNotActive(UUID(SOME_ID)),
    order_svc.errors.UserServiceUnavailable(retry_after_s=12.5),
]


def detail(status: Status, kind: type[Message]) -> Any:
    """Return the status's one detail of this kind, or None."""
    found = [each for each in status.details if each.Is(kind.DESCRIPTOR)]
    if not found:
        return None
    (only,) = found
    message = kind()
    only.Unpack(message)
    return message


@pytest.mark.parametrize("error", EVERY_ERROR, ids=lambda error: f"{error.domain}.{error.reason}")
def test_a_status_has_the_code_the_message_and_the_reason_as_its_first_detail(error: errors.DomainError) -> None:
    status = status_of(error)

    assert status.details[0].Is(error_details_pb2.ErrorInfo.DESCRIPTOR)
    told = detail(status, error_details_pb2.ErrorInfo)
    assert (told.reason, told.domain, dict(told.metadata)) == (error.reason, error.domain, error.metadata)
    assert (status.code, status.message) == (code_of(error).value[0], error.message)


@pytest.mark.parametrize("error", EVERY_ERROR, ids=lambda error: f"{error.domain}.{error.reason}")
def test_a_status_names_every_wrong_field(error: errors.DomainError) -> None:
    bad_request = detail(status_of(error), error_details_pb2.BadRequest)

    told = [] if bad_request is None else [(each.field, each.reason) for each in bad_request.field_violations]
    assert told == [(each.field, each.rule) for each in error.violations]


@pytest.mark.parametrize("error", EVERY_ERROR, ids=lambda error: f"{error.domain}.{error.reason}")
def test_a_status_says_when_to_try_again_if_that_is_worth_it(error: errors.DomainError) -> None:
    retry = detail(status_of(error), error_details_pb2.RetryInfo)

    told_s = None if retry is None else retry.retry_delay.ToNanoseconds() / 1e9
    assert told_s == error.retry_after_s
    assert (told_s is not None) == isinstance(error, (errors.Unavailable, errors.ResourceExhausted))


@pytest.mark.parametrize("error", EVERY_ERROR, ids=lambda error: f"{error.domain}.{error.reason}")
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


def test_a_transition_from_the_end_allows_nothing() -> None:
    error = order_svc.errors.InvalidStatusTransition(UUID(SOME_ID), current="DELIVERED", wanted="PENDING", allowed=[])

    assert error.metadata["allowed"] == ""
    assert "no longer" in error.message


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


@pytest.mark.parametrize(("retry_after_s", "header"), [(0.1, "1"), (1, "1"), (12.5, "13"), (60, "60")])
async def test_retry_after_is_in_whole_seconds_and_never_too_early(retry_after_s: float, header: str) -> None:
    answer = await answered(order_svc.errors.UserServiceUnavailable(retry_after_s=retry_after_s))

    assert answer.trailer["retry-after"] == header
    # Negative: a gRPC client that retries by itself must not do so before the time that we have just named.
    assert answer.trailer["grpc-retry-pushback-ms"] == "-1"


async def test_the_details_travel_in_the_trailer() -> None:
    error = errors.EtagMismatch(current="v2")

    answer = await answered(error)

    assert (answer.code, answer.message) == (grpc.StatusCode.ABORTED, error.message)
    assert answer.trailer == {"grpc-status-details-bin": status_of(error).SerializeToString()}


async def test_a_defect_is_logged_whole_and_answered_with_a_fixed_sentence() -> None:
    defect = RuntimeError("SELECT secret FROM users -- /srv/user_svc/repository.py")

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
        await reject(user_svc.errors.EmailTaken(), context, call)

    assert (call.code, call.reason) == ("ALREADY_EXISTS", "EMAIL_TAKEN")
