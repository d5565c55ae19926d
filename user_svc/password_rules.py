"""Rules for new passwords. Passwords that were set before keep working."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from chassis.errors import InvalidFields
from user_svc.text import composed, is_blank

if TYPE_CHECKING:
    from user_svc.settings import PasswordRuleSettings

# In NFC. The contract takes four times as many, because it counts before composing: a character has at most 4 in NFD.
MAX_PASSWORD: Final = 128

_LIST: Final = Path(__file__).with_name("common_passwords.txt")


class PasswordRules:
    """The rules for new passwords: NIST SP 800-63B-4, 3.1.1.2. No rules of composition, which make them worse."""

    def __init__(self, settings: PasswordRuleSettings) -> None:
        self._min_length: Final = settings.min_length
        _, _, listed = _LIST.read_text(encoding="utf-8").partition("\n\n")
        self._common: Final = frozenset(listed.splitlines())

    def require_acceptable(self, password: str, *, field: str) -> None:
        """Return if the password may become a user's; `field` is its name in the JSON of the request.

        Raises:
            InvalidFields: it is too short or too long in NFC, blank, or one of the commonest, whatever its case.
        """
        text = composed(password)
        if len(text) < self._min_length:
            raise InvalidFields.of(field, f"must be at least {self._min_length} characters", "password.min_length")
        if len(text) > MAX_PASSWORD:
            raise InvalidFields.of(field, f"must be at most {MAX_PASSWORD} characters in NFC", "string.max_len")
        if is_blank(text):
            raise InvalidFields.of(field, "must not be blank", "string.not_blank")
        if text.casefold() in self._common:
            message = "is one of the passwords that are guessed first: choose another"
            raise InvalidFields.of(field, message, "password.common")
