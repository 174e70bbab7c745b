"""What identities use of their quotas, as metrics: read from the store at each scrape."""

from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client.core import GaugeMetricFamily, Metric

Usage = Mapping[str, Mapping[str, int]]  # identity -> resource -> what it uses


class UsageCollector:
    """Exports the use of `observe()`, by identity, and the quotas of each."""

    def __init__(self, observe: Callable[[], Usage], limits: Mapping[str, int]) -> None:
        self._observe, self._limits = observe, limits

    def describe(self) -> Iterable[Metric]:
        """Returns nothing: registering asks no store."""
        return ()

    def collect(self) -> Iterator[Metric]:
        quota = GaugeMetricFamily("bots_quota", "Most that one identity may use.", labels=("resource",))
        for resource, limit in self._limits.items():
            quota.add_metric((resource,), limit)
        yield quota
        used = GaugeMetricFamily(
            "bots_quota_used",
            "What the datasets and runs of an identity use (every server exports the same).",
            labels=("identity", "resource"),
        )
        for identity, use in self._observe().items():
            for resource, value in use.items():
                used.add_metric((identity, resource), value)
        yield used
