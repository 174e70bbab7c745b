"""The API: a servicer, handlers by subject, the rules of requests, and core values as messages."""
