"""The handlers of the server in memory, which fail when a test wants it."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

import grpc
from typing_extensions import override

from chassis.server.method_wrapper import HandlerCollector
from protos.testing import refusals

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from google.protobuf.message import Message

    Handler = grpc.RpcMethodHandler[Any, Any]


class Handlers(HandlerCollector):
    """Collects handlers that fail if the test has said so.

    Attributes:
        names: the full names of their services.
    """

    def __init__(self) -> None:
        super().__init__()
        self._refusals: list[tuple[str, str]] = []
        self.names: Final[list[str]] = []
        self._rpcs: Final[set[str]] = set()

    @override
    def add_registered_method_handlers(self, service_name: str, method_handlers: Any) -> None:
        """Keep the handlers of a service."""
        self.names.append(service_name)
        self._rpcs.update(method_handlers)
        wrapped = {name: self._refusing(f"/{service_name}/{name}", each) for name, each in method_handlers.items()}
        super().add_registered_method_handlers(service_name, wrapped)

    def refuse_next(self, reason: str, *, rpc: str) -> None:
        """Make the next call fail, as ShopServer.refuse() says."""
        if rpc and rpc not in self._rpcs:
            raise ValueError(f"there is no rpc {rpc}: it is one of {', '.join(sorted(self._rpcs))}")
        if reason not in refusals.reasons():
            raise ValueError(f"no service refuses with {reason}: it is one of {', '.join(sorted(refusals.reasons()))}")
        self._refusals.append((reason, rpc))

    def _refusing(self, method: str, handler: Handler) -> Handler:
        refuse = partial(self._refuse_if_told, method)
        if handler.unary_unary:
            answer: Callable[..., Coroutine[Any, Any, Any]] = cast("Any", handler.unary_unary)

            async def serve(request: Message, context: Any) -> Any:
                refuse(request)
                return await answer(request, context)

            return grpc.unary_unary_rpc_method_handler(
                cast("Any", serve), handler.request_deserializer, handler.response_serializer
            )
        stream: Any = handler.unary_stream

        async def serve_stream(request: Any, context: Any) -> Any:
            refuse(request)
            async with contextlib.aclosing(stream(request, context)) as messages:
                async for message in messages:
                    refuse(request, is_open=True)
                    yield message
                    request.resume_token = message.resume_token

        return grpc.unary_stream_rpc_method_handler(
            cast("Any", serve_stream), handler.request_deserializer, handler.response_serializer
        )

    def _refuse_if_told(self, method: str, request: Message, *, is_open: bool = False) -> None:
        name = method.rpartition("/")[2]
        is_only_named = is_open or "SessionService/" in method
        for told in self._refusals:
            reason, rpc = told
            if rpc == name or (not rpc and not is_only_named):
                self._refusals.remove(told)
                raise refusals.refusal(reason, method=method, request=request)
