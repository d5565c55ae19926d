"""Why the notes service refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from chassis.errors import DomainError, FailedPrecondition, NotFound, Unavailable

if TYPE_CHECKING:
    from uuid import UUID


class NoteError(DomainError):
    """A refusal of the notes service."""

    domain: ClassVar[str] = "notes.v1"


class NoteNotFound(NoteError, NotFound):
    """There is no such note."""

    reason = "NOTE_NOT_FOUND"
    message = "There is no such note."
    resource_type = "notes.v1.Note"

    def __init__(self, note_id: UUID) -> None:
        super().__init__(metadata={"noteId": str(note_id)}, subject=f"notes/{note_id}")


class NoteArchived(NoteError, FailedPrecondition):
    """The note stays as it is."""

    reason = "NOTE_ARCHIVED"
    message = "The note is archived and can no longer change."

    def __init__(self, note_id: UUID) -> None:
        super().__init__(subject=f"notes/{note_id}")


class AuthorRequired(NoteError, FailedPrecondition):
    """The caller is no author and names none."""

    reason = "AUTHOR_REQUIRED"
    message = "Name the author."


class AuthorClosed(NoteError, FailedPrecondition):
    """The author is gone."""

    reason = "AUTHOR_CLOSED"
    message = "The author is gone."

    def __init__(self, author_id: UUID) -> None:
        super().__init__(metadata={"authorId": str(author_id)}, subject=f"authors/{author_id}")


class QuotedNoteNotFound(NoteError, FailedPrecondition):
    """The library does not have the note."""

    reason = "QUOTED_NOTE_NOT_FOUND"
    message = "The library does not have the note."

    def __init__(self, note_id: UUID) -> None:
        super().__init__(metadata={"noteId": str(note_id)})


class LibraryUnavailable(NoteError, Unavailable):
    """The library does not answer."""

    reason = "LIBRARY_UNAVAILABLE"
    message = "The library does not answer. Try again later."

    def __init__(self, *, retry_after_s: float) -> None:
        super().__init__(retry_after_s=retry_after_s)
