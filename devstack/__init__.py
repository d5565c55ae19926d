"""The whole system on one machine: PostgreSQL, the services and Envoy, as children of one process.

`python -m devstack up` is for people; end-to-end tests, chaos tests and benchmarks use `devstack.stack.Stack`.
"""
