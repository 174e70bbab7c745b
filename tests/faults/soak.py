"""`make soak SECONDS=600`: every failpoint in random order for as long as told, then the load, and all figures.

    python -m tests.faults.soak --seconds 600 [--seed 1]

First the size in Redis (half a minute), then the load (a quarter of the time), then rounds: a fresh deployment of some
form and durability, jobs at work, some failpoints, and the validator's verdict. Ends with status 1 at the first verdict
that is not right, with the round's seed and the servers' logs.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections import defaultdict
from dataclasses import dataclass, field

from tests.faults.deployment import Durability, Form, deployed
from tests.faults.failpoints import FAILPOINTS, struck
from tests.faults.load import load
from tests.faults.model import Dataset, History
from tests.faults.size import size
from tests.faults.validator import Verdict, outage, validate

# Form, durability and appendfsync of a round.
SETUPS: tuple[tuple[Form, Durability, str], ...] = (
    ("single", "memory", "everysec"),
    ("single", "fsync", "always"),
    ("single", "fsync", "everysec"),
    ("pair", "memory", "everysec"),
    ("pair", "fsync", "everysec"),
    ("pair", "replica", "everysec"),
    ("sentinel", "memory", "everysec"),
    ("sentinel", "replica", "everysec"),
    ("cluster", "memory", "everysec"),
    ("cluster", "replica", "everysec"),
    ("single", "memory", "no"),
)
MOST_FAULTS = 8  # of a round


@dataclass
class Figures:
    """What the rounds came to."""

    faults: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))  # outages in seconds
    lost: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    acknowledged: dict[str, int] = field(default_factory=lambda: defaultdict(int))  # by durability
    doubled: int = 0
    unacknowledged: int = 0
    unacknowledged_stored: int = 0
    selections: int = 0
    rounds: int = 0

    def add(self, setup: tuple[Form, Durability, str], history: History, verdict: Verdict) -> None:
        """Counts a round."""
        form, durability, appendfsync = setup
        level = f"{durability}, appendfsync {appendfsync}"
        self.rounds += 1
        self.acknowledged[level] += verdict.acknowledged
        self.doubled += verdict.doubled
        self.unacknowledged += verdict.unacknowledged
        self.unacknowledged_stored += verdict.unacknowledged_stored
        self.selections += verdict.selections
        for fault in history.faults:
            self.faults[f"{form}: {fault.name}", level].append(outage(history, fault))
        # What was lost is put down to the first fault after it that could take it.
        for time_of_answer in verdict.lost_at:
            fault = next(one for one in history.faults if one.takes_back and one.ended >= time_of_answer)
            self.lost[f"{form}: {fault.name}", level] += 1

    def show(self) -> None:
        """Prints all."""
        print(f"\n{'fault':42} {'durability':30} times  lost  outage median, longest (s)")
        for (name, level), outages in sorted(self.faults.items()):
            times, median, lost = len(outages), statistics.median(outages), self.lost[name, level]
            print(f"{name:42} {level:30} {times:5} {lost:5}  {median:10.2f} {max(outages):10.2f}")
        print("acknowledged:", ", ".join(f"{count} ({level})" for level, count in sorted(self.acknowledged.items())))
        print(
            f"{self.rounds} rounds, {sum(map(len, self.faults.values()))} faults, "
            f"{sum(self.acknowledged.values())} acknowledged, {sum(self.lost.values())} lost "
            f"(all to faults that their durability does not cover), {self.doubled} doubled, {self.unacknowledged} "
            f"unacknowledged of which {self.unacknowledged_stored} are stored, {self.selections} selections, none stale"
        )


def soak(seconds: float, seed: int) -> bool:
    """Strikes for so long; returns whether all was right."""
    rng, figures = random.Random(seed), Figures()
    end = time.monotonic() + seconds
    setups: list[tuple[Form, Durability, str]] = []
    while time.monotonic() < end:
        setups = setups or rng.sample(SETUPS, len(SETUPS))
        setup = form, durability, appendfsync = setups.pop()
        possible = [failpoint for failpoint in FAILPOINTS if form in failpoint.forms]
        failpoints = rng.sample(possible, min(len(possible), MOST_FAULTS))
        number = rng.randrange(1 << 30)
        dataset = Dataset.draw(number, 300)
        with deployed(form, durability, dataset, appendfsync=appendfsync) as deployment:
            history = struck(deployment, failpoints, number)
            verdict = validate(history, dataset, deployment.show())
            figures.add(setup, history, verdict)
            print(
                f"round {figures.rounds} ({form}, {durability}, {appendfsync}, seed {number}): "
                f"{', '.join(failpoint.name for failpoint in failpoints)}: {verdict.acknowledged} acknowledged, "
                f"{verdict.lost} lost",
                flush=True,
            )
            if verdict.violations or verdict.doubled:
                print(*verdict.violations, sep="\n")
                for server in deployment.servers:
                    print(server.log.read_text()[-10_000:])
                figures.show()
                return False
    figures.show()
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600.0, help="how long, about")
    parser.add_argument("--seed", type=int, default=None, help="of the order of faults; default: a fresh one")
    given = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 30) if given.seed is None else given.seed
    print(f"seed {seed}", flush=True)
    begin = time.monotonic()
    size()
    load(max(10.0, given.seconds / 4))
    right = soak(given.seconds - (time.monotonic() - begin), seed)
    raise SystemExit(0 if right else 1)


if __name__ == "__main__":
    main()
