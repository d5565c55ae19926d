"""The errors of calls: the reason that a service gave, and whether the service itself has failed."""

import asyncio
from typing import Final, cast

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

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
    info = error_details_pb2.ErrorInfo()
    for detail in status.details if status else ():
        if detail.Unpack(info):
            return str(info.reason)
    return ""


def is_dependency_failure(error: Exception) -> bool:
    """Return whether the error means that the server failed, rather than that the request was wrong."""
    if isinstance(error, (asyncio.TimeoutError, OSError)):
        return True
    return isinstance(error, grpc.RpcError) and error.code() in DEPENDENCY_FAILURES
