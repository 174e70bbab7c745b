"""What "stored" means when a write is acknowledged (guarantee 1).

* `memory`: Redis has it. A crash of Redis may lose what its append-only file did not hold yet (appendfsync everysec:
  the last second or two; without the file: everything since the last dump).
* `fsync`: it is on the disk of the primary, by WAITAOF (Redis and Valkey from 7.2) or by `appendfsync always`.
* `replica`: at least `replicas` replicas have it in memory, by WAIT. WAIT is not consensus: deploy/redis/README.md
  says what a failover can still lose.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from bots_server.store.deadline import remaining


class Level(enum.Enum):
    MEMORY = "memory"
    FSYNC = "fsync"
    REPLICA = "replica"


@dataclass(frozen=True, slots=True, kw_only=True)
class Durability:
    """When a write counts as stored."""

    level: Level = Level.MEMORY
    replicas: int = 1  # replicas that must have it, at least 1; only for REPLICA
    timeout_seconds: float = 1.5  # to wait for the disk or the replicas; must be below the socket timeout
    waitaof: bool = True  # FSYNC: use WAITAOF; False: Redis lacks it and has `appendfsync always`

    def command(self) -> tuple[str | int, ...] | None:
        """Returns the command that waits for the writes of its connection; None: there is nothing to wait for.

        It waits at most as long as the call has left. Raises DeadlineExceeded.
        """
        seconds = min(self.timeout_seconds, remaining() or self.timeout_seconds)
        milliseconds = max(1, round(seconds * 1000))  # 0 would wait without end
        if self.level is Level.REPLICA:
            return ("WAIT", self.replicas, milliseconds)
        if self.level is Level.FSYNC and self.waitaof:
            return ("WAITAOF", 1, 0, milliseconds)
        return None


MEMORY = Durability()
