"""Notes. No I/O."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import datetime  # noqa: TC003  pydantic reads the annotations when it stores responses
from enum import StrEnum
from typing import NewType
from uuid import UUID

from chassis.errors import EtagMismatch
from tests.support.notes_svc.errors import NoteArchived

NoteId = NewType("NoteId", UUID)
AuthorId = NewType("AuthorId", UUID)


class NoteState(StrEnum):
    """The state of a note."""

    OPEN = "OPEN"
    ARCHIVED = "ARCHIVED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A note.

    Attributes:
        quoted_id: of the note of the library that it quotes.
        version: counts the changes from 1.
    """

    id: NoteId
    author_id: AuthorId
    text: str
    labels: tuple[str, ...]
    quoted_id: UUID | None
    state: NoteState
    created_at: datetime
    updated_at: datetime
    version: int

    @property
    def etag(self) -> str:
        """The etag of this version."""
        return etag_of(self.version)

    def changed(self, command: ChangeNote, *, now: datetime) -> Note:
        """Return the next version; this one if nothing changes.

        Raises:
            NoteArchived: the note stays as it is.
            EtagMismatch: the command is about an earlier version.
        """
        if self.state is NoteState.ARCHIVED:
            raise NoteArchived(self.id)
        if command.etag and command.etag != self.etag:
            raise EtagMismatch(current=self.etag)
        changes = {name: value for name, value in (("text", command.text), ("state", command.state)) if value}
        if not changes:
            return self
        return dataclasses.replace(self, **changes, updated_at=now, version=self.version + 1)


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


def etag_of(version: int) -> str:
    """Return the etag of a version."""
    return f"v{version}"
