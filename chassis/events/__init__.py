"""Events from the outbox of one service to the inbox of another, over Redis streams."""
