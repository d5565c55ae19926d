"""The life of a process: command line, signals, background work, the end."""
