"""The statements on users. Set-based: a list in, a list out. Never commits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Connection, bindparam, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError

from chassis.context import Role
from chassis.database.keyed import KeyedRows, Lookup
from chassis.database.statements import broken_constraint, uuid_array
from user_svc.errors import EmailTaken
from user_svc.model import Email, User, UserId, UserState
from user_svc.tables import users

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from chassis.database.statement_pool import Fetch
    from chassis.server.pagination import Page, PageRequest

_STATES_BY_IDS: Final = "SELECT id, state FROM users WHERE id = ANY (CAST(%s AS uuid[]))"

_insert = insert(users).on_conflict_do_nothing(constraint="users_email_key").returning(users.c.id)

# The consumer of the events of orders writes the count, also while a caller changes the user.
_NOT_REPLACED: Final = {"id", "created_at", "order_count"}

_replace = (
    update(users)
    .where(users.c.id == bindparam("key_id"), users.c.version == bindparam("key_version"))
    .values({column.name: bindparam(column.name) for column in users.c if column.name not in _NOT_REPLACED})
)


def insert_users(connection: Connection, new: Sequence[User]) -> list[UserId]:
    """Write new users; return the ids of those whose email was free."""
    written = connection.execute(_insert, [_to_row(user) for user in new])
    return [UserId(row.id) for row in written]


async def find_users(fetch: Fetch, lookups: Sequence[Lookup[UserId]]) -> list[User | None]:
    """Return for each lookup the user, or None if there is none that the caller may see."""
    return await _ROWS.find(fetch, lookups)


async def find_states(fetch: Fetch, ids: Collection[UserId]) -> dict[UserId, UserState]:
    """Return the states of the users that exist. Reads no other column, and nothing personal."""
    return {UserId(user_id): UserState(state) for user_id, state in await fetch(_STATES_BY_IDS, uuid_array(ids))}


def find_user(connection: Connection, user_id: UserId) -> User | None:
    """Return the user, or None."""
    row = connection.execute(select(users).where(users.c.id == user_id)).one_or_none()
    return _to_user(row) if row else None


def find_by_email(connection: Connection, email_key: str) -> User | None:
    """Return the user with this email, or None."""
    row = connection.execute(select(users).where(users.c.email_key == email_key)).one_or_none()
    return _to_user(row) if row else None


def rehash(connection: Connection, user_id: UserId, *, password_hash: str) -> None:
    """Write another hash of the same password. The user is the same, so its version stays."""
    connection.execute(update(users).where(users.c.id == user_id).values(password_hash=password_hash))


def lock_users(connection: Connection, ids: Sequence[UserId], *, owner: UserId | None = None) -> list[User]:
    """Return the users that exist and, if an owner is given, are the owner; by id.

    Their rows stay locked until the transaction ends.
    """
    locked = _ROWS.lock(connection, [Lookup(user_id, owner) for user_id in sorted(ids)], wait=True)
    return [user for user in locked if user is not None]


def require_free_email(connection: Connection, email: Email, *, of: UserId) -> None:
    """Return if no other user has the email. Another transaction may still take it: the constraint decides.

    Asked first, because PostgreSQL's own log quotes the email if the constraint refuses it.

    Raises:
        EmailTaken: another user has the email.
    """
    query = select(users.c.id).where(users.c.email_key == email.key, users.c.id != of)
    if connection.execute(query).one_or_none() is not None:
        raise EmailTaken


def replace_users(connection: Connection, changed: Sequence[User]) -> None:
    """Write the next version of users that this transaction has locked.

    Raises:
        EmailTaken: another user has one of the emails.
    """
    rows = [{**_to_row(user), "key_id": user.id, "key_version": user.version - 1} for user in changed]
    try:
        connection.execute(_replace, rows)
    except IntegrityError as error:
        if broken_constraint(error) == "users_email_key":
            raise EmailTaken from error
        raise


def list_users(
    connection: Connection, page: PageRequest, *, email: Email | None, state: UserState | None
) -> Page[User]:
    """Return a page of users, newest first: with this email, in this state; None is every state but DELETED."""
    query = page.newest_first(select(users), users.c.id)
    if email is not None:
        query = query.where(users.c.email_key == email.key)
    if state is None:
        # The text of users_present_idx, as a constant: with a parameter the planner could not use it.
        query = query.where(users.c.state != bindparam("deleted", "DELETED", literal_execute=True))
    else:
        query = query.where(users.c.state == state)
    return page.split([_to_user(row) for row in connection.execute(query)])


def _to_row(user: User) -> dict[str, object]:
    return {
        "id": user.id,
        "email": user.email.text if user.email else None,
        "email_key": user.email_key or None,
        "display_name": user.display_name,
        "profile": user.profile,
        "state": user.state,
        "roles": list(user.roles),
        "password_hash": user.password_hash,
        "created_at": user.created_at,
        "updated_at": user.updated_at,
        "version": user.version,
    }


def _to_user(columns: Sequence[Any]) -> User:
    # In the order of the table.
    user_id, email, email_key, display_name, profile, state, roles, password_hash, *rest = columns
    created_at, updated_at, version, order_count = rest
    return User(
        id=user_id,
        email=None if email is None else Email(email, email_key),
        display_name=display_name,
        profile=profile,
        state=UserState(state),
        roles=tuple([Role(role) for role in roles]),
        password_hash=password_hash,
        created_at=created_at,
        updated_at=updated_at,
        version=version,
        order_count=order_count,
    )


_ROWS: Final = KeyedRows(tuple(users.c), _to_user, owner=users.c.id)
