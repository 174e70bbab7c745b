"""Where the time of one selection goes."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from prometheus_client import CollectorRegistry

import bots
from bots.v1 import task_selection_pb2 as pb
from bots_server import messages
from bots_server.core.posterior import fold_all
from bots_server.datasets import DatasetCache
from bots_server.metrics import Metrics
from bots_server.replica import Replica
from bots_server.selection import Selection, Wish
from bots_server.store import Store, connect
from tests.bench.sides import ServiceSide
from tests.bench.table import empty_call
from tests.bench.workload import workload

ROUNDS = 150


@dataclass(frozen=True)
class Stages:
    """Medians in seconds of a selection after a report, at batch 32 with references in sixteenths.

    whole: through client, gRPC and server
    empty: E, the empty call with its PING
    parts: of the server's work, by name, in order; made in this process, one after the other
    own:   posteriors that differ from their stratum's, each with a draw of its own
    """

    size: int
    whole: float
    empty: float
    parts: dict[str, float]
    own: int


def stages(address: str, redis_url: str, size: int, told: Callable[[str], object]) -> Stages:
    """Returns where the time goes; stores a dataset, and deletes it."""
    told(f"stages of a selection of {size:,}")
    work, rng, name = workload(size, "16ths"), np.random.default_rng(4), f"stages-{size}"
    store = Store(connect(redis_url))
    samples: dict[str, list[float]] = defaultdict(list)
    with bots.Client(address, timeout=60) as client:
        client.create_dataset(name, size=size, weak=work.weak, strong=work.strong)
        side = ServiceSide(work, 32, client.create_run(name, "run"))
        empty = empty_call(client)
        for _ in range(300):
            side.step(rng)
        run = store.runs.get(store.datasets.get(name), "run")
        dataset = DatasetCache(store).get(name, run.dataset_uid)
        replica = Replica(store, Metrics(CollectorRegistry()), run, dataset)
        replica.view()
        for _ in range(ROUNDS):
            begin = perf_counter()
            empty()
            samples["empty"].append(perf_counter() - begin)
            samples["whole"].append(side.step(rng)[0])
            begin = perf_counter()
            store.ping()
            samples["PING, as in E"].append(perf_counter() - begin)
            state = replica._state
            assert state is not None
            begin = perf_counter()
            sync = store.history.sync(run, state.posterior.version, state.nonce)
            samples["sync with Redis"].append(perf_counter() - begin)
            begin = perf_counter()
            events = [messages.core_event(entry.event, replica._restored) for entry in sync.events]
            posterior = fold_all(state.posterior, dataset.tasks, events)
            samples["fold"].append(perf_counter() - begin)
            replica.view()
            begin = perf_counter()
            selection = Selection(np.random.default_rng(), run, dataset, posterior, Wish(32, None, None, None))
            _ = selection.parts
            samples["draw"].append(perf_counter() - begin)
            begin = perf_counter()
            pb.SelectBatchResponse.FromString(selection.answer.SerializeToString())
            samples["answer"].append(perf_counter() - begin)
        client.delete_dataset(name, delete_runs=True)
    store.close()
    medians = {stage: float(np.median(seconds)) for stage, seconds in samples.items()}
    return Stages(size, medians.pop("whole"), medians.pop("empty"), medians, len(posterior.deviations))
