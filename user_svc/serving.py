"""The commands that need the whole service: `serve`, `migrate`, `keys …`, `sessions …`, `admin …`."""

from __future__ import annotations

import getpass
import sys
from typing import TYPE_CHECKING, Final

from shop.user.v1 import user_service_pb2

from chassis.server.validation import require_valid
from chassis.serving import serving_commands
from chassis.settings import load, load_sections
from user_svc import sweeps
from user_svc.admins import make_admin
from user_svc.commands import NewUser
from user_svc.composition import PartSettings, Settings, build, parts
from user_svc.model import Email
from user_svc.password_rules import PasswordRules
from user_svc.settings import PasswordRuleSettings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chassis.runtime.cli import Command


async def rotate_keys() -> None:
    """Make a new signing key; it signs once every process knows it."""
    async with parts(load_sections(PartSettings)) as made:
        key = await made.keys.rotate()
        print(f"{key.kid} signs from {key.active_from:%Y-%m-%d %H:%M:%S} UTC")  # noqa: T201  the command's answer


async def list_keys() -> None:
    """List the published signing keys, newest first, and say which one signs."""
    async with parts(load_sections(PartSettings)) as made:
        current = await made.keys.current()
        for key in await made.keys.published():
            mark = "  signs now" if key.kid == current.kid else ""
            print(f"{key.kid}  from {key.active_from:%Y-%m-%d %H:%M:%S} UTC{mark}")  # noqa: T201  the answer


async def end_sessions() -> None:
    """End the sessions of all users; their access tokens work until they expire."""
    async with parts(load_sections(PartSettings)) as made:
        ended = await sweeps.end_all_sessions(made.database, made.clock)
        print(f"{ended} sessions are ended")  # noqa: T201  the command's answer


async def create_admin(email: str) -> None:
    """Make the user with this email an admin; a new one with the password on standard input if there is none."""
    async with parts(load_sections(PartSettings)) as made:
        password = getpass.getpass("Password: ") if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
        require_valid(user_service_pb2.CreateUserRequest(email=email, password=password, display_name="Admin"))
        new = NewUser(email=Email.parse(email), password=password, display_name="Admin", profile={})
        rules = PasswordRules(load(PasswordRuleSettings))
        user = await make_admin(made.database, made.passwords, rules, new=new, now=made.clock.now())
        print(f"{user.id} is an admin")  # noqa: T201  the command's answer


COMMANDS: Final[Mapping[str, Command]] = {
    **serving_commands("user_svc", Settings, build),
    "keys rotate": rotate_keys,
    "keys list": list_keys,
    "sessions end-all": end_sessions,
    "admin create": create_admin,
}
