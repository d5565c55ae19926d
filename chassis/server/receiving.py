"""The request of a call: received, decoded and within the contract, or refused.

Every method that takes one message is served as if it took a stream of them, of which one is read. grpc.aio ends a
unary call without a message in silence: its caller would wait for its deadline. And a message that is read by the
wrapper is read after the caller is let in, so that a stranger's megabytes are neither received nor decoded.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, cast

from grpc import aio

from chassis.errors import MalformedRequest
from chassis.server.bounds import Elements, max_request_bytes
from chassis.server.if_match import take_if_match
from chassis.server.validation import require_valid

if TYPE_CHECKING:
    from collections.abc import Callable

    import grpc
    from google.protobuf.descriptor import Descriptor
    from google.protobuf.message import Message

    Context = aio.ServicerContext[Any, Any]


class Receiver:
    """Receives the requests of one method.

    Args:
        handler: of the method, as generated code has it.

    Attributes:
        is_list: whether the method answers with pages.
    """

    def __init__(self, handler: grpc.RpcMethodHandler[Any, Any]) -> None:
        # The `FromString` of the request's type.
        self._decode: Final = cast("Callable[[bytes], Message]", handler.request_deserializer)
        request = cast("Descriptor", self._decode.__self__.DESCRIPTOR)  # type: ignore[attr-defined]  # it is bound
        self.is_list: Final = "page_size" in request.fields_by_name
        self._max_bytes: Final = max_request_bytes(request)
        self._elements: Final = Elements(request)

    async def receive(self, context: Context, *, if_match: str | None = None) -> Message:
        """Return the request of a call, which keeps every rule of the contract.

        Args:
            context: of the call.
            if_match: the header of that name, which stands in for the request's etag.

        Raises:
            MalformedRequest: there is no whole message, it is none of this type, or larger than any valid one.
            InvalidFields: it breaks rules of the contract.
        """
        request = self.decoded(await received_bytes(context))
        if if_match is not None:
            take_if_match(request, if_match)
        require_valid(request)
        return request

    def decoded(self, data: bytes) -> Message:
        """Return the message, which has no more elements than its rules allow.

        Raises:
            MalformedRequest, InvalidFields: as receive() does.
        """
        if len(data) > self._max_bytes:
            raise MalformedRequest(
                f"The request is over {self._max_bytes} bytes as a message, more than a valid one can have. Send less."
            )
        try:
            request = self._decode(data)
        except Exception as error:  # the decoder's exceptions are its own; all mean the same
            raise MalformedRequest from error
        self._elements.require_few(request)
        return request


async def received_bytes(context: Context) -> bytes:
    """Return the first message of a call as it came. What comes after it is never read.

    Raises:
        MalformedRequest: the caller has ended the call without a whole message.
    """
    data = await context.read()
    if data is aio.EOF:
        # A caller that leaves ends its message too. If so, the cancellation comes in the next turn of the loop.
        await asyncio.sleep(0)
        raise MalformedRequest("The call has no whole message. Send one, and then end the call.")
    return cast("bytes", data)
