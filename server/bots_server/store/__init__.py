"""What is kept in Redis or Valkey; the only importer of redis. `keys.py` lists every key, `lua/` every transition.

client = connect("redis://localhost:6379", timeout_seconds=3)
store = Store(client, durability=choose_durability(client, "auto"))
for risk in check_redis(client):
    log(risk)
with within(seconds=5):
    dataset = store.datasets.get("guru-math")
"""

from bots_server.store.check import check_redis, choose_durability
from bots_server.store.checkpoints import Checkpoints
from bots_server.store.clients import RedisClient
from bots_server.store.connection import connect
from bots_server.store.datasets import Datasets, Upload
from bots_server.store.deadline import remaining, within
from bots_server.store.durability import MEMORY, Durability, Level
from bots_server.store.failures import Refused
from bots_server.store.history import HISTORY_BYTES, Appended, History, Page, StoredEvent, Sync
from bots_server.store.leases import NOBODY, Claim, Holder, Lease, Leases, Part
from bots_server.store.runs import ListedRun, Runs
from bots_server.store.store import Store
from bots_server.store.usage import DEFAULT_QUOTAS, Usage

__all__ = [
    "DEFAULT_QUOTAS",
    "HISTORY_BYTES",
    "MEMORY",
    "NOBODY",
    "Appended",
    "Checkpoints",
    "Claim",
    "Datasets",
    "Durability",
    "History",
    "Holder",
    "Lease",
    "Leases",
    "Level",
    "ListedRun",
    "Page",
    "Part",
    "RedisClient",
    "Refused",
    "Runs",
    "Store",
    "StoredEvent",
    "Sync",
    "Upload",
    "Usage",
    "check_redis",
    "choose_durability",
    "connect",
    "remaining",
    "within",
]
