"""The store as one object: datasets, runs, their history, leases and checkpoints."""

from __future__ import annotations

from collections.abc import Iterator

from bots_server.store.checkpoints import Checkpoints
from bots_server.store.clients import RedisClient
from bots_server.store.database import Database, Observe
from bots_server.store.datasets import Datasets
from bots_server.store.durability import MEMORY, Durability
from bots_server.store.fsck import Damage, damages
from bots_server.store.history import HISTORY_BYTES, History
from bots_server.store.leases import Leases
from bots_server.store.runs import Runs
from bots_server.store.usage import DEFAULT_QUOTAS, Quotas, Usage


class Store:
    """Blocking and safe to share between threads. It holds only connections: any number of stores may share a Redis.

    Every method raises StoreUnavailable if Redis cannot be reached or does not answer within the client's socket
    timeout, StoreFull if Redis refuses to grow, and DeadlineExceeded if the time of `deadline.within` is over. Every
    acknowledged write may raise NotDurable.

    `observe` is called after each script and command with its name (a file of `lua/`, or a command of Redis),
    the seconds it took, and whether it failed. `prefix` stands in front of every key of `keys.py`.

    history_bytes: most bytes of a run's history behind its newest snapshot; and again of the answers to its selections
    quotas: most that each identity may use; None: DEFAULT_QUOTAS
    """

    def __init__(
        self,
        client: RedisClient,
        *,
        durability: Durability = MEMORY,
        history_bytes: int = HISTORY_BYTES,
        quotas: Usage | None = None,
        observe: Observe = lambda name, seconds, failed: None,
        prefix: str = "",
    ) -> None:
        database = Database(client, durability, observe, prefix)
        self.client = client
        self.durability = durability
        self.datasets = Datasets(database)
        self.runs = Runs(database)
        self.history = History(database, history_bytes)
        self.leases = Leases(database, history_bytes)
        self.checkpoints = Checkpoints(database)
        self.quotas = Quotas(database, self.datasets, self.runs, quotas or DEFAULT_QUOTAS)
        self._database = database

    def ping(self) -> None:
        """Returns if Redis answers and accepts writes; for the health service. Of a cluster: the server that has the
        index of datasets. Raises StoreUnavailable.
        """
        self._database.run("ping", [self._database.keys.datasets], [])

    def time_ms(self) -> int:
        """Returns Redis' clock, in milliseconds since 1970. Of a cluster: that of the server that `ping` asks."""
        return int(self._database.run("time", [self._database.keys.datasets], []))

    def damages(self) -> Iterator[Damage]:
        """Yields everything that is damaged, after looking at every key. Takes as long as reading all of Redis."""
        return damages(self._database)

    def close(self) -> None:
        """Ends the connections."""
        self.client.close()
