"""`python -m user_svc serve | migrate | relay | consume | events … | keys … | sessions … | admin …`.

Reads the settings, puts the service together, runs it.
"""

from __future__ import annotations

import contextlib
import getpass
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shop.user.v1 import session_service_pb2, user_service_pb2
from shop.user.v1.session_service_pb2_grpc import add_SessionServiceServicer_to_server
from shop.user.v1.user_service_pb2_grpc import add_UserServiceServicer_to_server

from chassis import telemetry
from chassis.auth.access_tokens import AccessTokens, TokenSettings
from chassis.auth.certificates import CertificateFiles, TlsSettings
from chassis.clock import SystemClock
from chassis.database import Database, migrations
from chassis.database.settings import DatabaseSettings
from chassis.errors import DatabaseUnavailable
from chassis.events import backlog
from chassis.events.commands import EventCommands
from chassis.idempotency import store
from chassis.runtime import cli
from chassis.server.server import Server, full_name, serve_until_signalled
from chassis.server.settings import ServerSettings
from chassis.server.system import SystemServicer
from chassis.server.validation import require_valid
from chassis.settings import load
from user_svc import consumer, sweeps
from user_svc.attempts import Attempts
from user_svc.keys import KeySettings, SigningKeys
from user_svc.model import Email
from user_svc.password_rules import PasswordRules
from user_svc.passwords import Passwords
from user_svc.rpc import UserServicer
from user_svc.service import NewUser, UserService
from user_svc.sessions.rpc import SessionServicer
from user_svc.sessions.service import SessionService, SessionSettings
from user_svc.settings import PasswordRuleSettings, PasswordSettings, UserTelemetrySettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from grpc import aio


@dataclass(frozen=True, slots=True)
class _Parts:
    """The parts that every command uses."""

    clock: SystemClock
    database: Database
    passwords: Passwords
    attempts: Attempts
    keys: SigningKeys
    sessions: SessionSettings

    @property
    def users(self) -> UserService:
        rules = PasswordRules(load(PasswordRuleSettings))
        return UserService(self.database, self.passwords, self.attempts, rules, clock=self.clock)


@contextlib.asynccontextmanager
async def _parts() -> AsyncIterator[_Parts]:
    clock = SystemClock()
    sessions = load(SessionSettings)
    database = Database(load(DatabaseSettings), name=load(UserTelemetrySettings).service_name)
    passwords = Passwords(load(PasswordSettings))
    keys = SigningKeys(database, load(KeySettings), clock, token_lifetime_s=sessions.access_lifetime_s)
    try:
        yield _Parts(clock, database, passwords, Attempts(database, passwords, clock), keys, sessions)
    finally:
        await passwords.close()
        await database.close()


async def serve() -> None:
    """Serve calls until SIGTERM or SIGINT."""
    settings = load(UserTelemetrySettings)
    with telemetry.running(settings, command="serve"):
        await _serve(settings)


async def _serve(settings: UserTelemetrySettings) -> None:
    certificates = CertificateFiles.of(load(TlsSettings))
    async with _parts() as parts:
        tokens = load(TokenSettings)
        sessions = SessionService(
            parts.database,
            parts.passwords,
            parts.attempts,
            parts.keys,
            parts.clock,
            settings=parts.sessions,
            tokens=tokens,
        )

        # Now, and not with the first login: the edge needs a key, and a wrong secret must not become a running replica.
        with contextlib.suppress(DatabaseUnavailable):
            await parts.keys.current()

        def register(server: aio.Server) -> list[str]:
            add_UserServiceServicer_to_server(UserServicer(parts.users, parts.clock), server)
            add_SessionServiceServicer_to_server(SessionServicer(sessions, parts.keys), server)
            return [full_name(user_service_pb2, "UserService"), full_name(session_service_pb2, "SessionService")]

        server = Server(
            load(ServerSettings),
            register=register,
            system=SystemServicer(settings, parts.database),
            tokens=AccessTokens(tokens, parts.keys),
            certificates=certificates,
        )
        await serve_until_signalled(
            server,
            background=[
                store.sweep_forever(parts.database, parts.clock),
                backlog.watch_forever(parts.database),
                sweeps.sweep_forever(parts.database, parts.clock),
            ],
        )


def migrate() -> None:
    """Bring the database to the newest version."""
    migrations.upgrade("user_svc", load(DatabaseSettings))


async def rotate_keys() -> None:
    """Make a new signing key; it signs once every process knows it."""
    async with _parts() as parts:
        key = await parts.keys.rotate()
        print(f"{key.kid} signs from {key.active_from:%Y-%m-%d %H:%M:%S} UTC")  # noqa: T201  the command's answer


async def list_keys() -> None:
    """List the published signing keys, newest first, and say which one signs."""
    async with _parts() as parts:
        current = await parts.keys.current()
        for key in await parts.keys.published():
            mark = "  signs now" if key.kid == current.kid else ""
            print(f"{key.kid}  from {key.active_from:%Y-%m-%d %H:%M:%S} UTC{mark}")  # noqa: T201  the answer


async def end_sessions() -> None:
    """End the sessions of all users; their access tokens work until they expire."""
    async with _parts() as parts:
        ended = await sweeps.end_all_sessions(parts.database, parts.clock)
        print(f"{ended} sessions are ended")  # noqa: T201  the command's answer


async def create_admin(email: str) -> None:
    """Make the user with this email an admin; a new one with the password on standard input if there is none."""
    async with _parts() as parts:
        password = getpass.getpass("Password: ") if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
        require_valid(user_service_pb2.CreateUserRequest(email=email, password=password, display_name="Admin"))
        new = NewUser(email=Email.parse(email), password=password, display_name="Admin", profile={})
        user = await parts.users.make_admin(new)
        print(f"{user.id} is an admin")  # noqa: T201  the command's answer


EVENTS = EventCommands(
    telemetry=lambda: load(UserTelemetrySettings), publishes="user", reads="order", handle=consumer.handle
)

if __name__ == "__main__":
    cli.main(
        "user_svc",
        {
            "serve": serve,
            "migrate": migrate,
            **EVENTS.commands,
            "keys rotate": rotate_keys,
            "keys list": list_keys,
            "sessions end-all": end_sessions,
            "admin create": create_admin,
        },
    )
