"""Stand-ins for parts of other programs, with the same interface, behind which is a daemon."""
