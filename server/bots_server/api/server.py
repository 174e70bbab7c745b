"""GetServer: what answers, and what its Redis puts at risk."""

import time
from dataclasses import asdict
from importlib.metadata import version

from bots.v1 import task_selection_pb2 as pb
from bots_server.api import messages
from bots_server.api.callers import caller
from bots_server.store import Level, Store, Usage, check_redis

DURABILITIES = {
    Level.MEMORY: pb.DURABILITY_MEMORY,
    Level.FSYNC: pb.DURABILITY_FSYNC,
    Level.REPLICA: pb.DURABILITY_REPLICA,
}


class ServerHandlers:
    """What people ask when they look for a fault."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def get_server(self, request: pb.GetServerRequest) -> pb.GetServerResponse:
        risks = check_redis(self._store.client)
        redis_time = messages.timestamp(self._store.time_ms())
        return pb.GetServerResponse(
            version=version("bots-server"),
            time=messages.timestamp(int(time.time() * 1000)),
            redis_time=redis_time,
            durability=DURABILITIES[self._store.durability.level],
            risks=risks,
            quotas=self._quotas(),
        )

    def _quotas(self) -> list[pb.Quota]:
        quotas = self._store.quotas
        identity = caller().identity
        use = quotas.use(identity).get(identity, Usage())
        return [
            pb.Quota(setting=f"quota_{name}", limit=limit, use=getattr(use, name))
            for name, limit in asdict(quotas.limits).items()
        ]
