"""`make bench`: one command, one table, then whether each target is met.

    python -m tests.bench [--quick] [--only table life load list stages noisy]

A real Valkey on a Unix socket, two server processes as in production, the real client library in this process. Times
are ms unless stated otherwise: medians, in brackets the 99th percentile.
"""

import argparse
import sys
from collections.abc import Iterable
from time import perf_counter
from typing import get_args

from tests.bench import report
from tests.bench.life import Life, life, list_seconds
from tests.bench.load import Load, loads
from tests.bench.noisy import noises
from tests.bench.processes import server
from tests.bench.stages import stages
from tests.bench.table import PAPER, Effort, Group, groups
from tests.bench.targets import judge
from tests.bench.workload import Kind
from tests.valkey import valkey

FULL = Effort(rounds=200, plain_seconds=10.0, sizes=(10_000, PAPER, 1_000_000, 10_000_000))
QUICK = Effort(rounds=40, plain_seconds=1.0, sizes=(10_000, PAPER, 1_000_000))
SECTIONS = ("table", "life", "load", "list", "stages", "noisy")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions, and N up to 1e6")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS, help="sections to measure")
    parser.add_argument("--columns", nargs="+", choices=get_args(Kind), help="rows of the table; default: all")
    arguments = parser.parse_args()
    effort = QUICK if arguments.quick else FULL
    sections, begin = arguments.only, perf_counter()
    measured: list[Group] = []
    lives: list[Life] = []
    served: list[Load] = []
    listed: float | None = None

    def told(what: str) -> None:
        print(f"[{perf_counter() - begin:5.0f} s] {what}", file=sys.stderr, flush=True)

    if set(sections) - {"life", "noisy"}:
        with valkey() as redis, server(redis.url) as one, server(redis.url) as other:
            addresses = [one.address, other.address]
            if "table" in sections:
                show([report.COLUMNS])
                for group in groups(addresses, effort, arguments.columns, told):
                    show(report.group_lines(group))
                    measured.append(group)
            if "stages" in sections:
                show(["", *report.stage_lines(stages(addresses, redis.url, effort.sizes[-1], told))])
            if "load" in sections:
                served = loads(addresses, 2.0 if arguments.quick else 5.0, told)
                show(["", *report.load_lines(served)])
            if "list" in sections:
                listed = list_seconds(one.address, told)
    if "life" in sections:
        plans: list[tuple[Kind, int]] = [*(("16ths", size) for size in effort.sizes[2:]), ("features", 1_000_000)]
        for kind, size in plans:
            with valkey() as redis:
                lives.append(life(redis, kind, size, told))
        show(["", *report.life_lines(lives)])
    if "noisy" in sections:
        with valkey() as redis, valkey() as other_redis:
            for line in report.noise_lines(noises(redis.url, other_redis.url, 3.0 if arguments.quick else 10.0, told)):
                show([line])
    show(["", *report.verdict_lines(judge(measured, lives, served, listed))])


def show(lines: Iterable[str]) -> None:
    print("\n".join(lines), flush=True)


if __name__ == "__main__":
    main()
