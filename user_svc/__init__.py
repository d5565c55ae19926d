"""The user service: who the users are."""
