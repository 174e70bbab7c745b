"""What the service depends on in its Redis, looked at when it starts."""

from __future__ import annotations

from bots_server.store.connection import Client
from bots_server.store.durability import Durability


def check_redis(client: Client) -> list[str]:
    """Returns what is at risk with this Redis, one line each: version, scripts, maxmemory-policy, persistence."""
    raise NotImplementedError


def choose_durability(client: Client, level: str, *, replicas: int = 1, timeout_seconds: float = 1.0) -> Durability:
    """Returns the durability to use for `level` ("auto", "memory", "fsync" or "replica").

    "auto" is what this Redis gives without waiting: fsync where it has `appendfsync always`, else memory. Raises
    ValueError where the Redis cannot give the level asked for.
    """
    raise NotImplementedError
