"""Authentication and authorization of callers: access rules, access tokens, their keys, certificates."""
