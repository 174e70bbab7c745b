"""All that is kept, behind one object: datasets, runs, their history, leases and checkpoints."""

from __future__ import annotations

from bots_server.store import keys
from bots_server.store.checkpoints import Checkpoints
from bots_server.store.connection import Client
from bots_server.store.database import Database, Observe
from bots_server.store.datasets import Datasets
from bots_server.store.durability import MEMORY, Durability
from bots_server.store.history import History
from bots_server.store.leases import Leases
from bots_server.store.runs import Runs


class Store:
    """Blocking and safe to share between threads. Holds nothing but connections: any number may serve one Redis.

    Every method raises StoreUnavailable where Redis cannot be reached or does not answer within the client's socket
    timeout, and StoreFull where Redis refuses to grow; every write that is acknowledged may raise NotDurable.

    `observe` is told of each script and command: its name (a file of `lua/`, `settle`, or a command of Redis), the
    seconds it took, and whether it failed.
    """

    def __init__(
        self, client: Client, *, durability: Durability = MEMORY, observe: Observe = lambda name, seconds, failed: None
    ) -> None:
        database = Database(client, durability, observe)
        self.durability = durability
        self.datasets = Datasets(database)
        self.runs = Runs(database)
        self.history = History(database)
        self.leases = Leases(database)
        self.checkpoints = Checkpoints(database)
        self._database = database

    def ping(self) -> None:
        """Returns where Redis answers and takes writes; for the health service. Of a cluster: the server that has the
        index."""
        self._database.run("ping", [keys.DATASETS], [])

    def close(self) -> None:
        """Ends the connections."""
        self._database.close()
