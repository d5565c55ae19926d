"""One shop in memory: what the services in it share, and where they are found."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar, cast

import protos.testing
from protos.testing.clock import MovableClock

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from uuid import UUID

    from grpc import aio

    from chassis.errors import DomainError

    AddServicer = Callable[[Any, aio.Server], None]

P = TypeVar("P")

# As of the folders of the services: the package beside this module has the same name.
_SUFFIX: Final = "_svc"


class Streams(Protocol):
    """Streams of changes, as chassis.watch.hub serves them."""

    async def run_forever(self) -> None:
        """Serve them until cancelled."""

    def stop(self) -> None:
        """End them."""


class Users(Protocol):
    """The users of a shop, for a test that makes some."""

    def create(self, *, email: str, password: str, display_name: str, roles: Sequence[str]) -> UUID:
        """Return the id of a new user."""

    def suspend(self, user_id: UUID) -> None:
        """Suspend a user."""


class Shop:
    """The state that the services of one shop share.

    Attributes:
        users: those of the service that has issued their tokens; None if the shop has no such service.
        clock: the shop's time, which a test can move forward.
        servicers: the generated functions that add servicers to a server, each with its servicer.
        streams: that these servicers serve.
    """

    def __init__(self) -> None:
        self.users: Users | None = None
        self.clock: Final = MovableClock()
        self.servicers: Final[list[tuple[AddServicer, object]]] = []
        self.streams: Final[list[Streams]] = []
        self._parts: dict[Callable[[Shop], object], object] = {}

    def part(self, kind: Callable[[Shop], P]) -> P:
        """Return the shop's only object of this class, which is made of the shop when it is first asked for."""
        if kind not in self._parts:
            self._parts[kind] = kind(self)
        return cast("P", self._parts[kind])

    def serve(self, add: AddServicer, servicer: object, *, streams: Streams | None = None) -> None:
        """Serve a servicer.

        Args:
            add: the generated function that adds it to a server.
            servicer: of a service, with the service's own rpc.py.
            streams: that it serves.
        """
        self.servicers.append((add, servicer))
        if streams is not None:
            self.streams.append(streams)


class ServiceInMemory(Protocol):
    """A package beside this module: it has the name and the rules of a service.

    It may have `REFUSALS`, for ShopServer.refuse(): functions that make an error of a request, by the error's class. An
    error without one gets its facts from the fields of the request that have the names of its parameters.
    """

    def serve(self, shop: Shop) -> None:
        """Serve the service's servicers in this shop."""


@cache
def services() -> Sequence[ServiceInMemory]:
    """Return the services that can be served from memory."""
    found = sorted(each.name for each in pkgutil.iter_modules(protos.testing.__path__) if each.name.endswith(_SUFFIX))
    return [cast("ServiceInMemory", importlib.import_module(f"{protos.testing.__name__}.{name}")) for name in found]


@cache
def refusals_of_services() -> Mapping[type[DomainError], Callable[[Any], DomainError]]:
    """Return the REFUSALS of every service."""
    return {kind: make for service in services() for kind, make in getattr(service, "REFUSALS", {}).items()}
