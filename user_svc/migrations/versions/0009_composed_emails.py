"""The keys of emails in NFC, as they are looked up from now on.

Reads every user once; only the rows that change are locked, and those are few: of people whose keyboard writes accents
as signs of their own. A key that another user has in NFC already stays as it is, and that user keeps the email. If no
user has it in NFC, the oldest one gets it.
"""

from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Write the keys."""
    op.execute("""
        UPDATE users
        SET email_key = composed.email_key
        FROM (
            SELECT
                id,
                normalize(email_key, NFC) AS email_key,
                row_number() OVER (PARTITION BY normalize(email_key, NFC) ORDER BY id) AS place
            FROM users
            WHERE email_key IS NOT NFC NORMALIZED
        ) AS composed
        WHERE users.id = composed.id
            AND composed.place = 1
            AND NOT EXISTS (SELECT FROM users AS other WHERE other.email_key = composed.email_key)
    """)
