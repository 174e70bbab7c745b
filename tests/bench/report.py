"""How the figures are printed: plain text, one line a cell."""

from collections.abc import Iterable, Iterator

import numpy as np

from tests.bench.life import Life
from tests.bench.load import Load
from tests.bench.noisy import Noise
from tests.bench.stages import Stages
from tests.bench.table import Cell, Group
from tests.bench.targets import Verdict

COLUMNS = (
    "columns   batch         N |  plain select  update |  core select   fold |      service select       report |"
    "  at once select       report |     E      U | (sel-E)/U (rep-E)/U | x plain"
)


def group_lines(group: Group) -> list[str]:
    """Returns a line for each cell: medians (and p99) in ms."""
    return [_line(group, cell) for cell in group.cells]


def _line(group: Group, cell: Cell) -> str:
    def ms(side: str, call: str) -> str:
        return f"{cell.median(side, call) * 1e3:.2f}"

    def both(side: str, call: str) -> str:
        return f"{cell.median(side, call) * 1e3:.2f} ({cell.p99(side, call) * 1e3:.1f})"

    empty, unit = group.empty_median * 1e3, group.unit_median * 1e3
    faster = cell.median("plain", "select") / cell.median("service", "select")
    return (
        f"{cell.kind:9} {cell.batch_size:5} {cell.size:9,} |"
        f" {ms('plain', 'select'):>13} {ms('plain', 'report'):>7} |"
        f" {ms('core', 'select'):>12} {ms('core', 'report'):>6} |"
        f" {both('service', 'select'):>19} {both('service', 'report'):>12} |"
        f" {ms('at once', 'select'):>15} {ms('at once', 'report'):>12} |"
        f" {empty:5.2f} {unit:6.2f} |"
        f" {group.above_empty(cell, 'select'):9.2f} {group.above_empty(cell, 'report'):9.2f} |"
        f" {faster:7.1f}"
    )


def life_lines(lives: list[Life]) -> list[str]:
    """Returns what datasets cost, a line each."""
    return [
        "columns           N | create s | cold first select s (plain selections) | after 2,000 events away s |"
        " bytes a task: server, peak, peak at creation, Redis | snapshot KB | bytes an event, request id"
    ] + [
        f"{life.kind:9} {life.size:9,} | {life.create_seconds:8.1f} |"
        f" {life.cold_seconds:19.2f} ({life.cold_seconds / life.plain_draw_seconds:5.1f}) |"
        f" {life.away_seconds:25.3f} |"
        f" {life.server_bytes:13.1f} {life.peak_bytes:6.1f} {life.creation_bytes:6.1f} {life.redis_bytes:6.2f} |"
        f" {life.snapshot_bytes / 1e3:11.1f} | {life.event_bytes:6.0f} {life.request_bytes:6.0f}"
        for life in lives
    ]


def load_lines(loads: list[Load]) -> list[str]:
    """Returns pairs a second, a line for each number of jobs."""
    lines = ["jobs      runs | pairs/s: one server, two servers | ratio"]
    for shared in (True, False):
        for jobs in sorted({load.jobs for load in loads}):
            of = {load.servers: load.pairs_per_second for load in loads if (load.jobs, load.shared) == (jobs, shared)}
            runs = "one" if shared else "own"
            lines.append(f"{jobs:4} {runs:>9} | {of[1]:19.0f} {of[2]:12.0f} | {of[2] / of[1]:5.2f}")
    return lines


def stage_lines(of: Stages) -> list[str]:
    """Returns where the time of a selection goes, a line a stage: of one drawn ahead, and of one drawn when asked."""
    stages = {"gRPC, threads (E less its PING)": of.empty - of.ping, "sync with Redis": of.sync}
    ways = {"drawn ahead": (of.ahead, stages), "drawn when asked": (of.asked, {**stages, **of.drawing})}
    lines = [
        f"one selection of {of.size:,}, {of.own:,} tasks deviate; the report was folded ahead: {of.fold * 1e3:.2f} ms"
    ]
    for way, (whole, parts) in ways.items():
        lines.append(f"  {way:40} {whole * 1e3:6.2f} ms")
        for stage, seconds in {**parts, "claim, checks, client": whole - sum(parts.values())}.items():
            lines.append(f"    {stage:38} {seconds * 1e3:6.2f} ms {seconds / whole:6.1%}")
    return lines


def noise_lines(noises: Iterable[Noise]) -> Iterator[str]:
    """Yields what a trainer's calls take without a flood, beside it on another server, and on its own server.

    The ratio is of the 99th percentiles of the last two.
    """
    names = " | ".join(f"{name:>15}" for name in ("quiet", "other server", "own server"))
    yield f"{'flood':36} | p50 / p99 ms{names} | ratio | calls of the flood a second"
    for noise in noises:
        each = [np.percentile(seconds, (50, 99)) * 1e3 for seconds in (noise.quiet, noise.beside, noise.seconds)]
        times = " | ".join(f"{f'{median:.1f} / {p99:.1f}':>15}" for median, p99 in each)
        ended = ", ".join(f"{how} {count:.0f}" for how, count in sorted(noise.ended.items()))
        yield f"{noise.flood:36} | {'':12}{times} | {each[2][1] / each[1][1]:5.1f} | {ended}"


def verdict_lines(verdicts: list[Verdict]) -> list[str]:
    """Returns the targets, a line each."""
    return [
        f"{'met   ' if verdict.met else 'MISSED'} {verdict.target:60} {verdict.limit:>24}   {verdict.figure:>8}"
        for verdict in verdicts
    ]
