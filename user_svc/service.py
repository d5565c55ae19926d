"""The use cases of users. Opens the transactions."""

from __future__ import annotations

import itertools
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from pydantic import TypeAdapter

from chassis.context import Role
from chassis.database.keyed import Lookup
from chassis.errors import RequestIdReused
from chassis.events import outbox
from chassis.idempotency import store
from chassis.idempotency.store import ResponseCodec
from chassis.idempotency.transactions import stored_response, write_once
from user_svc import events, repository
from user_svc.attempts import Account, Attempt, account_of
from user_svc.commands import new_user, password_needed
from user_svc.errors import EmailTaken, InvalidCredentials, UserNotFound
from user_svc.model import User, UserState, require_small_profile
from user_svc.sessions import repository as session_repository

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from sqlalchemy import Connection

    from chassis.clock import Clock
    from chassis.database import Database
    from chassis.database.statement_pool import Fetch
    from chassis.idempotency.key import IdempotencyKey
    from chassis.server.pagination import Page, PageRequest
    from user_svc.attempts import Attempts
    from user_svc.commands import NewUser, PasswordChange, UserChange, UserDeletion
    from user_svc.model import Email, UserId
    from user_svc.password_rules import PasswordRules
    from user_svc.passwords import Passwords

_USER: Final = ResponseCodec.of(TypeAdapter(User), resource_id=attrgetter("id"))

# A group has up to 200 users: with more groups in a statement the first would only wait for the last. All profiles of a
# statement are decoded in one turn of the loop: 200 of the largest take some 20 ms.
_GROUPS_AT_ONCE: Final = 8
_WHOLE_GROUPS_AT_ONCE: Final = 2


class UserService:
    """The use cases of users."""

    def __init__(
        self, database: Database, passwords: Passwords, attempts: Attempts, rules: PasswordRules, *, clock: Clock
    ) -> None:
        self._database = database
        self._passwords = passwords
        self._attempts = attempts
        self._rules = rules
        self._clock = clock
        self._lookups = database.batched_reads(repository.find_users, name="users.find")
        self._state_lookups = database.batched_reads(_find_states, name="users.find_states", max_items=_GROUPS_AT_ONCE)
        self._group_lookups = database.batched_reads(
            _find_groups, name="users.find_groups", max_items=_WHOLE_GROUPS_AT_ONCE
        )

    async def create_user(self, new: NewUser, *, key: IdempotencyKey) -> User:
        """Create a user, in state ACTIVE with the role USER.

        Raises:
            EmailTaken: another user has the email.
            InvalidFields: the profile cannot be kept, or the password breaks the rules for new ones.
            RequestIdReused: the request id was used with other content.
        """
        require_small_profile(new.profile)
        self._rules.require_acceptable(new.password, field="password")
        password_hash = await self._passwords.hash(new.password)
        user = new_user(new, roles=(Role.USER,), password_hash=password_hash, now=self._clock.now())

        def write(connection: Connection) -> User:
            if not repository.insert_users(connection, [user]):
                raise EmailTaken
            outbox.add(connection, [events.user_created(user)])
            return user

        created = await self._write_once(write, key)
        if created.password_hash != user.password_hash:
            await self._require_repetition(created, account_of(new.email.key), password=new.password, key=key)
        return created

    async def get_user(self, user_id: UserId, *, owner: UserId | None) -> User:
        """Return a user, also a deleted one; `owner` is the only user that the caller may see, None for any.

        Raises:
            UserNotFound: there is none.
        """
        found = await self._lookups.submit(Lookup(user_id, owner))
        if found is None:
            raise UserNotFound(user_id)
        return found

    async def get_users(self, ids: Sequence[UserId]) -> list[User]:
        """Return the users that exist, deleted ones included, each once, in the order of the ids."""
        found = await self._group_lookups.submit([Lookup(user_id) for user_id in dict.fromkeys(ids)])
        return [user for user in found if user is not None]

    async def get_states(self, ids: Collection[UserId]) -> Mapping[UserId, UserState]:
        """Return the states of the users that exist, deleted ones included; more users may be in it."""
        return await self._state_lookups.submit(ids)

    async def list_users(self, page: PageRequest, *, email: Email | None, state: UserState | None) -> Page[User]:
        """Return a page of users, newest first."""
        return await self._database.read(
            lambda connection: repository.list_users(connection, page, email=email, state=state)
        )

    async def update_user(self, change: UserChange, *, owner: UserId | None, key: IdempotencyKey) -> User:
        """Change a user's fields. `owner` as in get_user().

        Raises:
            UserNotFound: there is no such user.
            UserNotActive: it is deleted.
            EmailTaken: another user has the email.
            EtagMismatch: the user has changed since.
            InvalidFields: the profile cannot be kept, or the current password is needed and missing.
            InvalidCredentials: the current password is wrong.
            TooManyAttempts: there were too many wrong passwords for this user's email.
            Overloaded: too many calls wait for a hash.
            RequestIdReused: the request id was used with other content.
        """
        if change.profile is not None:
            require_small_profile(change.profile)
        confirmed: User | None = None
        if owner is not None and change.email is not None:
            stored = await self._stored(key)
            if stored is not None:
                return stored
            user = await self.get_user(change.user_id, owner=owner)
            if change.email != user.email:
                confirmed = await self._confirmed(user, change.current_password, key=key)

        def write(connection: Connection) -> User:
            user = _locked(connection, change.user_id, owner=owner)
            user.require_not_deleted()
            if owner is not None and confirmed is None and change.email not in {None, user.email}:
                raise password_needed()  # the email was the same before it changed a moment ago
            _require_unchanged_password(user, confirmed)
            user.require_etag(change.etag)
            if not change.changed_fields():
                return user
            if change.email is not None:
                repository.require_free_email(connection, change.email, of=user.id)
            changed = user.changed(
                now=self._clock.now(),
                email=change.email,
                display_name=change.display_name,
                profile=change.profile,
            )
            repository.replace_users(connection, [changed])
            outbox.add(connection, [events.user_updated(changed, changed=change.changed_fields())])
            return changed

        return await self._write_once(write, key)

    async def change_password(self, change: PasswordChange, *, owner: UserId | None, key: IdempotencyKey) -> User:
        """Replace a user's password and end the user's other sessions. `owner` as in get_user().

        Raises:
            InvalidFields: the new password breaks the rules for new ones.
            UserNotFound, UserNotActive, InvalidCredentials, TooManyAttempts, Overloaded, RequestIdReused: as
                update_user().
        """
        self._rules.require_acceptable(change.new, field="newPassword")
        # Outside of the transaction: a hash takes far longer than a row may be locked.
        user = await self.get_user(change.user_id, owner=owner)
        stored = await self._stored(key)
        user.require_not_deleted()
        account = account_of(user.email_key)
        if stored is None and not await self._is_password(change.current, of=user, key=key):
            stored = await self._stored(key)
            if stored is None:
                raise InvalidCredentials
        if stored is not None:
            await self._require_repetition(stored, account, password=change.new, key=key)
            return stored
        password_hash = await self._passwords.hash(change.new)

        def write(connection: Connection) -> User:
            locked = _locked(connection, change.user_id, owner=owner)
            if not locked.has_password_of(user):
                raise InvalidCredentials
            now = self._clock.now()
            changed = locked.with_password(password_hash, now=now)
            repository.replace_users(connection, [changed])
            # Someone who knew the old password may have a session.
            session_repository.end_sessions_of(connection, [changed.id], but=change.session_id, now=now)
            outbox.add(connection, [events.user_updated(changed, changed=["password"])])
            return changed

        changed = await self._write_once(write, key)
        if changed.password_hash != password_hash:
            await self._require_repetition(changed, account, password=change.new, key=key)
        return changed

    async def delete_user(self, deletion: UserDeletion, *, owner: UserId | None, key: IdempotencyKey) -> None:
        """Delete a user and its personal data. Succeeds if it is deleted already. `owner` as in get_user().

        Raises:
            UserNotFound: there never was such a user.
            EtagMismatch, InvalidFields, InvalidCredentials, TooManyAttempts, Overloaded, RequestIdReused: as
                update_user().
        """
        user_id = deletion.user_id
        confirmed: User | None = None
        if owner is not None:
            if await self._stored(key) is not None:
                return
            user = await self.get_user(user_id, owner=owner)
            confirmed = await self._confirmed(user, deletion.current_password, key=key)

        def write(connection: Connection) -> User:
            user = _locked(connection, user_id, owner=owner)
            if user.state is UserState.DELETED:
                return user
            _require_unchanged_password(user, confirmed)
            user.require_etag(deletion.etag)
            deleted = user.deleted(now=self._clock.now())
            repository.replace_users(connection, [deleted])
            session_repository.end_sessions_of(connection, [user_id], now=deleted.updated_at)
            store.erase_responses(connection, [user_id])
            outbox.add(connection, [events.user_deleted(deleted)])
            return deleted

        await self._write_once(write, key)

    async def _write_once(self, write: Callable[[Connection], User], key: IdempotencyKey) -> User:
        def run(connection: Connection) -> User:
            return write_once(connection, key, lambda: write(connection), codec=_USER)

        return await self._database.transaction(run)

    async def _confirmed(self, user: User, password: str, *, key: IdempotencyKey) -> User:
        """Return the user if this is its password. A deleted user has none, so none is asked for."""
        if user.state is UserState.DELETED:
            return user
        if not password:
            raise password_needed()
        if not await self._is_password(password, of=user, key=key):
            raise InvalidCredentials
        return user

    async def _is_password(self, password: str, *, of: User, key: IdempotencyKey) -> bool:
        """Return whether the password is the user's. A wrong one counts, unless this request has a response by now."""

        async def is_repetition() -> bool:
            # This may be a retry: its first attempt already replaced the password that it names as current.
            return await self._stored(key) is not None

        attempt = Attempt(
            account=account_of(of.email_key),
            password=password,
            password_hash=of.password_hash,
            is_excused=is_repetition,
        )
        return (await self._attempts.check(attempt)).is_correct

    async def _stored(self, key: IdempotencyKey) -> User | None:
        """Return the response to an earlier request with this key, or None."""
        return await self._database.read(lambda connection: stored_response(connection, key, codec=_USER))

    async def _require_repetition(self, stored: User, account: Account, *, password: str, key: IdempotencyKey) -> None:
        """Return if the earlier request with this key had the same password; the fingerprint leaves it out.

        Another password is a guess at the first one, and counts.
        """
        attempt = Attempt(account=account, password=password, password_hash=stored.password_hash)
        if not (await self._attempts.check(attempt)).is_correct:
            raise RequestIdReused(str(key.request_id or ""))


async def _find_groups(fetch: Fetch, groups: Sequence[Sequence[Lookup[UserId]]]) -> list[list[User | None]]:
    """Return for each group the users, as find_users() does."""
    found = iter(await repository.find_users(fetch, list(itertools.chain.from_iterable(groups))))
    return [list(itertools.islice(found, len(group))) for group in groups]


async def _find_states(fetch: Fetch, groups: Sequence[Collection[UserId]]) -> list[Mapping[UserId, UserState]]:
    """Return for each group the states of all users of all groups, which one statement found."""
    return [await repository.find_states(fetch, set(itertools.chain.from_iterable(groups)))] * len(groups)


def _require_unchanged_password(user: User, confirmed: User | None) -> None:
    """Return if the confirmed password, if there is one, is still current: hashing took a while."""
    if confirmed is not None and not user.has_password_of(confirmed):
        raise InvalidCredentials


def _locked(connection: Connection, user_id: UserId, *, owner: UserId | None) -> User:
    found = repository.lock_users(connection, [user_id], owner=owner)
    if not found:
        raise UserNotFound(user_id)
    return found[0]
