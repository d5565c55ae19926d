"""Maps domain errors to gRPC statuses; the only place that does.

A servicer raises a domain error, and the caller gets a `google.rpc.Status` that always holds an `ErrorInfo`. Any other
exception is a defect: it is logged with its traceback, and the caller gets a fixed sentence, so that no class name, SQL
or path reaches a caller.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NoReturn

import grpc
import structlog
from google.rpc import error_details_pb2, status_pb2

from chassis.errors import (
    Aborted,
    AlreadyExists,
    DeadlineExceeded,
    DomainError,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
)

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from grpc import aio

    from chassis.context import Call

log = structlog.get_logger(__name__)

_CODES: dict[type[DomainError], grpc.StatusCode] = {
    InvalidArgument: grpc.StatusCode.INVALID_ARGUMENT,
    NotFound: grpc.StatusCode.NOT_FOUND,
    AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    Aborted: grpc.StatusCode.ABORTED,
    FailedPrecondition: grpc.StatusCode.FAILED_PRECONDITION,
    PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    ResourceExhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    Unavailable: grpc.StatusCode.UNAVAILABLE,
    DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
}


_CHALLENGES: Final = {
    "TOKEN_INVALID": 'Bearer error="invalid_token"',
    "TOKEN_EXPIRED": 'Bearer error="invalid_token"',
    "ROLE_REQUIRED": 'Bearer error="insufficient_scope"',
}
"""The header `www-authenticate` (RFC 6750, 3.1) for a caller that sent a token, by reason. The edge adds the others."""


class _Internal(DomainError):
    reason = "INTERNAL"
    message = "The service has a defect. Report the request id; trying again may help."


def code_of(error: DomainError) -> grpc.StatusCode:
    """Return the status code of the error's nearest base class that has one; INTERNAL if none has."""
    return next((_CODES[kind] for kind in type(error).__mro__ if kind in _CODES), grpc.StatusCode.INTERNAL)


def status_of(error: DomainError) -> status_pb2.Status:
    """Return the error as callers see it, over gRPC and over REST."""
    status = status_pb2.Status(code=code_of(error).value[0], message=error.message)
    for detail in _details(error):
        status.details.add().Pack(detail)
    return status


def _details(error: DomainError) -> list[Message]:
    details: list[Message] = [
        error_details_pb2.ErrorInfo(reason=error.reason, domain=error.domain, metadata=error.metadata)
    ]
    if error.violations:
        bad_request = error_details_pb2.BadRequest()
        for each in error.violations:
            bad_request.field_violations.add(field=each.field, description=each.message, reason=each.rule)
        details.append(bad_request)
    if isinstance(error, FailedPrecondition):
        failure = error_details_pb2.PreconditionFailure()
        failure.violations.add(type=error.reason, subject=error.subject, description=error.message)
        details.append(failure)
    if isinstance(error, NotFound):
        details.append(
            error_details_pb2.ResourceInfo(
                resource_type=error.resource_type, resource_name=error.subject, description=error.message
            )
        )
    if error.retry_after_s is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(round(error.retry_after_s * 1e9))
        details.append(retry)
    return details


def as_domain_error(error: Exception, call: Call) -> DomainError:
    """Return the error that the caller gets, and set the call's code and reason; if it is a defect, log it."""
    if not isinstance(error, DomainError):
        log.error("rpc.defect", method=call.method, exc_info=error)
        error = _Internal()
    call.code, call.reason = code_of(error).name, error.reason
    return error


def take_code_of_abort(context: aio.ServicerContext[Message, Message], call: Call) -> None:
    """Set the code of a call that its servicer has aborted by itself, as gRPC's health does."""
    call.code = context.code().name


async def reject(error: Exception, context: aio.ServicerContext[Message, Message], call: Call) -> NoReturn:
    """Answer the call with the error; if it is a defect, log it first.

    Raises:
        grpc.aio.AbortError: always, because grpc.aio ends a call by it.
    """
    error = as_domain_error(error, call)
    code = code_of(error)
    trailer: list[tuple[str, str | bytes]] = [("grpc-status-details-bin", status_of(error).SerializeToString())]
    if error.retry_after_s is not None:
        # Trailers without a message are HTTP headers, so REST callers see Retry-After.
        trailer.append(("retry-after", str(math.ceil(error.retry_after_s))))
        # The caller has just learnt when to retry: its gRPC library must not retry earlier by itself.
        trailer.append(("grpc-retry-pushback-ms", "-1"))
    if call.authorization and error.reason in _CHALLENGES:
        trailer.append(("www-authenticate", _CHALLENGES[error.reason]))
    await context.abort(code, error.message, tuple(trailer))
