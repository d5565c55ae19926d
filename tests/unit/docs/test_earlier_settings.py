"""Variables of earlier releases are read or refused, and never ignored."""

from __future__ import annotations

from chassis.settings import constants
from docs import settings_page


def test_every_variable_of_an_earlier_release_is_read_or_refused() -> None:
    gone = """
        TOKEN_ISSUER TOKEN_AUDIENCE TOKEN_CLIENT_ID TOKEN_LEEWAY_S MAX_CALL_S MAX_STREAM_S
        DATABASE_READ_LANES DATABASE_WRITE_LANES DATABASE_TRANSACTION_LANES
        DATABASE_BATCH_LINGER_S DATABASE_BATCH_MAX_ITEMS DATABASE_BATCH_MAX_WAITING
        USER_SERVICE_TLS_NAME USER_SERVICE_TIMEOUT_S USER_SERVICE_HEDGE_AFTER_S
        WATCH_POLL_S WATCH_PAGE WATCH_BUFFER RELAY_POLL_S RELAY_BATCH RELAY_SWEEP_S CONSUMER_BATCH
        ARGON2_LANES ARGON2_MAX_WAITING ARGON2_MAX_WAIT_S KEYS_PUBLISH_LEAD_S
    """

    known = {name for section in settings_page.sections().values() for name in constants(section)}
    assert set(gone.split()) <= known
