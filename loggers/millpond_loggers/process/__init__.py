"""What runs in a logger process: it feeds the logger, releases results, tells the daemon."""
