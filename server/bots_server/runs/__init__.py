"""Runs in memory: replicas folded from the store's events, the registry that holds them, and selections from them."""
