"""A server of the whole contract, in memory, in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import threading
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast
from uuid import UUID, uuid4

import grpc
from grpc import aio
from shop.order.v1 import order_service_pb2
from shop.order.v1.order_service_pb2_grpc import add_OrderServiceServicer_to_server
from shop.system.v1 import system_service_pb2
from shop.system.v1.system_service_pb2_grpc import add_SystemServiceServicer_to_server
from shop.user.v1 import session_service_pb2, user_service_pb2
from shop.user.v1.session_service_pb2_grpc import add_SessionServiceServicer_to_server
from shop.user.v1.user_service_pb2_grpc import add_UserServiceServicer_to_server
from typing_extensions import override

from chassis.auth.access import AccessControl
from chassis.context import Role
from chassis.server.method_wrapper import HandlerCollector, MethodWrapper
from chassis.server.system import SystemServicer
from order_svc.rpc import OrderServicer, order_watch_hub
from protos.client import Login, connect, connect_sync
from protos.testing import refusals
from protos.testing.clock import MovableClock
from protos.testing.feed import FeedInMemory
from protos.testing.orders import OrdersInMemory
from protos.testing.passwords import Attempts
from protos.testing.sessions import SessionsInMemory, TokensInMemory
from protos.testing.users import UsersInMemory
from user_svc.commands import NewUser
from user_svc.model import Email, UserId, UserState
from user_svc.rpc import UserServicer
from user_svc.sessions.rpc import SessionServicer

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from types import TracebackType
    from typing import Self

    from google.protobuf.message import Message

    Handler = grpc.RpcMethodHandler[Any, Any]

T = TypeVar("T")

_PASSWORD: Final = "correct horse battery"  # noqa: S105  of users that exist for a test
_START_S: Final = 10
_numbers: Final = itertools.count(1)


@dataclass(frozen=True, slots=True)
class _Watching:
    """As WatchSettings has it, with changes that come at once."""

    poll_s: float = 0.01
    heartbeat_s: float = 15
    buffer: int = 1000
    page: int = 200
    max_watchers: int = 2000
    max_of_one_caller: int = 20


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
    """

    target: str

    def __init__(self) -> None:
        self.clock: Final = MovableClock()
        attempts = Attempts(self.clock)
        feed = FeedInMemory(self.clock)
        self._users = UsersInMemory(self.clock, attempts)
        self._tokens = TokensInMemory(self.clock)
        self._sessions = SessionsInMemory(self._users, attempts, self._tokens, self.clock)
        self._orders = OrdersInMemory(self._users, feed, self.clock)
        self._users.end_sessions = self._sessions.end_sessions
        self._users.on_deleted = self._orders.forget_buyer
        self._hub = order_watch_hub(feed, cast("Any", _Watching()))
        self._refusals: list[tuple[str, str]] = []
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(_ignore_other_loops)
        self._started = threading.Event()
        self._stopping = asyncio.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="shop-server", daemon=True)

    def __enter__(self) -> Self:
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
        """
        email = email or f"user-{next(_numbers)}@example.com"
        new = NewUser(email=Email.parse(email), password=password, display_name=display_name, profile={})
        user = self._call(lambda: self._users.add(new, roles=[Role(role) for role in roles]))
        return TestUser(id=str(user.id), email=email, password=password)

    def suspend(self, user: TestUser) -> None:
        """Suspend a user, who may then neither log in nor order. In the shop an operator does that."""

        def suspend() -> None:
            found = self._users.find(UserId(UUID(user.id)))
            if found is None:
                raise KeyError(user.id)
            changed = dataclasses.replace(
                found, state=UserState.SUSPENDED, updated_at=self.clock.now(), version=found.version + 1
            )
            self._users.put(changed)

        self._call(suspend)

    def token(self, *roles: str, subject: str = "", expires_in_s: float = 900) -> str:
        """Return an access token: `token("SERVICE")`.

        Args:
            roles: names of shop.system.v1.Role, without prefix.
            subject: the user's id; by default one that no user has.
            expires_in_s: from now, by the clock; negative for a token that has expired.
        """
        caller = UUID(subject) if subject else uuid4()
        held = [Role(role) for role in roles]
        lifetime = timedelta(seconds=expires_in_s)
        return self._call(lambda: self._tokens.issue(caller, roles=held, session_id=uuid4(), lifetime=lifetime))

    def refuse(self, reason: str, *, rpc: str = "") -> None:
        """Make the next call fail with this reason, as the shop itself would answer it.

        The access rules and the validation come first: a call that they refuse does not count.

        Args:
            reason: a value of ErrorReason without its prefix: `USER_NOT_ACTIVE`.
            rpc: only a call of this rpc: `CreateOrder`; by default any but those of the SessionService.

        Raises:
            ValueError: no service gives this reason.
        """
        if reason not in refusals.reasons():
            raise ValueError(f"no service refuses with {reason}: it is one of {', '.join(sorted(refusals.reasons()))}")
        self._refusals.append((reason, rpc))

    def _call(self, work: Callable[[], T]) -> T:
        """Run the work in the server's loop, where nothing else runs meanwhile."""

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
        self._add_servicers(server)
        self.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        pushing = asyncio.create_task(self._hub.run_forever())
        self._started.set()
        await self._stopping.wait()
        self._hub.stop()
        pushing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await pushing
        await server.stop(None)

    def _add_servicers(self, server: aio.Server) -> None:
        access = AccessControl(cast("Any", self._tokens))
        handlers = _Handlers(self._refuse_if_told)
        adding = cast("aio.Server", handlers)
        add_UserServiceServicer_to_server(UserServicer(cast("Any", self._users), self.clock), adding)
        add_SessionServiceServicer_to_server(
            SessionServicer(cast("Any", self._sessions), cast("Any", self._tokens)), adding
        )
        add_OrderServiceServicer_to_server(OrderServicer(cast("Any", self._orders), self._hub, self.clock), adding)
        add_SystemServiceServicer_to_server(
            SystemServicer(cast("Any", _Telemetry()), cast("Any", _NoDatabase())), adding
        )
        modules = (order_service_pb2, session_service_pb2, system_service_pb2, user_service_pb2)
        access.guard(each.full_name for module in modules for each in module.DESCRIPTOR.services_by_name.values())
        handlers.serve_on(server, MethodWrapper(access, max_call_s=30, max_stream_s=3600))

    def _refuse_if_told(self, method: str, request: Message) -> None:
        name = method.rpartition("/")[2]
        is_session = "SessionService/" in method
        for told in self._refusals:
            reason, rpc = told
            if rpc == name or (not rpc and not is_session):
                self._refusals.remove(told)
                raise refusals.refusal(reason, method=method, request=request)


class _Handlers(HandlerCollector):
    """Collects handlers that ask first whether the call is to fail."""

    def __init__(self, refuse: Callable[[str, Message], None]) -> None:
        super().__init__()
        self._refuse = refuse

    @override
    def add_registered_method_handlers(self, service_name: str, method_handlers: Any) -> None:
        """Keep the handlers of a service."""
        wrapped = {name: self._refusing(f"/{service_name}/{name}", each) for name, each in method_handlers.items()}
        super().add_registered_method_handlers(service_name, wrapped)

    def _refusing(self, method: str, handler: Handler) -> Handler:
        refuse = partial(self._refuse, method)
        if handler.unary_unary:
            answer: Callable[..., Coroutine[Any, Any, Any]] = cast("Any", handler.unary_unary)

            async def serve(request: Message, context: Any) -> Any:
                refuse(request)
                return await answer(request, context)

            return grpc.unary_unary_rpc_method_handler(
                cast("Any", serve), handler.request_deserializer, handler.response_serializer
            )
        stream: Any = handler.unary_stream

        async def serve_stream(request: Message, context: Any) -> Any:
            refuse(request)
            async with contextlib.aclosing(stream(request, context)) as messages:
                async for message in messages:
                    yield message

        return grpc.unary_stream_rpc_method_handler(
            cast("Any", serve_stream), handler.request_deserializer, handler.response_serializer
        )


def _ignore_other_loops(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    # grpc.aio wakes every loop of the process for the events of one of them; the others find nothing to read.
    if not isinstance(context.get("exception"), BlockingIOError):
        loop.default_exception_handler(context)
