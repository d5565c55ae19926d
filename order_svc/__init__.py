"""The order service: what the users ordered."""
