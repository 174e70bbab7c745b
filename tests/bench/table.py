"""The main table: all sides in one loop, so that whatever else the machine does hits all of them alike."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter, sleep

import numpy as np

import bots
from bots.v1 import task_selection_pb2 as pb
from tests.bench.server import EMPTY_CALL
from tests.bench.sides import CoreSide, PlainSide, ServiceSide, Side, arranged
from tests.bench.workload import References, Workload, workload

PAPER = 92_000  # tasks of the paper's dataset
WARM_UP = 300  # updates before anything is measured: a task deviates for about 160
ROLLOUT_SECONDS = 0.01  # before each step, for all sides: a trainer is busy for seconds, and the servers are idle then


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    rounds:        of the loop
    plain_seconds: about how long plain numpy may take in a cell
    sizes:         N
    """

    rounds: int
    plain_seconds: float
    sizes: tuple[int, ...]


@dataclass
class Cell:
    """One dataset, one batch size: what each side took.

    seconds: samples by side ("plain", "core", "one", "two") and call ("select", "report")
    """

    references: References
    size: int
    batch_size: int
    seconds: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))

    def median(self, side: str, call: str) -> float:
        """Returns the median of the seconds that a side's call took."""
        return float(np.median(self.seconds[side, call]))

    def p99(self, side: str, call: str) -> float:
        """Returns the 99th percentile of these seconds."""
        return float(np.percentile(self.seconds[side, call], 99))


@dataclass
class Group:
    """The cells that were measured in one loop, with E and U of each round.

    empty: E, seconds of an empty call that asks Redis for a PING
    unit:  U, seconds of plain numpy's selection of 32 of 92,000 tasks
    """

    references: References
    batch_size: int
    cells: list[Cell]
    empty: list[float]
    unit: list[float]

    @property
    def empty_median(self) -> float:
        """Returns E in seconds."""
        return float(np.median(self.empty))

    @property
    def unit_median(self) -> float:
        """Returns U in seconds."""
        return float(np.median(self.unit))

    def above_empty(self, cell: Cell, call: str) -> float:
        """Returns (call - E) / U of the service: the median of the rounds' ratios."""
        took = np.array(cell.seconds["one", call])
        return float(np.median((took - np.array(self.empty)) / np.array(self.unit)))


def groups(
    one: str, two: str, effort: Effort, only: list[str] | None, told: Callable[[str], object]
) -> Iterator[Group]:
    """Yields the table in pieces; `one` and `two` are addresses of servers with one and with two processes.

    `only`: these references; None: all.
    """
    plans: list[tuple[References, tuple[int, ...]]] = [
        ("16ths", effort.sizes),
        ("128ths", effort.sizes),
        ("none", effort.sizes),
        ("distinct", (PAPER,)),
    ]
    with bots.Client(one, timeout=60) as first, bots.Client(two, timeout=60) as second:
        unit = _unit()
        empty = empty_call(first)
        for references, sizes in plans:
            if only is not None and references not in only:
                continue
            works = [workload(size, references) for size in sizes]
            with _stored(first, works):
                for batch_size in (32, 256):
                    told(f"{references}, batch {batch_size}")
                    yield _group(first, second, works, batch_size, effort, empty, unit)


def _group(
    first: bots.Client,
    second: bots.Client,
    works: list[Workload],
    batch_size: int,
    effort: Effort,
    empty: Callable[[], object],
    unit: PlainSide,
) -> Group:
    rng = np.random.default_rng(1)
    cells = [Cell(work.references, len(work), batch_size) for work in works]
    sides: list[dict[str, Side]] = []
    pace = []  # plain numpy is asked every so many rounds
    for work in works:
        core = CoreSide(work, batch_size, arranged(work))
        one = ServiceSide(work, batch_size, first.create_run(_name(work), f"one-{batch_size}"))
        second.create_run(_name(work), f"two-{batch_size}")
        two = ServiceSide(work, batch_size, second.run(_name(work), f"two-{batch_size}"))
        warming: tuple[Side, ...] = (core, one, two)
        for side in warming:
            for _ in range(WARM_UP):
                side.step(rng)
        plain = core.plain()
        seconds = sum(plain.step(rng))
        pace.append(max(1, round(seconds * effort.rounds / effort.plain_seconds)))
        sides.append({"plain": plain, "core": core, "one": one, "two": two})
    group = Group(works[0].references, batch_size, cells, [], [])
    for _ in range(10):
        empty()
        unit.step(rng)
    for turn in range(effort.rounds):
        group.unit.append(unit.step(rng)[0])
        sleep(ROLLOUT_SECONDS)
        begin = perf_counter()
        empty()
        group.empty.append(perf_counter() - begin)
        for cell, those, every in zip(cells, sides, pace, strict=True):
            for name, side in those.items():
                if name != "plain" or turn % every == 0:
                    sleep(ROLLOUT_SECONDS)
                    selected, reported = side.step(rng)
                    cell.seconds[name, "select"].append(selected)
                    cell.seconds[name, "report"].append(reported)
    return group


def _unit() -> PlainSide:
    """Returns plain numpy over the paper's dataset, in its steady state."""
    work = workload(PAPER, "16ths")
    core = CoreSide(work, 32, arranged(work))
    rng = np.random.default_rng(0)
    for _ in range(WARM_UP):
        core.step(rng)
    return core.plain()


def empty_call(client: bots.Client) -> Callable[[], object]:
    """Returns the empty call, made over the client library's own channel in the way in which it makes its calls."""
    channel = client._channel
    assert channel.stub is not None
    assert channel._channel is not None
    method = channel._channel.unary_unary(
        EMPTY_CALL, pb.ListDatasetsRequest.SerializeToString, pb.DeleteRunResponse.FromString
    )
    return lambda: channel.call(method, pb.ListDatasetsRequest(), client.timeout)


def _name(work: Workload) -> str:
    return f"{work.references}-{len(work)}"


@contextmanager
def _stored(client: bots.Client, works: list[Workload]) -> Iterator[None]:
    """Stores the datasets, and deletes them afterwards."""
    for work in works:
        client.create_dataset(_name(work), size=len(work), weak=work.weak, strong=work.strong)
    yield
    for work in works:
        client.delete_dataset(_name(work), delete_runs=True)
