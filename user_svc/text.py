"""Normalises text that people type: names and emails, and passwords before they are hashed. No I/O."""

import unicodedata
from typing import Final

from chassis.errors import InvalidFields

# Shown as nothing although Unicode counts them as letters, marks or symbols, or has not assigned them yet: fillers,
# joiners, variation selectors, a blank Braille pattern, a note without a head. Spaces, controls and format characters
# are known by their categories. Other characters that are not assigned may be letters in a later Unicode: they show.
_SHOWN_AS_NOTHING: Final = frozenset(
    "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2065\u2800\u3164\uffa0\U0001d159"
    + "".join(map(chr, (*range(0xFE00, 0xFE10), *range(0xFFF0, 0xFFF9), *range(0xE0000, 0xE1000))))
)
_BLANK_CATEGORIES: Final = frozenset({"Zs", "Zl", "Zp", "Cc", "Cf"})
# Pasted along at either end of a text. Joiners and selectors are kept: an emoji may end with one.
_BROUGHT_ALONG: Final = "\u200b\u2060\ufeff\u00ad\u200e\u200f"


def composed(text: str) -> str:
    """Return the text in NFC: the same for every way in which keyboards and systems write a letter with its accent."""
    return unicodedata.normalize("NFC", text)


def is_blank(text: str) -> bool:
    """Return whether the text shows nothing."""
    return all(each in _SHOWN_AS_NOTHING or unicodedata.category(each) in _BLANK_CATEGORIES for each in text)


def typed(text: str, *, field: str, max_length: int) -> str:
    """Return a text that a person typed, in NFC and without white space at its ends.

    Raises:
        InvalidFields: it is blank; or longer than the contract's `max_length` in NFC, in which some characters become
            two or three. The error names the field of the JSON.
    """
    if is_blank(text):
        raise InvalidFields.of(field, "must not be blank", "string.not_blank")
    kept = composed(_trimmed(text))
    if len(kept) > max_length:
        # A longer text could be stored and read, but not be sent again.
        raise InvalidFields.of(field, f"must be at most {max_length} characters in NFC", "string.max_len")
    return kept


def _trimmed(text: str) -> str:
    trimmed = text.strip().strip(_BROUGHT_ALONG)
    return trimmed if trimmed == text else _trimmed(trimmed)
