"""The errors of calls: the reason that a service gave, and whether the service itself has failed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, TypeVar, cast

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from google.rpc.status_pb2 import Status

DetailT = TypeVar("DetailT", bound="Message")

DEPENDENCY_FAILURES: Final = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        # Answered by a server that is forced to stop. A caller that gives up gets an asyncio.CancelledError instead.
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
)
"""The status codes for which the server, and not the request, is at fault."""


def reason_of(error: grpc.RpcError) -> str:
    """Return the reason that a service gave, such as `EMAIL_TAKEN`; empty if the call did not reach a service.

    The reasons are the enums `ErrorReason` of the contract.
    """
    try:
        status = rpc_status.from_call(cast("grpc.Call", error))
    except ValueError:  # details that contradict the status: not from one of our services
        return ""
    info = detail_of(status, error_details_pb2.ErrorInfo) if status else None
    return str(info.reason) if info else ""


def detail_of(status: Status, kind: type[DetailT]) -> DetailT | None:
    """Return the first detail of the kind."""
    detail = kind()
    return next((detail for packed in status.details if packed.Unpack(detail)), None)


def is_dependency_failure(error: Exception) -> bool:
    """Return whether the error means that the server failed, rather than that the request was wrong."""
    if isinstance(error, (asyncio.TimeoutError, OSError)):
        return True
    return isinstance(error, grpc.RpcError) and error.code() in DEPENDENCY_FAILURES
