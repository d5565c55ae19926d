"""A channel that can replace its connections while stubs use it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, Self

from grpc import aio
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Callable

    import grpc

# A handshake takes milliseconds; a server that does not answer within this time is down.
_READY_TIMEOUT_S: Final = 5.0
# The old channel is closed after this time: no call of a service takes longer (`max_call_s`).
_CLOSE_AFTER_S: Final = 30.0


class RenewableChannel(aio.Channel):
    """A channel that passes each call to the newest channel that `connect` made.

    grpcio reads a client's certificate only once, when a channel is made (grpc/grpc#41779), and a stub keeps its
    channel. Stubs on this channel use a renewed certificate from the next call on.

    Args:
        connect: makes a channel with the certificates that are valid at that moment.

    Attributes:
        newest: the channel that new calls use.
    """

    def __init__(self, connect: Callable[[], aio.Channel]) -> None:
        self._connect: Final = connect
        self._retiring: Final = set[asyncio.Task[None]]()
        self.newest = connect()

    async def renew(self) -> None:
        """Make a new channel and use it once it is connected. Running calls end on the old channel.

        Raises:
            TimeoutError: the new channel does not connect within 5 s; the old one stays in use.
        """
        new = self._connect()
        try:
            async with asyncio.timeout(_READY_TIMEOUT_S):
                await new.channel_ready()
        except BaseException:
            await new.close()
            raise
        retiring = asyncio.create_task(_close_later(self.newest))
        self._retiring.add(retiring)
        retiring.add_done_callback(self._retiring.discard)
        self.newest = new

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
    """One rpc; each call goes to the newest channel."""

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
    # Not close(grace): a call that was handed to the old channel and has not started yet would find it closed.
    try:
        await asyncio.sleep(_CLOSE_AFTER_S)
    finally:
        await channel.close()
