"""How the user service is put together: of the same parts in a process of its own, in a command and in a test."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from shop.user.v1 import session_service_pb2, user_service_pb2
from shop.user.v1.session_service_pb2_grpc import add_SessionServiceServicer_to_server
from shop.user.v1.user_service_pb2_grpc import add_UserServiceServicer_to_server

from chassis.auth.access_tokens import AccessTokens
from chassis.auth.certificates import CertificateFiles
from chassis.clock import SystemClock
from chassis.database import Database
from chassis.errors import DatabaseUnavailable
from chassis.events import backlog
from chassis.idempotency import store
from chassis.server.application import Application
from chassis.server.server import Server, full_name
from chassis.server.system import SystemServicer
from user_svc import sweeps
from user_svc.attempts import Attempts
from user_svc.keys import SigningKeys
from user_svc.password_rules import PasswordRules
from user_svc.passwords import Passwords
from user_svc.rpc import UserServicer
from user_svc.service import UserService
from user_svc.sessions.rpc import SessionServicer
from user_svc.sessions.service import SessionService

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from grpc import aio

    from chassis.auth.access_tokens import TokenSettings
    from chassis.auth.certificates import TlsSettings
    from chassis.clock import Clock
    from chassis.database.settings import DatabaseSettings
    from chassis.server.settings import ServerSettings
    from chassis.telemetry.settings import TelemetrySettings
    from user_svc.keys import KeySettings
    from user_svc.sessions.service import SessionSettings
    from user_svc.settings import PasswordRuleSettings, PasswordSettings

_CLOCK: Final = SystemClock()


@dataclass(frozen=True, slots=True, kw_only=True)
class PartSettings:
    """The sections that every command reads."""

    telemetry: TelemetrySettings
    database: DatabaseSettings
    passwords: PasswordSettings
    keys: KeySettings
    sessions: SessionSettings


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts that every command uses."""

    clock: Clock
    database: Database
    passwords: Passwords
    attempts: Attempts
    keys: SigningKeys

    def users(self, rules: PasswordRuleSettings) -> UserService:
        """Return the use cases of users, with these rules for passwords."""
        return UserService(self.database, self.passwords, self.attempts, PasswordRules(rules), clock=self.clock)


@contextlib.asynccontextmanager
async def parts(settings: PartSettings, *, clock: Clock = _CLOCK) -> AsyncIterator[Parts]:
    """Make the parts; close their connections and threads when the block ends."""
    database = Database(settings.database, name=settings.telemetry.service_name)
    passwords = Passwords(settings.passwords)
    attempts = Attempts(database, passwords, clock)
    lifetime_s = settings.sessions.access_lifetime_s
    keys = SigningKeys(database, settings.keys, clock, token_lifetime_s=lifetime_s)
    try:
        yield Parts(clock, database, passwords, attempts, keys)
    finally:
        await passwords.close()
        await database.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The sections that serving reads."""

    parts: PartSettings
    rules: PasswordRuleSettings
    server: ServerSettings
    tokens: TokenSettings
    tls: TlsSettings


@contextlib.asynccontextmanager
async def build(
    settings: Settings, *, clock: Clock = _CLOCK, servicer_class: type[UserServicer] = UserServicer
) -> AsyncIterator[Application]:
    """Put the user service together; close its connections and threads when the block ends.

    Args:
        settings: of all parts.
        clock: tells the time of users, sessions and keys.
        servicer_class: another one in tests of the server.
    """
    async with parts(settings.parts, clock=clock) as made:
        users = made.users(settings.rules)
        sessions = SessionService(
            made.database,
            made.passwords,
            made.attempts,
            made.keys,
            clock,
            settings=settings.parts.sessions,
            tokens=settings.tokens,
        )
        # Now, and not at the first login: the edge needs a key, and a replica with a wrong secret must not start.
        with contextlib.suppress(DatabaseUnavailable):
            await made.keys.current()

        def register(server: aio.Server) -> list[str]:
            add_UserServiceServicer_to_server(servicer_class(users, clock), server)
            add_SessionServiceServicer_to_server(SessionServicer(sessions, made.keys), server)
            return [full_name(user_service_pb2, "UserService"), full_name(session_service_pb2, "SessionService")]

        server = Server(
            settings.server,
            register=register,
            system=SystemServicer(settings.parts.telemetry, made.database),
            tokens=AccessTokens(settings.tokens, made.keys),
            certificates=CertificateFiles.of(settings.tls),
        )
        background = [
            partial(store.sweep_forever, made.database, clock),
            partial(backlog.watch_forever, made.database),
            partial(sweeps.sweep_forever, made.database, clock),
        ]
        yield Application(server, background)
