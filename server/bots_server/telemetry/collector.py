"""The runs that a process holds, as metrics: read from their summaries when somebody scrapes.

Names and meanings are in `metrics.py`; here is how they are read.
"""

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from bots.v1 import task_selection_pb2 as pb

RUN = ("dataset", "run")


class RunCounts:
    """What a server did for each (dataset, run), by name; runs that are no longer held are forgotten."""

    def __init__(self, names: Iterable[str]) -> None:
        self._zero = dict.fromkeys(names, 0)
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, str], dict[str, int]] = {}

    def add(self, run: tuple[str, str], **increments: int) -> None:
        with self._lock:
            counts = self._counts.setdefault(run, dict(self._zero))
            for name, increment in increments.items():
                counts[name] += increment

    def keep(self, runs: set[tuple[str, str]]) -> dict[tuple[str, str], dict[str, int]]:
        """Forgets all but `runs`; returns a copy of what is left."""
        with self._lock:
            self._counts = {run: counts for run, counts in self._counts.items() if run in runs}
            return {run: dict(counts) for run, counts in self._counts.items()}


@dataclass
class Monotone:
    """A run's sums as counters: they never go down, though a restore takes the run's own sums back.

    What was reported between the scrape before a restore and the scrape after it may be missing from them.
    A restart of the server after a restore looks like a counter reset to Prometheus all the same.
    """

    seen: dict[str, float] = field(default_factory=dict)
    exported: dict[str, float] = field(default_factory=dict)

    def follow(self, sums: dict[str, float]) -> dict[str, float]:
        """Returns the counters after the run's sums have become `sums`."""
        for name, now in sums.items():
            self.exported[name] = self.exported.get(name, 0.0) + max(0.0, now - self.seen.get(name, 0.0))
        self.seen = sums
        return self.exported


class RunCollector:
    """Exports the runs of `summaries()`; each table is metric's name -> (help, value)."""

    def __init__(
        self,
        summaries: Callable[[], Iterable[pb.RunSummary]],
        gauges: Mapping[str, tuple[str, Callable[[pb.RunSummary], float]]],
        sums: Mapping[str, tuple[str, Callable[[pb.Accuracy], float]]],
        counted: Mapping[str, str],
        counts: RunCounts,
    ) -> None:
        self._summaries = summaries
        self._gauges, self._sums, self._counted, self._counts = gauges, sums, counted, counts
        self._lock = threading.Lock()
        self._monotone: dict[str, Monotone] = {}  # by uid of the run

    def describe(self) -> Iterable[Metric]:
        """Returns nothing: registering asks no replica."""
        return ()

    def collect(self) -> Iterator[Metric]:
        summaries = list(self._summaries())
        sums = self._follow(summaries)
        counts = self._counts.keep({(s.run.dataset, s.run.name) for s in summaries})
        for name, (text, value) in self._gauges.items():
            gauge = GaugeMetricFamily(f"bots_run_{name}", text, labels=RUN)
            for s in summaries:
                if not math.isnan(number := value(s)):  # what is not known is absent
                    gauge.add_metric((s.run.dataset, s.run.name), number)
            yield gauge
        for name, (text, _) in self._sums.items():
            counter = CounterMetricFamily(f"bots_run_{name}", f"{text} Since the run began.", labels=RUN)
            for s in summaries:
                counter.add_metric((s.run.dataset, s.run.name), sums[s.run.uid][name])
            yield counter
        for name, text in self._counted.items():
            counter = CounterMetricFamily(f"bots_run_{name}", text, labels=RUN)
            for s in summaries:
                run = s.run.dataset, s.run.name
                counter.add_metric(run, counts[run][name] if run in counts else 0)
            yield counter
        yield from _families(summaries)

    def _follow(self, summaries: list[pb.RunSummary]) -> dict[str, dict[str, float]]:
        with self._lock:
            self._monotone = {s.run.uid: self._monotone.get(s.run.uid, Monotone()) for s in summaries}
            return {
                s.run.uid: dict(
                    self._monotone[s.run.uid].follow({name: of(s.total) for name, (_, of) in self._sums.items()})
                )
                for s in summaries
            }


def _families(summaries: list[pb.RunSummary]) -> Iterator[Metric]:
    """Yields the metrics of runs that have a label of their own."""
    tasks = GaugeMetricFamily(
        "bots_run_tasks",
        "Tasks by posterior mean; pass_rate is the lower edge of a bin that reaches to the next.",
        labels=(*RUN, "pass_rate"),
    )
    hyperparameters = GaugeMetricFamily(
        "bots_run_hyperparameter", "Hyperparameters of the run.", labels=(*RUN, "hyperparameter")
    )
    tags = GaugeMetricFamily(
        "bots_run_tag_mean_pass_rate", "Mean of the posterior means over a tag's tasks.", labels=(*RUN, "tag")
    )
    for s in summaries:
        run = s.run.dataset, s.run.name
        bins = len(s.pass_rate_bins)
        for number, count in enumerate(s.pass_rate_bins):
            tasks.add_metric((*run, f"{number / bins:.2f}"), count)
        for name, value in s.run.hyperparameters.ListFields():
            hyperparameters.add_metric((*run, name.name), float(value))
        for tag in s.tags:
            tags.add_metric((*run, tag.tag), tag.mean_pass_rate)
    yield from (tasks, hyperparameters, tags)
