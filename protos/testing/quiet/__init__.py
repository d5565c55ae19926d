"""The wheel's replacement of `chassis.telemetry`: nothing is measured, traced or written to a log.

So tests of callers need neither OpenTelemetry nor Prometheus, and the shop's log lines do not mix with theirs.
"""
