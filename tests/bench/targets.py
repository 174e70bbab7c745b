"""The targets, each judged from the figures of one run."""

from collections.abc import Iterator
from dataclasses import dataclass

from tests.bench.life import LISTED_RUNS, Life
from tests.bench.load import Load
from tests.bench.table import PAPER, Group

STEP_SECONDS = 30.0  # of a training step


@dataclass(frozen=True)
class Verdict:
    """A target: what is measured, what it must be, and what it is."""

    target: str
    limit: str
    figure: str
    met: bool


def judge(groups: list[Group], lives: list[Life], loads: list[Load], list_seconds: float | None) -> list[Verdict]:
    """Returns the verdicts on what was measured."""
    verdicts = [*_of_groups(groups), *_of_lives(lives), *_of_loads(loads)]
    if list_seconds is not None:
        verdicts.append(_at_most(f"a list of {LISTED_RUNS:,} runs, ms", "{}", 100, list_seconds * 1e3))
    return verdicts


def _of_groups(groups: list[Group]) -> Iterator[Verdict]:
    for group in groups:
        what = f"{group.kind}, batch {group.batch_size}"
        if group.kind == "features":
            yield from _of_features(what, group)
            continue
        if group.kind in ("16ths", "tags"):
            limit = 0.4 if group.batch_size == 32 else 1.6
            yield _at_most(f"{what}: select, worst N", "E + {} U", limit, _worst(group, "select"))
            if group.batch_size == 32:
                yield _at_most(f"{what}: report, worst N", "E + {} U", 0.2, _worst(group, "report"))
                yield from _of_sizes(what, group)
            continue
        for cell in group.cells:
            over = cell.median("service", "select") - cell.median("plain", "select") - group.empty_median
            figure = over / group.unit_median
            yield _at_most(f"{what}, N = {cell.size:,}: select", "plain + E + {} U", 0.4, figure)


def _of_features(what: str, group: Group) -> Iterator[Verdict]:
    for cell in group.cells:
        of = f"{what}, N = {cell.size:,}"
        yield _at_most(f"{of}: select after a rest", "E + {} U", 0.4, group.above_empty(cell, "select"))
        figure = cell.pair("at once") / cell.pair("plain")
        yield _at_most(f"{of}: report and select at once", "{} plain", 1.5, figure)


def _of_sizes(what: str, group: Group) -> Iterator[Verdict]:
    cells = {cell.size: cell for cell in group.cells}
    least, most = min(cells), max(cells)
    growth = cells[most].median("service", "select") / cells[least].median("service", "select")
    yield _at_most(f"{what}: select at N = {most:,} / at {least:,}", "{}", 1.5, growth)
    for size, faster in ((PAPER, 1.0), (1_000_000, 30.0), (10_000_000, 200.0)):
        if size in cells and group.kind == "16ths":
            found = cells[size].median("plain", "select") / cells[size].median("service", "select")
            yield Verdict(f"{what}: plain / select at N = {size:,}", f">= {faster:g}", f"{found:.3g}", found >= faster)
    share = max(cell.pair("service") for cell in group.cells) / STEP_SECONDS
    yield Verdict(f"{what}: select and report of a {STEP_SECONDS:.0f} s step", "< 0.02 %", f"{share:.3%}", share < 2e-4)


def _worst(group: Group, call: str) -> float:
    return max(group.above_empty(cell, call) for cell in group.cells)


def _of_lives(lives: list[Life]) -> Iterator[Verdict]:
    for life in lives:
        what = f"{life.kind}, N = {life.size:,}"
        if life.kind == "features":
            yield _at_most(f"{what}: bytes a task in the server", "{}", 200, life.server_bytes)
            continue
        if life.size == 1_000_000:
            figure = life.cold_seconds / life.plain_draw_seconds
            yield _at_most(f"{what}: cold server's first selection", "{} plain selections", 20, figure)
        yield _at_most(f"{what}: bytes a task in Redis", "{}", 12, life.redis_bytes)
        yield _at_most(f"{what}: bytes a task in the server", "{}", 20, life.server_bytes)
        yield _at_most(f"{what}: snapshot, KB", "{}", 1000, life.snapshot_bytes / 1e3)
        yield _at_most(f"{what}: event with its request id, bytes", "{}", 1024, life.event_bytes + life.request_bytes)


def _of_loads(loads: list[Load]) -> Iterator[Verdict]:
    most = max((load.jobs for load in loads), default=0)
    for shared in (True, False):
        served = {load.servers: load.pairs_per_second for load in loads if (load.jobs, load.shared) == (most, shared)}
        if served:
            what = f"{most} jobs, {'one run' if shared else 'own runs'}"
            yield Verdict(f"{what}: pairs/s, one server", ">= 200", f"{served[1]:.0f}", served[1] >= 200)
            gain = served[2] / served[1]
            yield Verdict(f"{what}: pairs/s, two servers / one", "> 1", f"{gain:.2f}", gain > 1)


def _at_most(target: str, form: str, limit: float, figure: float) -> Verdict:
    return Verdict(target, "<= " + form.format(f"{limit:g}"), f"{figure:.3g}", figure <= limit)
