"""What "stored" means when a report is acknowledged.

An acknowledged report is stored at the configured durability and applied exactly once, in an order all servers agree
on; a repeat of its request_id changes nothing and returns the first answer, or is refused when too old to know.

 * `memory`: Redis has it. A crash of Redis may take back what its append-only file did not hold yet (appendfsync
   everysec: about the last second; without the file: everything).
 * `fsync`: it is on the disk of the primary: `appendfsync always`, or WAITAOF (Redis and Valkey from 7.2).
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
    timeout_seconds: float = 1.0  # how long to wait for disk or replicas before NotDurable; below the socket's timeout


MEMORY = Durability()
