"""How the user service is put together: of the same parts in a process of its own, in a command and in a test."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from shop.user.v1.session_service_pb2_grpc import add_SessionServiceServicer_to_server
from shop.user.v1.user_service_pb2_grpc import add_UserServiceServicer_to_server

from chassis.composition import CLOCK, Foundation, ServiceSettings
from chassis.database import Database
from chassis.database.settings import DatabaseSettings
from chassis.errors import DatabaseUnavailable
from chassis.settings import sections
from chassis.telemetry.settings import TelemetrySettings
from user_svc import sweeps
from user_svc.attempts import Attempts
from user_svc.keys import KeySettings, SigningKeys
from user_svc.password_rules import PasswordRules
from user_svc.passwords import Passwords
from user_svc.rpc import UserServicer
from user_svc.service import UserService
from user_svc.sessions.rpc import SessionServicer
from user_svc.sessions.service import SessionService, SessionSettings
from user_svc.settings import PasswordRuleSettings, PasswordSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from chassis.clock import Clock
    from chassis.server.application import Application


@sections
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


@contextlib.asynccontextmanager
async def parts(settings: PartSettings, *, clock: Clock = CLOCK) -> AsyncIterator[Parts]:
    """Make the parts; close their connections and threads when the block ends."""
    database = Database(settings.database, name=settings.telemetry.service_name)
    try:
        async with _parts_on(database, settings, clock) as made:
            yield made
    finally:
        await database.close()


@contextlib.asynccontextmanager
async def _parts_on(database: Database, settings: PartSettings | Settings, clock: Clock) -> AsyncIterator[Parts]:
    passwords = Passwords(settings.passwords)
    attempts = Attempts(database, passwords, clock)
    keys = SigningKeys(database, settings.keys, clock, token_lifetime_s=settings.sessions.access_lifetime_s)
    try:
        yield Parts(clock, database, passwords, attempts, keys)
    finally:
        await passwords.close()


@sections
class Settings(ServiceSettings):
    """The sections that serving reads."""

    passwords: PasswordSettings
    rules: PasswordRuleSettings
    keys: KeySettings
    sessions: SessionSettings


@contextlib.asynccontextmanager
async def build(
    settings: Settings, *, clock: Clock = CLOCK, servicer_class: type[UserServicer] = UserServicer
) -> AsyncIterator[Application]:
    """Put the user service together; close its connections and threads when the block ends.

    `servicer_class` is another one in tests of the server.
    """
    async with (
        Foundation.open("user_svc", settings, clock=clock) as base,
        _parts_on(base.database, settings, clock) as made,
    ):
        rules = PasswordRules(settings.rules)
        users = UserService(made.database, made.passwords, made.attempts, rules, clock=clock)
        sessions = SessionService(
            made.database,
            made.passwords,
            made.attempts,
            made.keys,
            clock,
            settings=settings.sessions,
            tokens=settings.tokens,
        )
        # Now, and not at the first login: the edge needs a key, and a replica with a wrong secret must not start.
        with contextlib.suppress(DatabaseUnavailable):
            await made.keys.current()
        yield base.application(
            (add_UserServiceServicer_to_server, servicer_class(users, clock)),
            (add_SessionServiceServicer_to_server, SessionServicer(sessions, made.keys)),
            keys=made.keys,
            background=[partial(sweeps.sweep_forever, made.database, clock)],
        )
