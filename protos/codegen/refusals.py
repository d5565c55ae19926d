"""Errors of the contract or of a declaration that end the generation, and how it ends."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

from chassis.service import InvalidDeclaration

if TYPE_CHECKING:
    from collections.abc import Iterator


class Refusal(Exception):
    """Nothing can be generated from this. The message names the place and what to do there."""


@contextlib.contextmanager
def ending_with_a_sentence() -> Iterator[None]:
    """End the process with the message of a refusal: who has written the contract needs no traceback."""
    try:
        yield
    except (Refusal, InvalidDeclaration) as error:
        sys.exit(str(error))
