"""Building blocks of the metrics: label values that stay within closed sets, and histograms that take counts."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from prometheus_client import Histogram
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import Metric as MetricFamily
from prometheus_client.registry import Collector

OTHER: Final = "other"
"""Stands for every label value that is in no closed set."""

MOST_SERIES: Final = 10_000
"""Of one metric in one process: catalogs may change without end, memory may not."""

Metric = TypeVar("Metric", bound=MetricWrapperBase)
Known = Callable[[], Container[str]]
"""Returns the label values that are allowed at the moment."""


class _Anything(Container[str]):
    def __contains__(self, value: object) -> bool:
        return True


def _anything() -> Container[str]:
    return _Anything()


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The label values that change while a process runs: models come and go.

    By default whatever comes is allowed, as far as `MOST_SERIES` goes; a process that serves says what there is.

    Attributes:
        refs: Of the models.
        providers: Of the models.
        strategies: By name.
    """

    refs: Known = _anything
    providers: Known = _anything
    strategies: Known = _anything


class CountedHistogram(Histogram):
    """A histogram that takes many values at the price of few."""

    def observe_times(self, amount: float, times: int) -> None:
        """Observe `amount` as if `observe` had been called `times` times."""
        self._sum.inc(amount * times)
        self._buckets[bisect_left(self._upper_bounds, amount)].inc(times)

    def observe_buckets(self, counts: Mapping[int, int], total: float) -> None:
        """Observe values of which is known how many fell into each bucket, and their sum.

        Args:
            counts: How many, by the place of the bucket.
            total: Sum of all values.
        """
        self._sum.inc(total)
        for place, count in counts.items():
            self._buckets[place].inc(count)


class AskedFirst(Collector):
    """Has no series of its own: registered before those that have, it brings them up to date when they are asked for.

    Args:
        settle: Does that.
    """

    def __init__(self, settle: Callable[[], object]) -> None:
        self._settle = settle

    def collect(self) -> Iterable[MetricFamily]:
        """Settle; there is nothing to tell."""
        self._settle()
        return ()


class Bounded(Generic[Metric]):
    """The series of one metric by label values; values outside of the closed sets become `OTHER`.

    Args:
        metric: With labels.
        clean: Turns label values into ones that are allowed; asked once for every series that it leaves as it is.
    """

    def __init__(self, metric: Metric, clean: Callable[..., tuple[str, ...]]) -> None:
        self._metric = metric
        self._clean = clean
        self._series: dict[tuple[str, ...], Metric] = {}

    def __call__(self, *values: str) -> Metric:
        """Return the series of these label values."""
        found = self._series.get(values)
        return found if found is not None else self._admit(values)

    def _admit(self, values: tuple[str, ...]) -> Metric:
        clean = self._clean(*values)
        if len(self._series) >= MOST_SERIES and clean not in self._series:
            clean = (OTHER,) * len(values)
        if clean not in self._series:
            self._series[clean] = self._metric.labels(*clean)
        return self._series[clean]


def each_of(*known: Known) -> Callable[..., tuple[str, ...]]:
    """Clean every label value by the closed set in its place."""

    def clean(*values: str) -> tuple[str, ...]:
        return tuple(value if value in allowed() else OTHER for value, allowed in zip(values, known, strict=True))

    return clean


def of_models(refs: Known, *further: Known) -> Callable[..., tuple[str, ...]]:
    """Clean provider and model together, by refs, and the label values behind them each by its own set."""
    rest = each_of(*further)

    def clean(provider: str, model: str, *values: str) -> tuple[str, ...]:
        pair = (provider, model) if f"{provider}/{model}" in refs() else (OTHER, OTHER)
        return (*pair, *rest(*values))

    return clean
