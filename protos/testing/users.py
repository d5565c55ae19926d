"""The use cases of users, in memory: the same outcomes as `user_svc.service` has with its database."""

from __future__ import annotations

import dataclasses
from operator import attrgetter
from typing import TYPE_CHECKING

from chassis.context import Role
from chassis.errors import RequestIdReused
from protos.testing.answers import Answers
from protos.testing.passwords import RULES, Attempts, hash_of
from user_svc.commands import NewUser, PasswordChange, UserChange, UserDeletion, new_user, password_needed
from user_svc.errors import EmailTaken, InvalidCredentials, UserNotFound
from user_svc.model import Email, User, UserId, UserState, require_small_profile

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from chassis.clock import Clock
    from chassis.idempotency.key import IdempotencyKey
    from chassis.server.pagination import Page, PageRequest
    from user_svc.sessions.model import SessionId


class UsersInMemory:
    """The users of a shop. Its methods are those of UserService.

    Attributes:
        end_sessions: ends the sessions of a user but one.
        on_deleted: called with each user that is deleted.
    """

    def __init__(self, clock: Clock, attempts: Attempts) -> None:
        self._clock = clock
        self._attempts = attempts
        self._users: dict[UserId, User] = {}
        self._answers: Answers[User] = Answers(attrgetter("id"))
        self.end_sessions: Callable[[UserId, SessionId | None], None] = _nothing
        self.on_deleted: Callable[[UserId], None] = _nothing

    def find(self, user_id: UserId) -> User | None:
        """Return a user, or None."""
        return self._users.get(user_id)

    def find_by_email(self, key: str) -> User | None:
        """Return the user with this email, or None."""
        return next((user for user in self._users.values() if user.email and user.email.key == key), None)

    def put(self, user: User) -> User:
        """Write a user, as a test sets it."""
        self._users[user.id] = user
        return user

    def add(self, new: NewUser, *, roles: Sequence[Role]) -> User:
        """Return a new user with these roles, for a test.

        Raises:
            EmailTaken: another user has the email.
        """
        if self.find_by_email(new.email.key):
            raise EmailTaken
        return self.put(new_user(new, roles=tuple(roles), password_hash=hash_of(new.password), now=self._clock.now()))

    def count_order(self, user_id: UserId) -> None:
        """Take note of an order that the user has placed."""
        if user := self._users.get(user_id):
            self.put(dataclasses.replace(user, order_count=user.order_count + 1))

    async def create_user(self, new: NewUser, *, key: IdempotencyKey) -> User:
        """Create a user, as UserService.create_user() does."""
        require_small_profile(new.profile)
        RULES.require_acceptable(new.password, field="password")
        if (answered := self._answers.find(key)) is not None:
            self._require_repetition(answered, new.email.key, password=new.password, key=key)
            return answered
        return self._answers.keep(key, self.add(new, roles=(Role.USER,)))

    async def get_user(self, user_id: UserId, *, owner: UserId | None) -> User:
        """Return a user, as UserService.get_user() does."""
        user = self._users.get(user_id)
        if user is None or owner not in {None, user_id}:
            raise UserNotFound(user_id)
        return user

    async def get_users(self, ids: Sequence[UserId]) -> list[User]:
        """Return the users that exist, each once, in the order of the ids."""
        return [self._users[user_id] for user_id in dict.fromkeys(ids) if user_id in self._users]

    async def get_states(self, ids: Collection[UserId]) -> Mapping[UserId, UserState]:
        """Return the states of the users that exist."""
        return {user_id: self._users[user_id].state for user_id in ids if user_id in self._users}

    async def list_users(self, page: PageRequest, *, email: Email | None, state: UserState | None) -> Page[User]:
        """Return a page of users, newest first."""
        found = [
            user
            for user in sorted(self._users.values(), key=attrgetter("id"), reverse=True)
            if (page.after is None or user.id < page.after)
            and (email is None or (user.email is not None and user.email.key == email.key))
            and (user.state is not UserState.DELETED if state is None else user.state is state)
        ]
        return page.split(found)

    async def update_user(self, change: UserChange, *, owner: UserId | None, key: IdempotencyKey) -> User:
        """Change a user's fields, as UserService.update_user() does."""
        if change.profile is not None:
            require_small_profile(change.profile)
        if (answered := self._answers.find(key)) is not None:
            return answered
        if owner is not None and change.email is not None:
            await self._confirm(change.user_id, change.current_password, owner=owner)
        user = await self.get_user(change.user_id, owner=owner)
        user.require_not_deleted()
        user.require_etag(change.etag)
        if not change.changed_fields():
            return self._answers.keep(key, user)
        taken = self.find_by_email(change.email.key) if change.email else None
        if taken is not None and taken.id != user.id:
            raise EmailTaken
        changed = user.changed(
            now=self._clock.now(), email=change.email, display_name=change.display_name, profile=change.profile
        )
        return self._answers.keep(key, self.put(changed))

    async def change_password(self, change: PasswordChange, *, owner: UserId | None, key: IdempotencyKey) -> User:
        """Replace a password, as UserService.change_password() does."""
        RULES.require_acceptable(change.new, field="newPassword")
        user = await self.get_user(change.user_id, owner=owner)
        answered = self._answers.find(key)
        user.require_not_deleted()
        account = user.email.key if user.email else ""
        if answered is not None:
            self._require_repetition(answered, account, password=change.new, key=key)
            return answered
        if not self._attempts.is_correct(change.current, password_hash=user.password_hash, account=account):
            raise InvalidCredentials
        changed = self.put(user.with_password(hash_of(change.new), now=self._clock.now()))
        self.end_sessions(user.id, change.session_id)
        return self._answers.keep(key, changed)

    async def delete_user(self, deletion: UserDeletion, *, owner: UserId | None, key: IdempotencyKey) -> None:
        """Delete a user, as UserService.delete_user() does."""
        if self._answers.find(key) is not None:
            return
        if owner is not None:
            await self._confirm(deletion.user_id, deletion.current_password, owner=owner)
        user = await self.get_user(deletion.user_id, owner=owner)
        if user.state is UserState.DELETED:
            self._answers.keep(key, user)
            return
        user.require_etag(deletion.etag)
        deleted = self.put(user.deleted(now=self._clock.now()))
        self.end_sessions(user.id, None)
        self._answers.erase([user.id])
        self._answers.keep(key, deleted)
        self.on_deleted(user.id)

    async def _confirm(self, user_id: UserId, password: str, *, owner: UserId) -> None:
        """Return if this is the user's password, or the user is deleted and has none."""
        user = await self.get_user(user_id, owner=owner)
        if user.state is UserState.DELETED:
            return
        if not password:
            raise password_needed()
        account = user.email.key if user.email else ""
        if not self._attempts.is_correct(password, password_hash=user.password_hash, account=account):
            raise InvalidCredentials

    def _require_repetition(self, answered: User, account: str, *, password: str, key: IdempotencyKey) -> None:
        """Return if the earlier request with this key had the same password; another one is a guess, and counts."""
        if not self._attempts.is_correct(password, password_hash=answered.password_hash, account=account):
            raise RequestIdReused(str(key.request_id))


def _nothing(*_arguments: object) -> None:
    """Do nothing."""
