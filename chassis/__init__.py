"""The machinery that every service needs.

- errors, context, clock, keys, settings, versions: the words that all packages share;
- service: what a service declares of itself; composition: what each is put together from; serving: its commands;
- runtime: the life of a process; telemetry: logs, metrics, traces;
- concurrency: batches and limits; database: PostgreSQL; idempotency: writes that take effect once;
- events: outbox to inbox; watch: streams of changes; auth: who calls;
- server: what serves calls; client: what makes them; testing: what tests of any service need.

A package imports only from packages below it (`tool.importlinter` in pyproject.toml).
"""
