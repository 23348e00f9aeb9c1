"""The loggers of millpond, and the process they run in."""
