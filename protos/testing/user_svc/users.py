"""The use cases of users, in memory: the same outcomes as `user_svc.service` has with its database."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from chassis.context import Role
from chassis.errors import RequestIdReused
from protos.testing.resources import Resources
from protos.testing.user_svc.passwords import RULES, Attempts, hash_of
from user_svc.commands import NewUser, PasswordChange, UserChange, UserDeletion, new_user, password_needed
from user_svc.errors import EmailTaken, InvalidCredentials, UserNotFound
from user_svc.model import Email, User, UserId, UserState, require_small_profile

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from uuid import UUID

    from chassis.idempotency.key import IdempotencyKey
    from chassis.server.pagination import Page, PageRequest
    from protos.testing.shop import Shop
    from user_svc.sessions.model import SessionId


class UsersInMemory:
    """The users of a shop. Its methods are those of UserService.

    Attributes:
        end_sessions: ends the sessions of a user but one.
        on_deleted: called with the id of each user that is deleted.
    """

    def __init__(self, shop: Shop) -> None:
        self._clock = shop.clock
        self._attempts = shop.part(Attempts)
        self._users: Resources[User] = Resources(UserNotFound)
        self.end_sessions: Callable[[UserId, SessionId | None], None] = _nothing
        self.on_deleted: list[Callable[[UserId], None]] = []

    def find(self, user_id: UserId) -> User | None:
        """Return a user, or None."""
        return self._users.find(user_id)

    def find_by_email(self, key: str) -> User | None:
        """Return the user with this email, or None."""
        return next((user for user in self._users if user.email and user.email.key == key), None)

    def put(self, user: User) -> User:
        """Write a user, as a test sets it."""
        return self._users.put(user)

    def create(self, *, email: str, password: str, display_name: str, roles: Sequence[str]) -> UserId:
        """Return the id of a new user with these roles, for a test.

        Raises:
            EmailTaken: another user has the email.
        """
        new = NewUser(email=Email.parse(email), password=password, display_name=display_name, profile={})
        return self._add(new, roles=[Role(role) for role in roles]).id

    def suspend(self, user_id: UUID) -> None:
        """Suspend a user, for a test; the contract has no rpc for it."""
        found = self._users.get(user_id)
        self.put(
            dataclasses.replace(
                found, state=UserState.SUSPENDED, updated_at=self._clock.now(), version=found.version + 1
            )
        )

    def _add(self, new: NewUser, *, roles: Sequence[Role]) -> User:
        if self.find_by_email(new.email.key):
            raise EmailTaken
        return self.put(new_user(new, roles=tuple(roles), password_hash=hash_of(new.password), now=self._clock.now()))

    async def create_user(self, new: NewUser, *, key: IdempotencyKey) -> User:
        """Create a user, as UserService.create_user() does."""
        require_small_profile(new.profile)
        RULES.require_acceptable(new.password, field="password")
        if (answered := self._users.answers.find(key)) is not None:
            self._require_repetition(answered, new.email.key, password=new.password, key=key)
            return answered
        return self._users.answers.keep(key, self._add(new, roles=(Role.USER,)))

    async def get_user(self, user_id: UserId, *, owner: UserId | None) -> User:
        """Return a user, as UserService.get_user() does."""
        return self._users.get(user_id, where=lambda user: owner in {None, user.id})

    async def get_users(self, ids: Sequence[UserId]) -> list[User]:
        """Return the users that exist, each once, in the order of the ids."""
        return [user for user_id in dict.fromkeys(ids) if (user := self._users.find(user_id))]

    async def get_states(self, ids: Collection[UserId]) -> Mapping[UserId, UserState]:
        """Return the states of the users that exist."""
        return {user_id: user.state for user_id in ids if (user := self._users.find(user_id))}

    async def list_users(self, page: PageRequest, *, email: Email | None, state: UserState | None) -> Page[User]:
        """Return a page of users, newest first."""

        def is_wanted(user: User) -> bool:
            is_named = email is None or user.email_key == email.key
            return is_named and (user.state is not UserState.DELETED if state is None else user.state is state)

        return self._users.newest_first(page, where=is_wanted)

    async def update_user(self, change: UserChange, *, owner: UserId | None, key: IdempotencyKey) -> User:
        """Change a user's fields, as UserService.update_user() does."""
        if change.profile is not None:
            require_small_profile(change.profile)
        if (answered := self._users.answers.find(key)) is not None:
            return answered
        user = await self.get_user(change.user_id, owner=owner)
        if owner is not None and change.email not in {None, user.email}:
            self._confirm(user, change.current_password)
        user.require_not_deleted()
        user.require_etag(change.etag)
        if not change.changed_fields():
            return self._users.answers.keep(key, user)
        taken = self.find_by_email(change.email.key) if change.email else None
        if taken is not None and taken.id != user.id:
            raise EmailTaken
        changed = user.changed(
            now=self._clock.now(), email=change.email, display_name=change.display_name, profile=change.profile
        )
        return self._users.answers.keep(key, self.put(changed))

    async def change_password(self, change: PasswordChange, *, owner: UserId | None, key: IdempotencyKey) -> User:
        """Replace a password, as UserService.change_password() does."""
        RULES.require_acceptable(change.new, field="newPassword")
        user = await self.get_user(change.user_id, owner=owner)
        answered = self._users.answers.find(key)
        user.require_not_deleted()
        if answered is not None:
            self._require_repetition(answered, user.email_key, password=change.new, key=key)
            return answered
        if not self._attempts.is_correct(change.current, password_hash=user.password_hash, account=user.email_key):
            raise InvalidCredentials
        changed = self.put(user.with_password(hash_of(change.new), now=self._clock.now()))
        self.end_sessions(user.id, change.session_id)
        return self._users.answers.keep(key, changed)

    async def delete_user(self, deletion: UserDeletion, *, owner: UserId | None, key: IdempotencyKey) -> None:
        """Delete a user, as UserService.delete_user() does."""
        if self._users.answers.find(key) is not None:
            return
        user = await self.get_user(deletion.user_id, owner=owner)
        if owner is not None:
            self._confirm(user, deletion.current_password)
        if user.state is UserState.DELETED:
            self._users.answers.keep(key, user)
            return
        user.require_etag(deletion.etag)
        deleted = self.put(user.deleted(now=self._clock.now()))
        self.end_sessions(user.id, None)
        self._users.answers.erase([user.id])
        self._users.answers.keep(key, deleted)
        for tell in self.on_deleted:
            tell(user.id)

    def _confirm(self, user: User, password: str) -> None:
        """Return if this is the user's password, or the user is deleted and has none."""
        if user.state is UserState.DELETED:
            return
        if not password:
            raise password_needed()
        if not self._attempts.is_correct(password, password_hash=user.password_hash, account=user.email_key):
            raise InvalidCredentials

    def _require_repetition(self, answered: User, account: str, *, password: str, key: IdempotencyKey) -> None:
        """Return if the earlier request with this key had the same password; another one is a guess, and counts."""
        if not self._attempts.is_correct(password, password_hash=answered.password_hash, account=account):
            raise RequestIdReused(str(key.request_id))


def _nothing(*_arguments: object) -> None:
    """Do nothing."""
