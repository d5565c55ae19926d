"""What a migration must not do to a table in use: stop the code that runs, or make its statements wait.

A deployment runs the migration while the code of the release before serves, and the new code beside that one.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

_ALTER: Final = re.compile(r"ALTER TABLE (?:IF EXISTS )?(?:ONLY )?(?P<table>\w+) (?P<actions>.*)")
_WRITE: Final = re.compile(r"\b(?:UPDATE|DELETE FROM) (?:ONLY )?(?P<table>\w+)")
_WHOLE: Final = re.compile(r"^(?:DROP TABLE|TRUNCATE(?: TABLE)?) (?:IF EXISTS )?(?P<table>\w+)")
_INDEX: Final = re.compile(
    r"^CREATE (?:UNIQUE )?INDEX (?!CONCURRENTLY).*? ON (?:ONLY )?(?P<table>\w+)|^DROP INDEX (?!CONCURRENTLY)"
)

_VOLATILE: Final = "gen_random_uuid|uuidv7|random|clock_timestamp|nextval"
# By what an action begins with: the first that matches counts.
_ACTIONS: Final = {
    r"ADD (CONSTRAINT \w+ )?(CHECK|FOREIGN KEY)\b(?!.*\bNOT VALID$)": "writers wait: NOT VALID, then VALIDATE later",
    r"ADD (CONSTRAINT \w+ )?(UNIQUE|PRIMARY KEY|EXCLUDE)\b(?!.*\bUSING INDEX\b)": "writers wait: USING INDEX",
    r"ADD CONSTRAINT\b": "",
    rf"ADD .*\b(DEFAULT ({_VOLATILE})\(|GENERATED\b)": "all statements wait: a value for each row is a backfill",
    r"ADD .*\b(REFERENCES|CHECK|UNIQUE|PRIMARY KEY)\b": "all statements wait: add the constraint after the column",
    r"ADD .*\bNOT NULL\b(?!.*\bDEFAULT\b)": "inserts of the code that runs fail: with a default, or nullable",
    r"ALTER (COLUMN )?\w+ (SET DATA )?TYPE\b": "all statements wait: add a column, and copy",
    r"ALTER (COLUMN )?\w+ SET NOT NULL": "all statements wait: first a valid CHECK that it is not NULL",
    r"RENAME\b": "the code that runs does not know the name: add a column, and copy",
    r"DROP (?!CONSTRAINT\b)": "the code that runs may use it: say since which release none does",
}


def faults_in(statement: str, *, new: Collection[str]) -> Iterator[str]:
    """Yield what the statement does and should not, as `ALTER TABLE orders ADD …: why`.

    Args:
        statement: one statement of a migration.
        new: the tables that the same migration makes, which nothing else uses yet.
    """
    text = " ".join(re.sub(r"--.*", "", statement).split()).rstrip(";")
    if (altered := _ALTER.match(text)) and altered["table"] not in new:
        for action in _parts(altered["actions"]):
            if why := next((why for pattern, why in _ACTIONS.items() if re.match(pattern, action)), ""):
                yield f"ALTER TABLE {altered['table']} {action}: {why}"
    elif (whole := _WHOLE.match(text)) and whole["table"] not in new:
        yield f"{whole[0]}: the code that runs may use it: say since which release none does"
    elif (indexed := _INDEX.match(text)) and indexed["table"] not in new:
        yield f"{indexed[0]}: writers wait: make it CONCURRENTLY"
    elif (written := _WRITE.search(text)) and written["table"] not in new and "LIMIT" not in text:
        yield f"{written[0]}: locks every row to the end of the migration: write batches, in autocommit_block()"


def _parts(actions: str) -> Iterator[str]:
    """Yield the actions of one ALTER TABLE, which commas outside of brackets separate."""
    depth, part = 0, ""
    for letter in actions:
        depth += (letter == "(") - (letter == ")")
        if letter == "," and not depth:
            yield part.strip()
            part = ""
        else:
            part += letter
    yield part.strip()
