"""A channel whose connections can be made anew under the stubs that use it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from grpc import aio
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    import grpc

# A handshake takes milliseconds. Who does not answer in this time is not there.
_READY_S: Final = 5.0
# The old channel ends after its last call: no call of a service's takes longer (MAX_CALL_S).
_LAST_CALLS_S: Final = 30.0


class RenewableChannel(aio.Channel):
    """A channel that stands for the newest one that `connect` made.

    gRPC for Python reads a client's certificate once, when a channel is made (grpc/grpc#41779), and stubs belong to
    their channel for life. So the stubs get this one.

    Args:
        connect: makes a channel, with what is valid at that moment.
    """

    def __init__(self, connect: Callable[[], aio.Channel]) -> None:
        self._connect: Final = connect
        self._retiring: Final = set[asyncio.Task[None]]()
        self.newest = connect()

    async def renew(self) -> None:
        """Use a new channel from now on, once it is connected. Calls that run on the old one end there.

        Raises:
            TimeoutError: it does not connect; the old one stays.
        """
        fresh = self._connect()
        try:
            async with asyncio.timeout(_READY_S):
                await fresh.channel_ready()
        except BaseException:
            await fresh.close()
            raise
        retiring = asyncio.create_task(_close_later(self.newest))
        self._retiring.add(retiring)
        retiring.add_done_callback(self._retiring.discard)
        self.newest = fresh

    @override
    async def close(self, grace: float | None = None) -> None:
        for task in self._retiring:
            task.cancel()
        await asyncio.gather(*self._retiring, return_exceptions=True)
        await self.newest.close(grace)

    @override
    async def __aenter__(self) -> Self:
        return self

    @override
    async def __aexit__(self, *_error: object) -> None:
        await self.close()

    @override
    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return self.newest.get_state(try_to_connect)

    @override
    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self.newest.wait_for_state_change(last_observed_state)

    @override
    async def channel_ready(self) -> None:
        await self.newest.channel_ready()

    @override
    def unary_unary(self, *args: Any, **kwargs: Any) -> Any:
        return _Method(self, lambda channel: channel.unary_unary(*args, **kwargs))

    @override
    def unary_stream(self, *args: Any, **kwargs: Any) -> Any:
        return _Method(self, lambda channel: channel.unary_stream(*args, **kwargs))

    @override
    def stream_unary(self, *args: Any, **kwargs: Any) -> Any:
        return _Method(self, lambda channel: channel.stream_unary(*args, **kwargs))

    @override
    def stream_stream(self, *args: Any, **kwargs: Any) -> Any:
        return _Method(self, lambda channel: channel.stream_stream(*args, **kwargs))


class _Method:
    """One rpc, called on whichever channel is the newest."""

    def __init__(self, owner: RenewableChannel, bind: Callable[[aio.Channel], Callable[..., Any]]) -> None:
        self._owner: Final = owner
        self._bind: Final = bind
        self._channel = owner.newest
        self._call = bind(self._channel)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._channel is not self._owner.newest:
            self._channel = self._owner.newest
            self._call = self._bind(self._channel)
        return self._call(*args, **kwargs)


async def _close_later(channel: aio.Channel) -> None:
    # Not close(grace): calls that start in this very moment are none yet, and would find a closed channel.
    try:
        await asyncio.sleep(_LAST_CALLS_S)
    finally:
        await channel.close()
