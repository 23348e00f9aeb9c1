"""The configuration: reading it strictly, checking it whole, and saying where it is wrong."""
