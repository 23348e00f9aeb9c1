"""Files that no crash leaves half written, and that hold each result once."""
