"""A write that is sent twice takes effect once: keys, kept answers, and the machinery around both."""
