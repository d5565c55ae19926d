"""Typed text: names, emails and passwords, in every Unicode form of keyboards and clipboards."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING, Any

import argon2
import pytest
from buf.validate import validate_pb2
from google.protobuf.descriptor import FieldDescriptor
from grpc import StatusCode
from shop.system.v1 import text_rules_pb2
from shop.user.v1 import session_service_pb2 as sessions_pb
from shop.user.v1 import user_service_pb2 as pb
from shop.user.v1.session_service_pb2_grpc import SessionServiceStub
from shop.user.v1.user_service_pb2_grpc import UserServiceStub

from chassis.testing import bearer, plain_channel, refusal_of, token_of
from tests.integration.inprocess import database_settings
from tests.integration.user_svc.inprocess import user_service
from tests.support.requests import PASSWORD, create_user_request
from user_svc.settings import PasswordRuleSettings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from shop.user.v1.session_service_pb2_grpc import SessionServiceAsyncStub
    from shop.user.v1.user_pb2 import User
    from shop.user.v1.user_service_pb2_grpc import UserServiceAsyncStub

    from chassis.testing import Refusal
    from tests.integration.databases import TestDatabase

# Secrets are taken as they are: a password of before may be of spaces, and a token is no text.
TAKEN_AS_THEY_ARE = {
    "CreateSessionRequest.password",
    "ChangePasswordRequest.current_password",
    "RefreshSessionRequest.refresh_token",
}
BLANK = {
    "spaces": " ",
    "tab and new line": "\t\n",
    "no-break space": "\u00a0",
    "ideographic space": "\u3000",
    "zero width space": "\u200b",
    "zero width joiner": "\u200d",
    "word joiner": "\u2060",
    "byte order mark": "\ufeff",
    "soft hyphen": "\u00ad",
    "right-to-left mark": "\u200f",
    "Hangul filler": "\u3164",
    "halfwidth Hangul filler": "\uffa0",
    "Braille blank": "\u2800",
    "grapheme joiner": "\u034f",
    "variation selector": "\ufe0f",
    "tag space": "\U000e0020",
    "line separator": "\u2028",
}


def must_say_something(field: FieldDescriptor) -> bool:
    rules = field.GetOptions().Extensions[validate_pb2.field]
    return rules.required or bool(rules.string.min_len) or rules.string.Extensions[text_rules_pb2.not_blank]


FIELDS = {
    f"{method.input_type.name}.{field.name}": (method.name, field.name, field.json_name)
    for file in (pb.DESCRIPTOR, sessions_pb.DESCRIPTOR)
    for service in file.services_by_name.values()
    for method in service.methods
    for field in method.input_type.fields
    if field.type == FieldDescriptor.TYPE_STRING and not field.is_repeated and must_say_something(field)
}


def test_there_are_texts_to_check() -> None:
    assert len(FIELDS.keys() - TAKEN_AS_THEY_ARE) >= 7
    assert FIELDS.keys() >= TAKEN_AS_THEY_ARE


class Callers:
    """Sends a request of any method that is good but for the fields to change."""

    def __init__(self, users: UserServiceAsyncStub, sessions: SessionServiceAsyncStub, user: User) -> None:
        as_owner = bearer(token_of(user.id))
        self._calls: dict[str, Callable[[dict[str, str]], Awaitable[object]]] = {
            "CreateUser": lambda changes: users.CreateUser(create_user_request(**changes)),
            "UpdateUser": lambda changes: users.UpdateUser(_changed(pb.UpdateUserRequest(id=user.id), changes)),
            "ChangePassword": lambda changes: users.ChangePassword(
                _changed(
                    pb.ChangePasswordRequest(
                        id=user.id, current_password=PASSWORD, new_password="another horse battery"
                    ),
                    changes,
                ),
                metadata=as_owner,
            ),
            "CreateSession": lambda changes: sessions.CreateSession(
                _changed(sessions_pb.CreateSessionRequest(email=user.email, password=PASSWORD), changes)
            ),
        }

    def send(self, method: str, **changes: str) -> Awaitable[object]:
        return self._calls[method](changes)


def _changed(request: Any, changes: dict[str, str]) -> Any:
    for name, value in changes.items():
        setattr(request, name, value)
    return request


@pytest.fixture
async def callers(users: UserServiceAsyncStub, sessions: SessionServiceAsyncStub) -> Callers:
    return Callers(users, sessions, await users.CreateUser(create_user_request()))


@pytest.mark.parametrize("key", sorted(FIELDS.keys() - TAKEN_AS_THEY_ARE))
async def test_a_text_that_shows_nothing_is_blank(callers: Callers, key: str) -> None:
    method, field, json_name = FIELDS[key]
    refusals: dict[str, Refusal] = {}

    for name, blank in BLANK.items():
        refusals[name] = await refusal_of(callers.send(method, **{field: blank * 20}))

    expected = (StatusCode.INVALID_ARGUMENT, (json_name,))
    assert {name: (each.code, each.fields) for name, each in refusals.items()} == dict.fromkeys(BLANK, expected)


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("  Ada ", "Ada"),
        ("\u00a0Ada\u3000\n", "Ada"),
        ("\ufeffAda\u200b \u200b", "Ada"),
        ("Jose\u0301", "José"),
        ("Ada  King", "Ada  King"),
        ("❤\ufe0f", "❤\ufe0f"),
        ("👩\u200d💻", "👩\u200d💻"),
        ("\u202eAda\u202c", "\u202eAda\u202c"),
    ],
)
async def test_a_name_is_kept_in_nfc_without_the_white_space_around_it(
    users: UserServiceAsyncStub, typed: str, kept: str
) -> None:
    created = await users.CreateUser(create_user_request(display_name=typed))
    updated = await users.UpdateUser(pb.UpdateUserRequest(id=created.id, display_name=typed))

    assert (created.display_name, updated.display_name) == (kept, kept)


@pytest.mark.parametrize("method", ["CreateUser", "UpdateUser"])
@pytest.mark.parametrize(
    ("field", "name", "text", "outcome"),
    [
        # Three characters in NFC.
        ("display_name", "displayName", "\ufb2c" * 33, "kept"),
        ("display_name", "displayName", "\ufb2c" * 34, "refused"),
        ("display_name", "displayName", "e\u0301" * 50, "kept"),
        ("email", "email", "\ufb2c" * 21 + "@example.com", "kept"),
        ("email", "email", "\ufb2c" * 22 + "@example.com", "refused"),
    ],
)
async def test_a_text_that_is_kept_can_be_sent_again(
    callers: Callers, users: UserServiceAsyncStub, method: str, field: str, name: str, text: str, outcome: str
) -> None:
    call = callers.send(method, **{field: text})

    if outcome == "kept":
        kept: Any = await call
        again = await users.UpdateUser(_changed(pb.UpdateUserRequest(id=kept.id), {field: getattr(kept, field)}))
        assert getattr(again, field) == getattr(kept, field)
    else:
        refusal = await refusal_of(call)
        assert (refusal.reason, refusal.fields) == ("INVALID_FIELDS", (name,))


async def test_an_email_is_one_however_it_is_typed(
    users: UserServiceAsyncStub, sessions: SessionServiceAsyncStub
) -> None:
    nfc, nfd = "josé@example.com", unicodedata.normalize("NFD", "josé@example.com")
    user = await users.CreateUser(create_user_request(email=f" {nfd}\u200b\n"))

    assert user.email == nfc
    for typed in (nfc, nfd, f"\u00a0{nfc} ", nfd.upper()):
        session = await sessions.CreateSession(sessions_pb.CreateSessionRequest(email=typed, password=PASSWORD))
        [found] = (await users.ListUsers(pb.ListUsersRequest(email=typed))).users
        taken = await refusal_of(users.CreateUser(create_user_request(email=typed)))
        assert (session.user_id, found.id, taken.reason) == (user.id, user.id, "EMAIL_TAKEN")


# Passwords.

IN_NFC = "größer als fünf Äpfel"
IN_NFD = unicodedata.normalize("NFD", IN_NFC)


@pytest.mark.parametrize(("set_as", "typed"), [(IN_NFC, IN_NFD), (IN_NFD, IN_NFC), (IN_NFD, IN_NFD)])
async def test_a_password_is_the_same_in_every_unicode_form(
    users: UserServiceAsyncStub, sessions: SessionServiceAsyncStub, set_as: str, typed: str
) -> None:
    user = await users.CreateUser(create_user_request(password=set_as))

    session = await sessions.CreateSession(sessions_pb.CreateSessionRequest(email=user.email, password=typed))

    assert session.user_id == user.id


async def test_a_hash_of_the_typed_form_still_opens_and_is_replaced_by_one_of_the_nfc_form(
    users: UserServiceAsyncStub, sessions: SessionServiceAsyncStub, users_database: TestDatabase
) -> None:
    user = await users.CreateUser(create_user_request())
    cheap = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    users_database.query("UPDATE users SET password_hash = %s", cheap.hash(IN_NFD))

    def log_in(password: str) -> Awaitable[sessions_pb.Session]:
        return sessions.CreateSession(sessions_pb.CreateSessionRequest(email=user.email, password=password))

    before = await refusal_of(log_in(IN_NFC))
    await log_in(IN_NFD)

    assert before.reason == "INVALID_CREDENTIALS"
    assert (await log_in(IN_NFC)).user_id == user.id


async def test_a_password_from_before_the_rules_still_counts(
    users: UserServiceAsyncStub, sessions: SessionServiceAsyncStub, users_database: TestDatabase
) -> None:
    user = await users.CreateUser(create_user_request())
    cheap = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    users_database.query("UPDATE users SET password_hash = %s", cheap.hash("password"))

    login = sessions_pb.CreateSessionRequest(email=user.email, password="password")

    assert (await sessions.CreateSession(login)).user_id == user.id


@pytest.mark.parametrize("character", ["é", "한", "\u1f82"], ids=["two", "three", "four"])
async def test_the_longest_password_is_the_same_in_every_unicode_form(
    users: UserServiceAsyncStub, sessions: SessionServiceAsyncStub, character: str
) -> None:
    in_nfc = character * 128
    in_nfd = unicodedata.normalize("NFD", in_nfc)
    user = await users.CreateUser(create_user_request(password=in_nfd))

    for typed in (in_nfc, in_nfd):
        session = await sessions.CreateSession(sessions_pb.CreateSessionRequest(email=user.email, password=typed))
        assert session.user_id == user.id
    await Callers(users, sessions, user).send("ChangePassword", current_password=in_nfd, new_password=in_nfd)


async def test_the_longest_email_is_one_in_every_unicode_form(
    users: UserServiceAsyncStub, sessions: SessionServiceAsyncStub
) -> None:
    domain = ".".join(["d" * 63, "d" * 63, "d" * 61])
    email = f"{'é' * 64}@{domain}"
    assert len(email) == 254
    user = await users.CreateUser(create_user_request(email=email))

    login = sessions_pb.CreateSessionRequest(email=unicodedata.normalize("NFD", email), password=PASSWORD)

    assert (await sessions.CreateSession(login)).user_id == user.id


@pytest.mark.parametrize("field", ["CreateUser", "ChangePassword"])
@pytest.mark.parametrize(
    ("min_length", "password", "outcome"),
    [
        (15, "", "refused"),
        (15, "x" * 14, "refused"),
        (15, "fourteen chars", "refused"),
        (15, "fifteen chars !", "kept"),
        (15, "e\u0301" * 14, "refused"),
        (15, "e\u0301" * 15, "kept"),
        (15, "correct horse battery", "kept"),
        (15, "x" * 129, "refused"),
        (15, "e\u0301" * 129, "refused"),
        (8, "eightchr", "kept"),
        (8, "e\u0301ightch", "refused"),
        (8, "password", "refused"),
        (8, "PassWord1", "refused"),
        (8, "\uff50assword", "kept"),
        (8, "trustno1", "refused"),
        (8, "baseball", "refused"),
        (15, "1234567890QWERTYUIOP"[:20], "refused"),
    ],
)
async def test_a_new_password_is_long_enough_and_not_one_that_is_guessed_first(
    users_database: TestDatabase, field: str, min_length: int, password: str, outcome: str
) -> None:
    rules = PasswordRuleSettings(min_length=min_length)
    async with (
        user_service(database_settings(users_database.url), rules=rules) as address,
        plain_channel(address) as channel,
    ):
        users, sessions = UserServiceStub(channel), SessionServiceStub(channel)
        if field == "CreateUser":
            call = users.CreateUser(create_user_request(password=password))
        else:
            user = await users.CreateUser(create_user_request())
            call = Callers(users, sessions, user).send("ChangePassword", new_password=password)

        if outcome == "kept":
            await call
        else:
            refusal = await refusal_of(call)
            name = "password" if field == "CreateUser" else "newPassword"
            assert (refusal.code, refusal.fields) == (StatusCode.INVALID_ARGUMENT, (name,))
