"""The keys of emails in NFC, as they are looked up from now on.

Reads every user once; only the rows that change are locked, and those are few: of people whose keyboard writes accents
as signs of their own. A key that another user has in NFC already stays as it is, and that user keeps the email.
"""

from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Write the keys."""
    op.execute("""
        UPDATE users
        SET email_key = normalize(email_key, NFC)
        WHERE email_key IS NOT NFC NORMALIZED
            AND NOT EXISTS (SELECT FROM users AS other WHERE other.email_key = normalize(users.email_key, NFC))
    """)
