"""Streams of changes: the changefeed reads the outbox, and the hub delivers it to every subscription."""
