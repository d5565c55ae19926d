"""A service put together: its server, and the work beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from chassis.server.server import Server, serve_until_signalled

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    Work = Callable[[], Coroutine[object, object, None]]


@dataclass(frozen=True, slots=True)
class Application:
    """One replica of a service, ready to serve.

    Attributes:
        server: not started yet.
        background: the work beside the server; each runs until it is cancelled.
    """

    server: Server
    background: Sequence[Work]

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then stop in order."""
        await serve_until_signalled(self.server, background=[work() for work in self.background])
