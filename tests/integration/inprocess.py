"""The services put together as their `__main__` does it, in this process: on a free port, with the clock of a test."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr
from shop.order.v1 import order_service_pb2
from shop.order.v1.order_service_pb2_grpc import add_OrderServiceServicer_to_server
from shop.user.v1 import session_service_pb2, user_service_pb2
from shop.user.v1.session_service_pb2_grpc import add_SessionServiceServicer_to_server
from shop.user.v1.user_service_pb2_grpc import add_UserServiceServicer_to_server

from chassis.auth.access_tokens import AccessTokens, TokenSettings
from chassis.auth.remote_keys import RemoteKeyRing
from chassis.client import CallPolicy, connect
from chassis.client.breaker import Breaker, BreakerSettings
from chassis.client.errors import is_dependency_failure
from chassis.client.telemetry import ClientTelemetry
from chassis.clock import SystemClock
from chassis.database import Database
from chassis.database.settings import DatabaseSettings
from chassis.database.url import DatabaseUrl
from chassis.server.server import Server, full_name
from chassis.server.system import SystemServicer
from chassis.testing import SIGNER, server_settings, services_token, serving
from chassis.watch.settings import WatchSettings
from order_svc.buyer_client import GrpcBuyerDirectory
from order_svc.buyers import BuyersWithProjection
from order_svc.rpc import OrderServicer, order_watch_hub
from order_svc.service import OrderService
from order_svc.settings import OrderTelemetrySettings
from order_svc.signing_keys import keys_of_user_service
from user_svc.attempts import Attempts
from user_svc.keys import KeySettings, SigningKeys
from user_svc.password_rules import PasswordRules
from user_svc.passwords import Passwords
from user_svc.rpc import UserServicer
from user_svc.service import UserService
from user_svc.sessions.rpc import SessionServicer
from user_svc.sessions.service import SessionService, SessionSettings
from user_svc.settings import PasswordRuleSettings, PasswordSettings, UserTelemetrySettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from grpc import aio

    from chassis.clock import Clock
    from chassis.server.settings import ServerSettings

# The least that argon2 takes: 8 KiB and a tenth of a millisecond, where production takes 46 MiB and a core's 40 ms.
CHEAP = PasswordSettings(memory_kib=8)
NIST = PasswordRuleSettings()

KEY_SETTINGS = KeySettings(secret=SecretStr(base64.urlsafe_b64encode(b"a secret of tests and no others.").decode()))


def database_settings(url: str, **changes: Any) -> DatabaseSettings:
    """Return the settings of the database at the URL."""
    return DatabaseSettings(url=DatabaseUrl.parse(url), **changes)


@contextlib.asynccontextmanager
async def user_service(
    settings: DatabaseSettings,
    *,
    clock: Clock | None = None,
    port: int = 0,
    server: ServerSettings | None = None,
    hashing: PasswordSettings = CHEAP,
    rules: PasswordRuleSettings = NIST,
    signing: KeySettings = KEY_SETTINGS,
    servicer_class: type[UserServicer] = UserServicer,
) -> AsyncIterator[str]:
    """Serve the user service while the block runs; yield its address."""
    clock = clock or SystemClock()
    database = Database(settings, name="user_svc")
    passwords = Passwords(hashing)
    attempts = Attempts(database, passwords, clock)
    users = UserService(database, passwords, attempts, PasswordRules(rules), clock=clock)
    servicer = servicer_class(users, clock)
    tokens = TokenSettings()
    keys = SigningKeys(database, signing, clock, token_lifetime_s=SessionSettings().access_lifetime_s)
    sessions = SessionService(database, passwords, attempts, keys, clock, settings=SessionSettings(), tokens=tokens)

    def register(server: aio.Server) -> list[str]:
        add_UserServiceServicer_to_server(servicer, server)
        add_SessionServiceServicer_to_server(SessionServicer(sessions, keys), server)
        return [full_name(user_service_pb2, "UserService"), full_name(session_service_pb2, "SessionService")]

    system = SystemServicer(UserTelemetrySettings(), database)
    access = AccessTokens(tokens, keys)
    replica = Server(server or server_settings(), register=register, system=system, tokens=access)
    try:
        async with serving(replica, port=port) as address:
            yield address
    finally:
        await passwords.close()
        await database.close()


@contextlib.asynccontextmanager
async def order_service(
    settings: DatabaseSettings,
    *,
    users: str,
    clock: Clock | None = None,
    breaker: BreakerSettings | None = None,
    watching: WatchSettings | None = None,
    server: ServerSettings | None = None,
) -> AsyncIterator[str]:
    """Serve the order service, which asks the user service at the target, while the block runs; yield its address."""
    clock = clock or SystemClock()
    database = Database(settings, name="order_svc")
    guard = Breaker("user_svc", breaker or BreakerSettings(), is_failure=is_dependency_failure)
    policy = CallPolicy(timeout_s=2, observer=ClientTelemetry(users))
    async with connect(users, policy=policy, token=services_token) as channel:
        directory = BuyersWithProjection(GrpcBuyerDirectory(channel, guard), database, clock)
        watch_hub = order_watch_hub(database, watching or WatchSettings(poll_s=0.02, heartbeat_s=0.2))
        servicer = OrderServicer(OrderService(database, directory, clock), watch_hub, clock)

        def register(server: aio.Server) -> list[str]:
            add_OrderServiceServicer_to_server(servicer, server)
            return [full_name(order_service_pb2, "OrderService")]

        system = SystemServicer(OrderTelemetrySettings(), database)
        keys = RemoteKeyRing(keys_of_user_service(channel))
        await keys.key(SIGNER.kid)
        replica = Server(
            server or server_settings(),
            register=register,
            system=system,
            tokens=AccessTokens(TokenSettings(), keys),
        )
        replica.end_streams = watch_hub.stop
        following = asyncio.create_task(watch_hub.run_forever())
        try:
            async with serving(replica) as address:
                yield address
        finally:
            following.cancel()
            await database.close()
