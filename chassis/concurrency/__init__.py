"""Concurrent calls: batches, and a limit to how many run at a time."""
