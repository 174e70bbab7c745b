"""Noisy neighbour: what one caller's calls take while another caller floods the same server process.

A trainer with an identity of its own selects 32 of 10,000 tasks and reports them every 30 ms. Another identity floods
from another process, with as many threads as the row says, each with one call after the other. As the client library
does, it waits as long as a refusal (TOO_MANY_CALLS) says.

The trainer, the flood and the servers share the machine's cores, so a part of each figure is the flood's work as a
client, and the cores that the server of the flood takes. So each flood is measured twice: on another server with a
Redis of its own, and on the trainer's server. The ratio of the two is what sharing a server costs. `idle neighbour` has
the threads of a flood without the service.
"""

import multiprocessing
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from subprocess import TimeoutExpired
from tempfile import TemporaryDirectory
from time import monotonic, perf_counter, sleep
from typing import Any

import grpc
import numpy as np

from bots.v1 import error_details_pb2 as details
from bots.v1 import task_selection_pb2 as pb
from bots.v1.task_selection_pb2_grpc import TaskSelectionServiceStub
from bots_server.api.callers import hashed
from tests.bench.processes import server

PERIOD_SECONDS = 0.03
SETTLE_SECONDS = 1.0
EVENTS = 2_000  # in the history that ListEvents reads
SIZES = {"small": 10_000, "big": 2_000_000, "strata": 2**20}
CHUNK = 250_000
BACKGROUND = "idle neighbour"
THREADS = {
    BACKGROUND: 32,
    "select 32": 32,
    "refused reports": 32,
    "seeded select 10,000": 32,
    "select 1,000 of 2M, 10,000 excluded": 32,
    "temperature 1e-9, 2M tasks": 32,
    "select over 2^20 strata": 32,
    "the same, 4 threads": 4,
    "GetRunSummary of it": 16,
    "all posteriors of 2M": 32,
    "ListEvents, 2,000 a page": 16,
    "reports of 100,000 outcomes": 16,
}
_context = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Noise:
    """The trainer's seconds a call before a flood, beside it on another server and on its own, and how the calls of the
    latter flood ended, a second."""

    flood: str
    quiet: list[float]
    beside: list[float]
    seconds: list[float]
    ended: dict[str, float]


class Caller:
    """A stub with a token, on a connection of its own."""

    def __init__(self, address: str, token: str) -> None:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
        self.channel = grpc.insecure_channel(address, options)
        self.stub = TaskSelectionServiceStub(self.channel)
        self.metadata = (("authorization", f"Bearer {token}"),)

    def __call__(self, method: str, request: Any, seconds: float = 60.0) -> Any:
        """Returns the answer of a call, or the last of a stream's."""
        answer = getattr(self.stub, method)(request, timeout=seconds, metadata=self.metadata)
        return deque(answer, 1).pop() if method == "GetPosteriors" else answer


def ref(dataset: str, name: str) -> pb.RunRef:
    """Returns a run's name."""
    return pb.RunRef(dataset=dataset, name=name)


def call_of(flood: str) -> tuple[str, Any]:
    """Returns the method and the request of a flood."""
    small, big, strata = ref("small", "flood"), ref("big", "flood"), ref("strata", "flood")
    select = pb.SelectBatchRequest
    report = pb.ReportOutcomesRequest
    match flood:
        case "select 32":
            return "SelectBatch", select(run=small, batch_size=32)
        case "refused reports":
            return "ReportOutcomes", report(run=small, tasks=[0], successes=[2], rollouts=[1])
        case "seeded select 10,000":
            return "SelectBatch", select(run=big, batch_size=10_000, seed=1)
        case "select 1,000 of 2M, 10,000 excluded":
            return "SelectBatch", select(run=big, batch_size=1_000, excluded_tasks=range(10_000))
        case "temperature 1e-9, 2M tasks":
            return "SelectBatch", select(run=big, batch_size=32, overrides=pb.Hyperparameters(temperature=1e-9))
        case "select over 2^20 strata" | "the same, 4 threads":
            return "SelectBatch", select(run=strata, batch_size=32)
        case "GetRunSummary of it":
            return "GetRunSummary", pb.GetRunSummaryRequest(run=strata)
        case "all posteriors of 2M":
            return "GetPosteriors", pb.GetPosteriorsRequest(run=big)
        case "reports of 100,000 outcomes":
            number = 100_000
            return "ReportOutcomes", report(run=big, tasks=range(number), successes=[1] * number, rollouts=[2] * number)
        case "ListEvents, 2,000 a page":
            return "ListEvents", pb.ListEventsRequest(run=ref("small", "long"), page_size=EVENTS)
    raise KeyError(flood)


def noises(redis_url: str, other_redis_url: str, seconds: float, told: Callable[[str], object]) -> Iterator[Noise]:
    """Yields what the trainer's calls take before and under each flood. Leaves its datasets.

    Other load of the machine comes and goes, so the trainer is measured without the flood before each.
    """
    # After such floods a server may take longer to stop than the bench waits.
    with suppress(TimeoutExpired), TemporaryDirectory() as folder:
        tokens = Path(folder) / "tokens"
        tokens.write_text("".join(f"{name} train * {hashed(name)}\n" for name in ("trainer", "flood")))
        flags = "--tokens-file", str(tokens)
        with server(redis_url, *flags) as one, server(other_redis_url, *flags) as other:
            trainer = Caller(one.address, "trainer")
            told("noisy: datasets")
            prepare(Caller(one.address, "flood"))
            prepare(Caller(other.address, "flood"))
            trainer("CreateRun", pb.CreateRunRequest(dataset="small", name="trainer"))
            for flood in THREADS:
                told(f"noisy: {flood}")
                quiet = train(trainer, seconds)
                beside, _ = flooded(trainer, other.address, flood, seconds)
                samples, ended = flooded(trainer, one.address, flood, seconds)
                yield Noise(flood, quiet, beside, samples, ended)
            trainer.channel.close()


def flooded(trainer: Caller, address: str, flood: str, seconds: float) -> tuple[list[float], dict[str, float]]:
    """Returns the trainer's seconds a call while a server is flooded, and how the flood's calls ended, a second."""
    with flooding(address, flood) as ended:
        sleep(SETTLE_SECONDS)
        begin = dict(ended())
        samples = train(trainer, seconds)
        calls = Counter(ended())
        calls.subtract(begin)
    settle(address)
    return samples, {how: count / seconds for how, count in calls.items() if count}


def settle(address: str) -> None:
    """Waits until a server has answered the calls of a flood that is over, which takes a core."""
    caller = Caller(address, "flood")
    while True:
        try:
            caller("GetRunSummary", pb.GetRunSummaryRequest(run=ref("big", "flood")))
            break
        except grpc.RpcError as error:
            sleep(advised(error) or 0.1)
    caller.channel.close()


def prepare(caller: Caller) -> None:
    """Stores the datasets and the runs of the flood."""
    for name, size in SIZES.items():
        rng, references = np.random.default_rng(size), ["only"] if name == "strata" else []
        parts = [pb.CreateDatasetRequest(header=pb.DatasetHeader(name=name, size=size, references=references))]
        for begin in range(0, size, CHUNK):
            chunk = pb.DatasetChunk(size=min(CHUNK, size - begin))
            chunk.references.extend(rng.random(chunk.size * len(references), np.float32).tolist())
            parts.append(pb.CreateDatasetRequest(chunk=chunk))
        caller.stub.CreateDataset(iter(parts), timeout=120, metadata=caller.metadata)
        caller("CreateRun", pb.CreateRunRequest(dataset=name, name="flood"))
    caller("CreateRun", pb.CreateRunRequest(dataset="small", name="long"))
    report = pb.ReportOutcomesRequest(run=ref("small", "long"), tasks=range(32), successes=[1] * 32, rollouts=[2] * 32)
    for _ in range(EVENTS):
        caller("ReportOutcomes", report)


def train(trainer: Caller, seconds: float) -> list[float]:
    """Returns the seconds of each call of a trainer that selects and reports every 30 ms."""
    run, samples, end = ref("small", "trainer"), list[float](), monotonic() + seconds
    while (begin := monotonic()) < end:
        start = perf_counter()
        batch = trainer("SelectBatch", pb.SelectBatchRequest(run=run, batch_size=32))
        middle = perf_counter()
        number = len(batch.tasks)
        trainer(
            "ReportOutcomes",
            pb.ReportOutcomesRequest(
                run=run,
                tasks=batch.tasks,
                successes=[1] * number,
                rollouts=[2] * number,
                selection_id=batch.selection_id,
            ),
        )
        samples += middle - start, perf_counter() - middle
        sleep(max(0.0, begin + PERIOD_SECONDS - monotonic()))
    return samples


@contextmanager
def flooding(address: str, flood: str) -> Iterator[Callable[[], dict[str, int]]]:
    """Yields what tells how often the flood's calls ended, by status, from a process that floods until the end."""
    ours, theirs = _context.Pipe()
    process = _context.Process(target=_flood, args=(theirs, address, flood), daemon=True)
    process.start()

    def ended() -> dict[str, int]:
        ours.send("ended")
        counts: dict[str, int] = ours.recv()
        return counts

    try:
        ours.recv()
        yield ended
    finally:
        with suppress(BrokenPipeError):
            ours.send(None)
        process.join(20)
        process.kill()


def _flood(connection: Connection, address: str, flood: str) -> None:
    ended, over = Counter[str](), threading.Event()

    def calls() -> None:
        if flood == BACKGROUND:
            while not over.wait(0.001):
                np.arange(1000).tolist()
            return
        method, request = call_of(flood)
        while not over.is_set():
            try:
                caller(method, request)
                ended["OK"] += 1
            except grpc.RpcError as error:
                failed: Any = error
                ended[failed.code().name] += 1
                if failed.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                    over.wait(advised(failed))

    caller = Caller(address, "flood")
    threads = [threading.Thread(target=calls, daemon=True) for _ in range(THREADS[flood])]
    for thread in threads:
        thread.start()
    connection.send("ready")
    while connection.recv() is not None:
        connection.send(dict(ended))
    over.set()
    caller.channel.close()


def advised(error: Any) -> float:
    """Returns the seconds after which a refused call is to be repeated."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for detail in details.Status.FromString(value).details:
                if detail.type_url.endswith("RetryInfo"):
                    return details.RetryInfo.FromString(detail.value).retry_delay.ToTimedelta().total_seconds()
    return 0.0
