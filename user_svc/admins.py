"""The use case of operators: make an admin. No rpc gives roles."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chassis.context import Role
from chassis.events import outbox
from user_svc import events, repository
from user_svc.commands import new_user
from user_svc.errors import EmailTaken

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

    from chassis.database import Database
    from user_svc.commands import NewUser
    from user_svc.model import User
    from user_svc.password_rules import PasswordRules
    from user_svc.passwords import Passwords


async def make_admin(
    database: Database, passwords: Passwords, rules: PasswordRules, *, new: NewUser, now: datetime
) -> User:
    """Give the user with this email the role ADMIN; create one if there is none.

    A user who exists keeps their password.

    Raises:
        EmailTaken: another user took the email just now.
        InvalidFields: the password breaks the rules for new ones.
    """
    rules.require_acceptable(new.password, field="password")
    password_hash = await passwords.hash(new.password)

    def write(connection: Connection) -> User:
        found = repository.find_by_email(connection, new.email.key)
        if found is None:
            admin = new_user(new, roles=(Role.USER, Role.ADMIN), password_hash=password_hash, now=now)
            if not repository.insert_users(connection, [admin]):
                raise EmailTaken
            outbox.add(connection, [events.user_created(admin)])
            return admin
        [user] = repository.lock_users(connection, [found.id])
        admin = user.with_role(Role.ADMIN, now=now)
        repository.replace_users(connection, [admin])
        outbox.add(connection, [events.user_updated(admin, changed=["roles"])])
        return admin

    return await database.transaction(write)
