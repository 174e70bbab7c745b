"""What is read at each scrape, as metrics: the runs that a process holds, and what identities use of their quotas."""

import math
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from bots_server.telemetry.figures import COUNTED, GAUGES, LABELLED, RECENT, SUMS, ObservedRun

RUN = ("dataset", "run")
MOST_COUNTED = 4096  # runs; without scrapes nothing else bounds their number

Usage = Mapping[str, Mapping[str, int]]  # identity -> resource -> what it uses


class RunCounts:
    """What a server did for each (dataset, run), by the names of `COUNTED`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, str], Counter[str]] = {}

    def add(self, run: tuple[str, str], **increments: int) -> None:
        with self._lock:
            if run not in self._counts and len(self._counts) >= MOST_COUNTED:
                del self._counts[next(iter(self._counts))]
            counts = self._counts.setdefault(run, Counter())
            for name, by in increments.items():
                counts[name] += by

    def keep(self, runs: set[tuple[str, str]]) -> dict[tuple[str, str], Counter[str]]:
        """Forgets all but `runs`; returns a copy of what is left."""
        with self._lock:
            self._counts = {run: counts for run, counts in self._counts.items() if run in runs}
            return {run: counts.copy() for run, counts in self._counts.items()}


@dataclass
class Monotone:
    """A run's sums as counters: they never decrease, although a restore or an undo takes the run's own sums back.

    Outcomes reported between the scrape before a restore or undo and the one after it may be missing from them. If the
    server is restarted after one, Prometheus sees a counter reset.
    """

    seen: dict[str, float] = field(default_factory=dict)
    exported: dict[str, float] = field(default_factory=dict)

    def follow(self, sums: dict[str, float]) -> dict[str, float]:
        """Returns the counters when the run's sums have become `sums`."""
        for name, now in sums.items():
            self.exported[name] = self.exported.get(name, 0.0) + max(0.0, now - self.seen.get(name, 0.0))
        self.seen = sums
        return dict(self.exported)


class RunCollector:
    """Exports the runs of `observe()`. `counts` forgets the runs that are no longer held."""

    def __init__(self, observe: Callable[[], Iterable[ObservedRun]], counts: RunCounts) -> None:
        self._observe, self._counts = observe, counts
        self._lock = threading.Lock()
        self._monotone: dict[str, Monotone] = {}  # by uid of the run

    def collect(self) -> Iterator[Metric]:
        runs = list(self._observe())
        sums = self._follow(runs)
        counts = self._counts.keep({run.labels for run in runs})
        for name, (text, value) in GAUGES.items():
            yield _gauge(f"bots_run_{name}", text, RUN, ((run.labels, value(run)) for run in runs))
        for name, (text, figure) in RECENT.items():
            recent = ((run.labels, figure(run.summary.recent)) for run in runs)
            yield _gauge(f"bots_run_recent_{name}", f"{text} Of recent updates.", RUN, recent)
        for name, (text, label, values) in LABELLED.items():
            rows = (((*run.labels, key), number) for run in runs for key, number in values(run).items())
            yield _gauge(f"bots_run_{name}", text, (*RUN, label), rows)
        for name, (text, _) in SUMS.items():
            counter = CounterMetricFamily(f"bots_run_{name}", f"{text} Since the run began.", labels=RUN)
            for run in runs:
                counter.add_metric(run.labels, sums[run.uid][name])
            yield counter
        for name, text in COUNTED.items():
            counter = CounterMetricFamily(f"bots_run_{name}", text, labels=RUN)
            for run in runs:
                counter.add_metric(run.labels, counts.get(run.labels, Counter())[name])
            yield counter

    def _follow(self, runs: list[ObservedRun]) -> dict[str, dict[str, float]]:
        """Returns the counters of each run, by its uid."""
        with self._lock:
            self._monotone = {run.uid: self._monotone.get(run.uid, Monotone()) for run in runs}
            return {
                run.uid: self._monotone[run.uid].follow({name: of(run.summary.total) for name, (_, of) in SUMS.items()})
                for run in runs
            }


class UsageCollector:
    """Exports the use of `observe()`, by identity, and the quotas of each."""

    def __init__(self, observe: Callable[[], Usage], limits: Mapping[str, int]) -> None:
        self._observe, self._limits = observe, limits

    def collect(self) -> Iterator[Metric]:
        limits = (((resource,), limit) for resource, limit in self._limits.items())
        yield _gauge("bots_quota", "Most that one identity may use.", ("resource",), limits)
        used = (
            ((identity, resource), value)
            for identity, use in self._observe().items()
            for resource, value in use.items()
        )
        text = "What the datasets and runs of an identity use (every server exports the same)."
        yield _gauge("bots_quota_used", text, ("identity", "resource"), used)


def _gauge(name: str, text: str, labels: Sequence[str], rows: Iterable[tuple[Sequence[str], float]]) -> Metric:
    """Returns a gauge of rows (values of the labels, number); a row with NaN is left out."""
    gauge = GaugeMetricFamily(name, text, labels=labels)
    for values, number in rows:
        if not math.isnan(number):
            gauge.add_metric(values, number)
    return gauge
