"""`make bench`: one command, one table, then whether each target is met.

    python -m tests.bench [--quick] [--only table life load stages]

A real Valkey on a Unix socket, real server processes, the real client library in this process. Times are ms unless said
otherwise: medians, in brackets the 99th percentile.
"""

import argparse
import sys
from collections.abc import Iterable
from time import perf_counter

from tests.bench import report
from tests.bench.life import Life, life
from tests.bench.load import Load, loads
from tests.bench.processes import server
from tests.bench.stages import stages
from tests.bench.table import PAPER, Effort, Group, groups
from tests.bench.targets import judge
from tests.valkey import valkey

FULL = Effort(rounds=200, plain_seconds=10.0, sizes=(10_000, PAPER, 1_000_000, 10_000_000))
QUICK = Effort(rounds=40, plain_seconds=1.0, sizes=(10_000, PAPER, 1_000_000))
SECTIONS = ("table", "life", "load", "stages")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions, and N up to 1e6")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS, help="sections to measure")
    parser.add_argument("--references", nargs="+", help="of the table: 16ths, 128ths, none, distinct; default: all")
    arguments = parser.parse_args()
    effort = QUICK if arguments.quick else FULL
    sections, begin = arguments.only, perf_counter()
    measured: list[Group] = []
    lives: list[Life] = []
    served: list[Load] = []

    def told(what: str) -> None:
        print(f"[{perf_counter() - begin:5.0f} s] {what}", file=sys.stderr, flush=True)

    if "table" in sections or "load" in sections or "stages" in sections:
        with (
            valkey() as redis,
            server(redis.url) as one,
            server(redis.url, "--processes", "2", module="bots_server") as two,
        ):
            if "table" in sections:
                show([report.COLUMNS])
                for group in groups(one.address, two.address, effort, arguments.references, told):
                    show(report.group_lines(group))
                    measured.append(group)
            if "stages" in sections:
                show(["", *report.stage_lines(stages(one.address, redis.url, effort.sizes[-1], told))])
            if "load" in sections:
                served = loads({1: one.address, 2: two.address}, 2.0 if arguments.quick else 5.0, told)
                show(["", *report.load_lines(served)])
    if "life" in sections:
        for size in effort.sizes[2:]:
            with valkey() as redis:
                lives.append(life(redis, size, told))
        show(["", *report.life_lines(lives)])
    show(["", *report.verdict_lines(judge(measured, lives, served))])


def show(lines: Iterable[str]) -> None:
    print("\n".join(lines), flush=True)


if __name__ == "__main__":
    main()
