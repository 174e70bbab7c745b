"""Where the time of one selection goes."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter, sleep

import numpy as np
from prometheus_client import CollectorRegistry

import bots
from bots.v1 import task_selection_pb2 as pb
from bots_server.api import messages
from bots_server.core.posterior import fold_all
from bots_server.runs.dataset import DatasetCache
from bots_server.telemetry.metrics import Metrics
from bots_server.runs.replica import Replica
from bots_server.runs.selection import Selection, Wish
from bots_server.store import Store, connect
from tests.bench.sides import ServiceSide
from tests.bench.table import ROLLOUT_SECONDS, empty_call
from tests.bench.workload import workload

ROUNDS = 150


@dataclass(frozen=True)
class Stages:
    """Medians in seconds at batch 32 with references in sixteenths; each is timed after a rest, as in the table.

    ahead:   a selection that the server has drawn ahead, through client, gRPC and server
    asked:   one that it draws when asked, because it has a seed
    empty:   E, the empty call with its PING
    ping:    the PING, and the server's other work, here in this process:
    sync:    reading what is new of the history: nothing
    fold:    of the report, done ahead for both selections
    drawing: the draw and its answer
    own:     posteriors that differ from their stratum's, each with a draw of its own
    """

    size: int
    ahead: float
    asked: float
    empty: float
    ping: float
    sync: float
    fold: float
    drawing: dict[str, float]
    own: int


def stages(address: str, redis_url: str, size: int, told: Callable[[str], object]) -> Stages:
    """Returns where the time goes; stores a dataset, and deletes it."""
    told(f"stages of a selection of {size:,}")
    work, rng, name = workload(size, "16ths"), np.random.default_rng(4), f"stages-{size}"
    store = Store(connect(redis_url))
    samples: dict[str, list[float]] = defaultdict(list)

    @contextmanager
    def timed(stage: str) -> Iterator[None]:
        sleep(ROLLOUT_SECONDS)
        begin = perf_counter()
        yield
        samples[stage].append(perf_counter() - begin)

    with bots.Client(address, timeout=60) as client:
        client.create_dataset(name, size=size, weak=work.weak, strong=work.strong)
        side = ServiceSide(work, 32, client.create_run(name, "ahead"))
        for _ in range(300):
            side.step(rng)
        seeded = client.create_run(name, "seeded", fork_from="ahead")
        empty = empty_call(client)
        run = store.runs.get(store.datasets.get(name), "ahead")
        dataset = DatasetCache(store).get(name, run.dataset_uid)
        replica = Replica(store, Metrics(CollectorRegistry()), run, dataset)
        replica.view()
        for seed in range(ROUNDS):
            with timed("empty"):
                empty()
            with timed("ahead"):
                batch = side.run.select(32)
            batch.report(work.outcomes(rng, batch.tasks), 16)
            with timed("asked"):
                batch = seeded.select(32, seed=seed)
            batch.report(work.outcomes(rng, batch.tasks), 16)
            with timed("ping"):
                store.ping()
            before = replica._state
            assert before is not None
            sync = store.history.sync(run, before.posterior.version, before.nonce)
            events = [messages.core_event(entry.event, replica._restored) for entry in sync.events]
            with timed("fold"):
                posterior = fold_all(before.posterior, dataset.tasks, events)
            replica.view()
            now = replica._state
            assert now is not None
            with timed("sync"):
                store.history.sync(run, now.posterior.version, now.nonce)
            with timed("draw"):
                selection = Selection(np.random.default_rng(), run, dataset, posterior, Wish(32, None, None, None))
                selection.parts()
            with timed("answer"):
                pb.SelectBatchResponse.FromString(selection.answer().SerializeToString())
        client.delete_dataset(name, delete_runs=True)
    store.close()
    medians = {stage: float(np.median(seconds)) for stage, seconds in samples.items()}
    drawing = {stage: medians.pop(stage) for stage in ("draw", "answer")}
    return Stages(size, **medians, drawing=drawing, own=len(posterior.deviations))
