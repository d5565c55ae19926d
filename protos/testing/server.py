"""A server of the whole contract, in memory, in a thread of its own."""

from __future__ import annotations

import asyncio
import itertools
import threading
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast
from uuid import UUID, uuid4

import grpc
from grpc import aio
from shop.system.v1.system_service_pb2_grpc import add_SystemServiceServicer_to_server

from chassis.auth.access import AccessControl
from chassis.context import Role
from chassis.server.method_wrapper import MethodWrapper
from chassis.server.system import SystemServicer
from protos.client import Login, connect, connect_sync
from protos.testing.handlers import Handlers
from protos.testing.shop import Shop, services
from protos.testing.tokens import LEEWAY, TokensInMemory

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType
    from typing import Self

    from protos.testing.shop import Users

T = TypeVar("T")

_PASSWORD: Final = "correct horse battery"  # noqa: S105  of users that exist for a test
_START_S: Final = 10
_numbers: Final = itertools.count(1)


@dataclass(frozen=True, slots=True)
class _Telemetry:
    service_name: str = "shop.testing"
    service_version: str = "0"


class _NoDatabase:
    async def ping(self) -> None:
        """Return: there is nothing that may not answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TestUser:
    """A user that a test has created.

    Attributes:
        id: the user's id.
        login: for the `token` of connect().
    """

    __test__ = False  # no class of tests

    id: str
    email: str
    password: str = field(repr=False)

    @property
    def login(self) -> Login:
        """The user's credentials."""
        return Login(self.email, self.password)


class ShopServer:
    """The shop in memory, in `with`. Its methods may be called from any thread.

    Attributes:
        target: where it serves: `127.0.0.1:port`, in clear text.
        clock: the shop's time, which a test can move forward.
        served: the full names of its gRPC services.
    """

    target: str

    def __init__(self) -> None:
        self._shop = Shop()
        for service in services():
            service.serve(self._shop)
        system = SystemServicer(cast("Any", _Telemetry()), cast("Any", _NoDatabase()))
        self._shop.serve(add_SystemServiceServicer_to_server, system)
        self._tokens = self._shop.part(TokensInMemory)
        self._handlers = Handlers()
        for add, servicer in self._shop.servicers:
            add(servicer, cast("aio.Server", self._handlers))
        self.clock: Final = self._shop.clock
        self.served: Final = self._handlers.names
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(_ignore_other_loops)
        self._started = threading.Event()
        self._stopping = asyncio.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="shop-server", daemon=True)

    def __enter__(self) -> Self:
        if self._started.is_set():
            raise RuntimeError("this ShopServer has served already: make another one")
        self._thread.start()
        self._started.wait(_START_S)
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(_START_S)

    def connect(self, user: TestUser | None = None, *, token: str | None = None) -> aio.Channel:
        """Return a channel of grpc.aio, of `user` or with this access token; without either the caller is anonymous."""
        return connect(self.target, token=user.login if user else token)

    def connect_sync(self, user: TestUser | None = None, *, token: str | None = None) -> grpc.Channel:
        """Return a channel as connect() does, without asyncio."""
        return connect_sync(self.target, token=user.login if user else token)

    def create_user(
        self,
        *,
        email: str = "",
        password: str = _PASSWORD,
        display_name: str = "Ada Lovelace",
        roles: Sequence[str] = ("USER",),
    ) -> TestUser:
        """Return a new user.

        Args:
            email: of the user; by default one that no other user has.
            password: of the user.
            display_name: of the user.
            roles: names of shop.system.v1.Role, without prefix: `("USER", "ADMIN")`.

        Raises:
            LookupError: no service of the shop keeps users; token() needs none.
            ValueError: there is no such role.
        """
        users = self._users
        held = _roles(roles)
        email = email or f"user-{next(_numbers)}@example.com"
        user_id = self._call(
            lambda: users.create(email=email, password=password, display_name=display_name, roles=held)
        )
        return TestUser(id=str(user_id), email=email, password=password)

    def suspend(self, user: TestUser) -> None:
        """Suspend a user, who may then neither log in nor order. In the shop an operator does that."""
        users = self._users
        self._call(lambda: users.suspend(UUID(user.id)))

    @property
    def _users(self) -> Users:
        if self._shop.users is None:
            raise LookupError("no service of this shop keeps users: make callers with token() instead")
        return self._shop.users

    def token(self, *roles: str, subject: str = "", expires_in_s: float = 900) -> str:
        """Return an access token: `token("SERVICE")`.

        Args:
            roles: names of shop.system.v1.Role, without prefix.
            subject: the user's id; by default one that no user has.
            expires_in_s: from now, by the clock; negative for a token that has expired.

        Raises:
            ValueError: there is no such role, or the subject is no UUID.
        """
        caller = _user_id(subject) if subject else uuid4()
        held = _roles(roles)
        # The shop takes a token for some seconds longer, because the clocks of its machines differ.
        lifetime = timedelta(seconds=expires_in_s) - (LEEWAY if expires_in_s < 0 else timedelta(0))
        return self._call(lambda: self._tokens.issue(caller, roles=held, session_id=uuid4(), lifetime=lifetime))

    def refuse(self, reason: str, *, rpc: str = "") -> None:
        """Make the next call fail with this reason, as the shop itself would answer it.

        The access rules and the validation come first: a call that they refuse does not count. An open stream of the
        rpc ends with the reason in place of its next message, with which the next stream begins.

        Args:
            reason: a value of ErrorReason without its prefix: `USER_NOT_ACTIVE`.
            rpc: only a call of this rpc: `CreateOrder`; by default any but those of the SessionService.

        Raises:
            ValueError: no service gives this reason, or there is no such rpc.
        """
        self._handlers.refuse_next(reason, rpc=rpc)

    def _call(self, work: Callable[[], T]) -> T:
        """Run the work in the server's loop, where nothing else runs meanwhile."""
        if not self._thread.is_alive():
            raise RuntimeError("this ShopServer does not serve: use it in `with ShopServer() as server:`")

        async def run() -> T:
            return work()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(_START_S)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        except BaseException as error:  # noqa: BLE001  the thread that waits raises it
            self._failure = error
        finally:
            self._started.set()
            self._loop.close()

    async def _serve(self) -> None:
        server = aio.server(options=[("grpc.so_reuseport", 0)])
        access = AccessControl(cast("Any", self._tokens), self.served)
        self._handlers.serve_on(server, MethodWrapper(access, max_call_s=30, max_stream_s=3600))
        self.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        pushing = [asyncio.create_task(streams.run_forever()) for streams in self._shop.streams]
        self._started.set()
        await self._stopping.wait()
        for streams in self._shop.streams:
            streams.stop()
        for task in pushing:
            task.cancel()
        await asyncio.gather(*pushing, return_exceptions=True)
        await server.stop(None)


def _roles(names: Sequence[str]) -> list[Role]:
    if isinstance(names, str):
        raise ValueError(f"write roles as a tuple, such as ({names!r},), not {names!r}")  # noqa: TRY004  as for a name
    if unknown := [name for name in names if name not in Role.__members__]:
        raise ValueError(f"there is no role {', '.join(unknown)}: it is one of {', '.join(Role)}")
    return [Role(name) for name in names]


def _user_id(subject: str) -> UUID:
    try:
        return UUID(subject)
    except ValueError:
        raise ValueError(f"a subject is the id of a user, such as create_user().id, not {subject!r}") from None


def _ignore_other_loops(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    # grpc.aio wakes every loop of the process for the events of one of them; the others find nothing to read.
    if not isinstance(context.get("exception"), BlockingIOError):
        loop.default_exception_handler(context)
