"""Normalises text that people type: names and emails, and passwords before they are hashed. No I/O."""

from __future__ import annotations

import unicodedata
from typing import Final

from chassis.errors import FieldViolation, InvalidFields

# Shown as nothing although Unicode counts them as letters or marks: fillers, joiners, variation selectors, a blank
# Braille pattern. Spaces, controls and format characters are known by their categories.
_SHOWN_AS_NOTHING: Final = frozenset(
    "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0"
    + "".join(map(chr, (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))))
)
_BLANK_CATEGORIES: Final = frozenset({"Zs", "Zl", "Zp", "Cc", "Cf", "Cn"})
# Pasted along at either end of a text. Joiners and selectors are kept: an emoji may end with one.
_BROUGHT_ALONG: Final = "\u200b\u2060\ufeff\u00ad\u200e\u200f"


def composed(text: str) -> str:
    """Return the text in NFC: the same for every way in which keyboards and systems write a letter with its accent."""
    return unicodedata.normalize("NFC", text)


def is_blank(text: str) -> bool:
    """Return whether the text shows nothing."""
    return all(each in _SHOWN_AS_NOTHING or unicodedata.category(each) in _BLANK_CATEGORIES for each in text)


def typed(text: str, *, field: str) -> str:
    """Return a text that a person typed, in NFC and without white space at its ends.

    Args:
        text: as it was sent.
        field: its name in the JSON of the request.

    Raises:
        InvalidFields: it is blank.
    """
    if is_blank(text):
        raise InvalidFields([FieldViolation(field, "must not be blank", "string.not_blank")])
    return composed(_trimmed(text))


def _trimmed(text: str) -> str:
    trimmed = text.strip().strip(_BROUGHT_ALONG)
    return trimmed if trimmed == text else _trimmed(trimmed)
