"""What "stored" means when a report is acknowledged.

An acknowledged report is stored at the configured durability and applied exactly once, in an order all servers agree
on; a repeat of its request_id changes nothing and returns the first answer, or is refused when too old to know.

 * `memory`: Redis has it. A crash of Redis may take back what its append-only file did not hold yet (appendfsync
   everysec: the last second or two; without the file: everything since the last dump).
 * `fsync`: it is on the disk of the primary: by WAITAOF (Redis and Valkey from 7.2), or because of `appendfsync
   always`.
 * `replica`: at least `replicas` replicas have it in memory, by WAIT. WAIT is not consensus: deploy/redis/README.md
   says what a failover can lose all the same.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Level(enum.Enum):
    MEMORY = "memory"
    FSYNC = "fsync"
    REPLICA = "replica"


@dataclass(frozen=True, slots=True, kw_only=True)
class Durability:
    """When a write counts as stored."""

    level: Level = Level.MEMORY
    replicas: int = 1  # replicas that must have it, >= 1; only at REPLICA
    timeout_seconds: float = 1.5  # to wait for disk or replicas before NotDurable; keep it below the socket's timeout
    waitaof: bool = True  # FSYNC: ask by WAITAOF; False: a Redis that is too old for it, and has `appendfsync always`

    def command(self) -> tuple[str | int, ...] | None:
        """Returns the Redis command that waits for the writes of its connection; None: there is nothing to wait for."""
        milliseconds = max(1, round(self.timeout_seconds * 1000))  # 0 would be for ever
        if self.level is Level.REPLICA:
            return ("WAIT", self.replicas, milliseconds)
        if self.level is Level.FSYNC and self.waitaof:
            return ("WAITAOF", 1, 0, milliseconds)
        return None


MEMORY = Durability()
