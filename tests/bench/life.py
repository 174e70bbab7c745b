"""What a dataset and a run cost beside the loop: creation, a cold start, memory, bytes in Redis."""

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

import numpy as np
import redis

import bots
from tests.bench.processes import server
from tests.bench.sides import CoreSide, ServiceSide
from tests.bench.workload import ROLLOUTS, Kind, workload
from tests.valkey import Valkey

STARTS = 3  # cold servers, of which the median is told
AWAY_EVENTS = 2_000
UPDATES = {"16ths": 300, "features": 20}
LISTED_RUNS = 1_000


@dataclass(frozen=True)
class Life:
    """One dataset of N tasks without ids, and one run of it after 300 updates of 32 tasks (with features, 20).

    create_seconds:     from arrays in the client's memory to the answer
    plain_draw_seconds: plain numpy's selection
    cold_seconds:       a started server's first selection of the run: dataset, snapshot, events, draw
    away_seconds:       a selection from a server that held the run and was not asked for 2,000 reports to another one
    server_bytes:       memory that the server holds more after that selection, a task
    peak_bytes:         and the most that it held more meanwhile
    creation_bytes:     the most that the server held more while the dataset was created, a task
    redis_bytes:        memory that Redis has more after the creation, a task
    snapshot_bytes:     of the newest snapshot
    event_bytes:        memory of Redis for the stream of events, an event
    request_bytes:      memory of Redis for the remembered request ids, an id
    """

    kind: Kind
    size: int
    create_seconds: float
    plain_draw_seconds: float
    cold_seconds: float
    away_seconds: float
    server_bytes: float
    peak_bytes: float
    creation_bytes: float
    redis_bytes: float
    snapshot_bytes: int
    event_bytes: float
    request_bytes: float


def life(valkey: Valkey, kind: Kind, size: int, told: Callable[[str], object]) -> Life:
    """Returns the figures of one dataset; it is left in Redis."""
    work, rng = workload(size, kind), np.random.default_rng(2)
    with valkey.client() as database:
        told(f"life of a dataset of {size:,}, {kind}: creation")
        empty_redis = _used(database)
        with server(valkey.url) as process, bots.Client(process.address, timeout=60, strict=True) as client:
            list(client.list_datasets())
            empty_server = process.memory()
            begin = perf_counter()
            work.store(client, "life")
            created = perf_counter() - begin
            creation_bytes = (process.peak_memory() - empty_server) / size
            redis_bytes = (_used(database) - empty_redis) / size
            side = ServiceSide(work, 32, client.create_run("life", "run", model=work.model))
            told(f"{UPDATES[kind]} updates")
            for _ in range(UPDATES[kind]):
                side.step(rng)
        core = CoreSide(work, 32, work.arranged())
        for _ in range(UPDATES[kind]):
            core.step(rng)
        plain = core.plain()
        draws = [plain.step(rng)[0] for _ in range(3)]
        told(f"{AWAY_EVENTS:,} reports to another server")
        with (
            server(valkey.url) as process,
            bots.Client(process.address, timeout=60, strict=True) as client,
            server(valkey.url) as other,
            bots.Client(other.address, timeout=60, strict=True) as elsewhere,
        ):
            away = client.create_run("life", "away", fork_from="run")
            away.select(32)
            side = ServiceSide(work, 32, elsewhere.run("life", "away"))
            for _ in range(AWAY_EVENTS):
                tasks = rng.choice(size, 32, replace=False)
                side.run.report(tasks, work.outcomes(rng, tasks), ROLLOUTS)
            begin = perf_counter()
            away.select(32)
            away_seconds = perf_counter() - begin
        told("cold starts")
        cold, held, peak = [], 0.0, 0.0
        for _ in range(STARTS):
            with server(valkey.url) as process, bots.Client(process.address, timeout=60, strict=True) as client:
                list(client.list_datasets())
                before = process.memory()
                begin = perf_counter()
                client.run("life", "run").select(32)
                cold.append(perf_counter() - begin)
                held, peak = (process.memory() - before) / size, (process.peak_memory() - before) / size
        keys = {key.rpartition(b":")[2]: key for key in database.scan_iter(match="bots:{life}:*:run:*")}
        newest = max(database.hkeys(keys[b"snapshots"]), key=int)
        return Life(
            kind,
            size,
            created,
            float(np.median(draws)),
            float(np.median(cold)),
            away_seconds,
            held,
            peak,
            creation_bytes,
            redis_bytes,
            int(database.hstrlen(keys[b"snapshots"], newest)),
            _memory(database, keys[b"events"]) / database.xlen(keys[b"events"]),
            sum(_memory(database, keys[key]) for key in (b"requests", b"arrivals")) / database.hlen(keys[b"requests"]),
        )


def list_seconds(address: str, told: Callable[[str], object]) -> float:
    """Returns the seconds that a list of 1,000 runs takes, through the client library."""
    told(f"{LISTED_RUNS:,} runs")
    with bots.Client(address, timeout=60, strict=True) as client:
        client.create_dataset("listed", size=100)
        for number in range(LISTED_RUNS):
            client.create_run("listed", f"run-{number}", target=0.4)
        took = []
        for _ in range(10):
            begin = perf_counter()
            assert len(list(client.list_runs("listed"))) == LISTED_RUNS
            took.append(perf_counter() - begin)
        client.delete_dataset("listed", delete_runs=True)
    return float(np.median(took))


def _used(database: redis.Redis) -> int:
    """Returns the bytes of data: without buffers, fragments and the allocator's own."""
    return int(database.memory_stats()["dataset.bytes"])


def _memory(database: redis.Redis, key: bytes) -> int:
    return database.memory_usage(key, samples=0) or 0
