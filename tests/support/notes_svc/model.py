"""Notes. No I/O."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NewType
from uuid import UUID

from chassis.versions import Versioned
from tests.support.notes_svc.errors import NoteArchived

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

NoteId = NewType("NoteId", UUID)
AuthorId = NewType("AuthorId", UUID)


class NoteState(StrEnum):
    """The state of a note."""

    OPEN = "OPEN"
    ARCHIVED = "ARCHIVED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Note(Versioned):
    """A note.

    Attributes:
        quoted_id: of the note of the library that it quotes.
    """

    id: NoteId
    author_id: AuthorId
    text: str
    labels: tuple[str, ...]
    quoted_id: UUID | None
    state: NoteState

    def changed(self, command: ChangeNote, *, now: datetime) -> Note:
        """Return the next version; this one if nothing changes.

        Raises:
            NoteArchived: the note stays as it is.
            EtagMismatch: the command is about an earlier version.
        """
        if self.state is NoteState.ARCHIVED:
            raise NoteArchived(self.id)
        self.require_etag(command.etag)
        if not command.changes:
            return self
        return dataclasses.replace(self, **command.changes, updated_at=now, version=self.version + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeNote:
    """Give a note another text, or archive it.

    Attributes:
        owner: the only author whose notes the caller may change; None for any.
        text: the new text; None leaves it as it is.
        state: the new state; None leaves it as it is.
        etag: of the version that the caller saw; empty for any version.
    """

    note_id: NoteId
    owner: AuthorId | None
    text: str | None = None
    state: NoteState | None = None
    etag: str = ""

    @property
    def changes(self) -> Mapping[str, Any]:
        """The fields to change."""
        return {name: value for name, value in (("text", self.text), ("state", self.state)) if value}


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteFilter:
    """Which notes a list has.

    Attributes:
        owner: the only author whose notes the caller may see; None for any.
        author_id: the author; None for any.
        state: the state; None for any.
    """

    owner: AuthorId | None = None
    author_id: AuthorId | None = None
    state: NoteState | None = None
