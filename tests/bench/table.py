"""The main table: all sides in one loop, so that whatever else the machine does hits all of them alike."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter, sleep

import grpc
import numpy as np

import bots
from bots.target import Target
from bots.token import Token
from bots.v1 import task_selection_pb2 as pb
from tests.bench.server import EMPTY_CALL
from tests.bench.sides import AtOnceSide, CoreSide, PlainSide, ServiceSide, Side
from tests.bench.workload import Kind, Workload, workload

PAPER = 92_000  # tasks of the paper's dataset
WARM_UP = 300  # updates before anything is measured: a task deviates for about 160
WARM_UP_FEATURES = 10  # with features every task has a posterior of its own from the beginning
ROLLOUT_SECONDS = 0.01  # before each step, for all sides: a trainer is busy for seconds, and the servers are idle then
MOST_DENSE = 1_000_000  # beyond, item_response's inputs of all tasks do not fit here


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

    seconds: samples by side ("plain", "core", "service", "at once") and call ("select", "report")
    rounds:  those in which the service was asked
    """

    kind: Kind
    size: int
    batch_size: int
    seconds: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    rounds: list[int] = field(default_factory=list)

    def median(self, side: str, call: str) -> float:
        """Returns the median of the seconds that a side's call took; NaN: it was not measured."""
        return float(np.median(self.seconds[side, call] or [np.nan]))

    def p99(self, side: str, call: str) -> float:
        """Returns the 99th percentile of these seconds."""
        return float(np.percentile(self.seconds[side, call] or [np.nan], 99))

    def pair(self, side: str) -> float:
        """Returns the median of the seconds that a selection and a report took together."""
        return self.median(side, "select") + self.median(side, "report")


@dataclass
class Group:
    """The cells that were measured in one loop, with E and U of each round.

    empty: E, seconds of an empty call that asks Redis for a PING
    unit:  U, seconds of plain numpy's selection of 32 of 92,000 tasks
    """

    kind: Kind
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
        took = np.array(cell.seconds["service", call])
        return float(np.median((took - np.array(self.empty)[cell.rounds]) / np.array(self.unit)[cell.rounds]))


def groups(
    addresses: list[str], effort: Effort, only: list[str] | None, told: Callable[[str], object]
) -> Iterator[Group]:
    """Yields the table in pieces, of two servers and a balanced client. `only`: these kinds; None: all."""
    plans: list[tuple[Kind, tuple[int, ...], tuple[int, ...]]] = [
        ("16ths", effort.sizes, (32, 256)),
        ("128ths", effort.sizes, (32, 256)),
        ("distinct", (PAPER,), (32,)),
        ("tags", effort.sizes, (32,)),
        ("features", (PAPER, 1_000_000), (32,)),
    ]
    with bots.Client(addresses, timeout=60, strict=True) as client, empty_call(addresses) as empty:
        unit = _unit()
        for kind, sizes, batch_sizes in plans:
            if only is not None and kind not in only:
                continue
            works = [workload(size, kind) for size in sizes]
            with _stored(client, works):
                for batch_size in batch_sizes:
                    told(f"{kind}, batch {batch_size}")
                    yield _group(client, works, batch_size, effort, empty, unit)


def _group(
    client: bots.Client,
    works: list[Workload],
    batch_size: int,
    effort: Effort,
    empty: Callable[[], object],
    unit: PlainSide,
) -> Group:
    rng = np.random.default_rng(1)
    cells = [Cell(work.kind, len(work), batch_size) for work in works]
    sides = [_sides(client, work, batch_size, rng) for work in works]
    # Plain numpy, and all sides of a dataset with features, are asked every so many rounds.
    pace = []
    for those in sides:
        seconds = sum(those["plain"].step(rng)) if "plain" in those else 0.0
        pace.append(max(1, round(seconds * effort.rounds / effort.plain_seconds)))
    group = Group(works[0].kind, batch_size, cells, [], [])
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
                if turn % every and (name == "plain" or cell.kind == "features"):
                    continue
                sleep(ROLLOUT_SECONDS)
                selected, reported = side.step(rng)
                cell.seconds[name, "select"].append(selected)
                cell.seconds[name, "report"].append(reported)
                if name == "service":
                    cell.rounds.append(turn)
    return group


def _sides(client: bots.Client, work: Workload, batch_size: int, rng: np.random.Generator) -> dict[str, Side]:
    """Returns the sides of a dataset, in their steady state."""
    core = CoreSide(work, batch_size, work.arranged())
    service = ServiceSide(work, batch_size, client.create_run(_name(work), f"run-{batch_size}", model=work.model))
    sides: dict[str, Side] = {"core": core, "service": service}
    if work.kind == "features":
        at_once = ServiceSide(work, batch_size, client.create_run(_name(work), "at-once", model=work.model))
        sides["at once"] = AtOnceSide(at_once)
        at_once.step(rng)
        service.rest = 2 * sum(sides["at once"].step(rng))
    for side in sides.values():
        for _ in range(WARM_UP_FEATURES if work.kind == "features" else WARM_UP):
            side.step(rng)
    if work.model == "interpolation" or len(work) <= MOST_DENSE:
        sides["plain"] = core.plain()
    return sides


def _unit() -> PlainSide:
    """Returns plain numpy over the paper's dataset, in its steady state."""
    work = workload(PAPER, "16ths")
    core = CoreSide(work, 32, work.arranged())
    rng = np.random.default_rng(0)
    for _ in range(WARM_UP):
        core.step(rng)
    return core.plain()


@contextmanager
def empty_call(addresses: list[str]) -> Iterator[Callable[[], object]]:
    """Yields the empty call, made as the client library makes its calls."""
    target = Target.of(addresses, Token(None), None, proxy=False)
    with grpc.insecure_channel(target.address(), target.options()) as channel:
        method = channel.unary_unary(
            EMPTY_CALL, pb.ListDatasetsRequest.SerializeToString, pb.DeleteRunResponse.FromString
        )
        yield lambda: method(pb.ListDatasetsRequest(), timeout=60, wait_for_ready=True)


def _name(work: Workload) -> str:
    return f"{work.kind}-{len(work)}"


@contextmanager
def _stored(client: bots.Client, works: list[Workload]) -> Iterator[None]:
    """Stores the datasets, and deletes them afterwards."""
    for work in works:
        work.store(client, _name(work))
    yield
    for work in works:
        client.delete_dataset(_name(work), delete_runs=True)
