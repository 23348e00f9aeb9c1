"""Nothing of it is used by the scheduler or by loggers."""
