"""Names of every key."""
