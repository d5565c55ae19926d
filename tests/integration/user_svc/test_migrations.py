"""What the migrations make of users who are there already."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING, Final

import pytest

from tests.integration.replica import run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.integration.databases import TestDatabase

# Three spellings of one letter, of which only the last is in NFC.
DECOMPOSED: Final = "e\u0323\u0302@example.com"
HALF_COMPOSED: Final = "\u00ea\u0323@example.com"
COMPOSED: Final = "\u1ec7@example.com"


def users_before_composition(database: TestDatabase, keys: Sequence[str | None]) -> None:
    """Write users with these keys of emails, the oldest first, into the tables of 0008."""
    database.query("UPDATE alembic_version SET version_num = '0008'")
    for number, key in enumerate(keys):
        database.query(
            "INSERT INTO users"
            " (id, email, email_key, display_name, state, roles, password_hash, created_at, updated_at, version)"
            " VALUES (%s, %s, %s, 'Ada', 'ACTIVE', '{USER}', '', now(), now(), 1)",
            f"00000000-0000-0000-0000-{number:012}",
            key,
            key,
        )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([DECOMPOSED], [COMPOSED]),
        ([DECOMPOSED, HALF_COMPOSED], [COMPOSED, HALF_COMPOSED]),
        ([HALF_COMPOSED, DECOMPOSED], [COMPOSED, DECOMPOSED]),
        ([DECOMPOSED, HALF_COMPOSED, COMPOSED], [DECOMPOSED, HALF_COMPOSED, COMPOSED]),
        (["ada@example.com", DECOMPOSED], ["ada@example.com", COMPOSED]),
    ],
)
def test_one_user_of_an_email_has_its_key_in_nfc(before: list[str], after: list[str], users_copy: TestDatabase) -> None:
    users_before_composition(users_copy, before)

    ended = run("user_svc", "migrate", DATABASE_URL=users_copy.url)

    assert (ended.returncode, ended.stderr) == (0, "")
    assert [key for (key,) in users_copy.query("SELECT email_key FROM users ORDER BY id")] == after


def test_the_spellings_are_those_of_one_email() -> None:
    assert unicodedata.normalize("NFC", DECOMPOSED) == unicodedata.normalize("NFC", HALF_COMPOSED) == COMPOSED
