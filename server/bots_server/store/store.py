"""All that is kept, behind one object: datasets, runs, their history, leases and checkpoints."""

from __future__ import annotations

from bots_server.store.checkpoints import Checkpoints
from bots_server.store.connection import Client
from bots_server.store.datasets import Datasets
from bots_server.store.durability import MEMORY, Durability
from bots_server.store.history import History
from bots_server.store.leases import Leases
from bots_server.store.runs import Runs
from bots_server.store.scripts import Scripts


class Store:
    """Blocking and safe to share between threads. Holds nothing but connections: any number may serve one Redis.

    Every method raises StoreUnavailable where Redis cannot be reached or does not answer within the client's socket
    timeout, and StoreFull where Redis refuses to grow; every write may raise NotDurable.
    """

    def __init__(self, client: Client, *, durability: Durability = MEMORY) -> None:
        scripts = Scripts(client, durability)
        self.durability = durability
        self.datasets = Datasets(scripts)
        self.runs = Runs(scripts)
        self.history = History(scripts)
        self.leases = Leases(scripts)
        self.checkpoints = Checkpoints(scripts)
        self._client = client

    def ping(self) -> None:
        """Returns where Redis answers; for the health service."""
        raise NotImplementedError

    def close(self) -> None:
        """Ends the connections."""
        raise NotImplementedError
