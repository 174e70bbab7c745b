"""The runs that a process holds, as metrics: read from their summaries at each scrape.

`figures.py` has the names and meanings.
"""

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from bots_server.core.hyperparameters import RULES
from bots_server.core.posterior import Posterior
from bots_server.core.statistics import Figures
from bots_server.core.summary import Summary

RUN = ("dataset", "run")
MOST_COUNTED = 4096  # runs; without scrapes nothing else bounds their number


@dataclass(frozen=True, slots=True, eq=False)
class ObservedRun:
    """A run as a scrape sees it."""

    dataset: str
    name: str
    uid: str
    posterior: Posterior
    summary: Summary
    live_leases: int

    @property
    def labels(self) -> tuple[str, str]:
        """Returns the values of the labels `RUN`."""
        return self.dataset, self.name


class RunCounts:
    """What a server did for each (dataset, run), by name. A scrape forgets the runs that are no longer held."""

    def __init__(self, names: Iterable[str]) -> None:
        self._zero = dict.fromkeys(names, 0)
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, str], dict[str, int]] = {}

    def add(self, run: tuple[str, str], **increments: int) -> None:
        with self._lock:
            if run not in self._counts and len(self._counts) >= MOST_COUNTED:
                del self._counts[next(iter(self._counts))]
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
        return self.exported


class RunCollector:
    """Exports the runs of `observe()`; each table is metric's name -> (help, value)."""

    def __init__(
        self,
        observe: Callable[[], Iterable[ObservedRun]],
        gauges: Mapping[str, tuple[str, Callable[[ObservedRun], float]]],
        sums: Mapping[str, tuple[str, Callable[[Figures], float]]],
        counted: Mapping[str, str],
        counts: RunCounts,
    ) -> None:
        self._observe = observe
        self._gauges, self._sums, self._counted, self._counts = gauges, sums, counted, counts
        self._lock = threading.Lock()
        self._monotone: dict[str, Monotone] = {}  # by uid of the run

    def describe(self) -> Iterable[Metric]:
        """Returns nothing: registering asks no replica."""
        return ()

    def collect(self) -> Iterator[Metric]:
        runs = list(self._observe())
        sums = self._follow(runs)
        counts = self._counts.keep({run.labels for run in runs})
        for name, (text, value) in self._gauges.items():
            gauge = GaugeMetricFamily(f"bots_run_{name}", text, labels=RUN)
            for run in runs:
                if not math.isnan(number := value(run)):  # what is not known is absent
                    gauge.add_metric(run.labels, number)
            yield gauge
        for name, (text, _) in self._sums.items():
            counter = CounterMetricFamily(f"bots_run_{name}", f"{text} Since the run began.", labels=RUN)
            for run in runs:
                counter.add_metric(run.labels, sums[run.uid][name])
            yield counter
        for name, text in self._counted.items():
            counter = CounterMetricFamily(f"bots_run_{name}", text, labels=RUN)
            for run in runs:
                counter.add_metric(run.labels, counts.get(run.labels, {}).get(name, 0))
            yield counter
        yield from _families(runs)

    def _follow(self, runs: list[ObservedRun]) -> dict[str, dict[str, float]]:
        with self._lock:
            self._monotone = {run.uid: self._monotone.get(run.uid, Monotone()) for run in runs}
            return {
                run.uid: dict(
                    self._monotone[run.uid].follow(
                        {name: of(run.summary.total) for name, (_, of) in self._sums.items()}
                    )
                )
                for run in runs
            }


def _families(runs: list[ObservedRun]) -> Iterator[Metric]:
    """Yields the metrics of runs that have a label of their own."""
    lower_edge = "pass_rate is the lower edge of a bin that reaches to the next."
    tasks = GaugeMetricFamily("bots_run_tasks", f"Tasks by posterior mean; {lower_edge}", labels=(*RUN, "pass_rate"))
    predicted = GaugeMetricFamily(
        "bots_run_recent_predicted_pass_rate",
        f"Mean predicted pass rate of recent outcomes, by predicted pass rate; {lower_edge}",
        labels=(*RUN, "pass_rate"),
    )
    observed = GaugeMetricFamily(
        "bots_run_recent_observed_pass_rate",
        f"Mean observed pass rate of recent outcomes, by predicted pass rate; {lower_edge}",
        labels=(*RUN, "pass_rate"),
    )
    hyperparameters = GaugeMetricFamily(
        "bots_run_hyperparameter", "Hyperparameters of the run.", labels=(*RUN, "hyperparameter")
    )
    tags = GaugeMetricFamily(
        "bots_run_tag_mean_pass_rate", "Mean of the posterior means over a tag's tasks.", labels=(*RUN, "tag")
    )
    for run in runs:
        recent = run.summary.recent
        for family, values in (
            (tasks, run.summary.pass_rate_bins.tolist()),
            (predicted, [one.predicted for one in recent.calibration]),
            (observed, [one.observed for one in recent.calibration]),
        ):
            for number, value in enumerate(values):
                if not math.isnan(value):
                    family.add_metric((*run.labels, f"{number / len(values):.2f}"), value)
        for name, rule in RULES.items():
            if rule.model in (None, run.posterior.model):
                value = float(getattr(run.posterior.hyperparameters, name))
                hyperparameters.add_metric((*run.labels, name), value)
        for tag in run.summary.tags:
            tags.add_metric((*run.labels, tag.tag), tag.mean_pass_rate)
    yield from (tasks, predicted, observed, hyperparameters, tags)
