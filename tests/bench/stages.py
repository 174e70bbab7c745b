"""Where the time of one selection goes."""

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter, sleep

import numpy as np
from prometheus_client import CollectorRegistry

import bots
from bots.v1 import task_selection_pb2 as pb
from bots_server.api.selections import selection_response
from bots_server.core.draw import SelectionSpec
from bots_server.core.posterior import Posterior, fold, individuals
from bots_server.runs.dataset import DatasetCache
from bots_server.runs.memory import Memory
from bots_server.runs.replica import Replica
from bots_server.runs.selection import draw
from bots_server.store import Store, codec, connect
from bots_server.telemetry.metrics import Metrics
from tests.bench.sides import ServiceSide
from tests.bench.table import ROLLOUT_SECONDS, empty_call
from tests.bench.workload import ROLLOUTS, workload

ROUNDS = 150


@dataclass(frozen=True)
class Stages:
    """Medians in seconds at batch 32 with references in sixteenths; each is timed after a rest, as in the table.

    ahead:   a selection that the server has drawn before it was asked, through client, gRPC and server
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


def stages(addresses: list[str], redis_url: str, size: int, told: Callable[[str], object]) -> Stages:
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

    with bots.Client(addresses, timeout=60, strict=True) as client, empty_call(addresses) as empty:
        work.store(client, name)
        side = ServiceSide(work, 32, client.create_run(name, "ahead"))
        for _ in range(300):
            side.step(rng)
        seeded = client.create_run(name, "seeded", fork_from="ahead")
        run = store.runs.get(store.datasets.get(name), "ahead")
        replica = Replica(
            store, Metrics(CollectorRegistry()), DatasetCache(store, Memory(2**30)), run, threading.Event()
        )
        posterior, tasks = replica.view().posterior, replica.dataset.tasks
        for seed in range(ROUNDS):
            with timed("empty"):
                empty()
            with timed("ahead"):
                batch = side.run.select(32)
            batch.report(work.outcomes(rng, batch.tasks), ROLLOUTS)
            with timed("asked"):
                batch = seeded.select(32, seed=seed)
            batch.report(work.outcomes(rng, batch.tasks), ROLLOUTS)
            with timed("ping"):
                store.ping()
            (entry,) = store.history.events(run, posterior.version, 1).events
            event = codec.core_event(entry, no_state)
            with timed("fold"):
                posterior = fold(posterior, tasks, event)
            with timed("sync"):
                store.history.sync(run, posterior.version, entry.nonce)
            with timed("draw"):
                drawn = draw(posterior, tasks, SelectionSpec(batch_size=32))
            with timed("answer"):
                answer = selection_response(drawn.selection, replica).SerializeToString()
                pb.SelectBatchResponse.FromString(answer)
        client.delete_dataset(name, delete_runs=True)
    store.close()
    medians = {stage: float(np.median(seconds)) for stage, seconds in samples.items()}
    drawing = {stage: medians.pop(stage) for stage in ("draw", "answer")}
    return Stages(size, **medians, drawing=drawing, own=len(individuals(posterior, tasks)))


def no_state(state_uid: str) -> Posterior:
    """Raises: the run has no restore."""
    raise KeyError(state_uid)
