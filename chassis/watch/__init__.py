"""Streams of changes: the feed of the outbox, and its delivery to every subscription."""
