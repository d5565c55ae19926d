"""No metrics."""
