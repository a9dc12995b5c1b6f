"""What `GET /metrics` says: the series of all web processes added up, and the ratios that follow from them.

With several web processes each writes its series into files of its own in one directory (prometheus_client's
multiprocess mode), and whichever is asked adds them up. Ratios are computed from the sums: ratios do not add up.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from monkey_coder.repeating import repeat

DIRECTORY_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable with the directory; prometheus_client reads it when it is imported, so it is set before."""

_LIVE_GAUGES: Final = re.compile(r"gauge_live[a-z]*_(\d+)\.db")


SETTLE_EVERY_S: Final = 0.1
"""After so long at most other processes tell of what this one noted; what was noted later is lost when it is killed."""

_log = logging.getLogger(__name__)


@asynccontextmanager
async def settling(settle: Callable[[], object]) -> AsyncIterator[None]:
    """Keep the series of this process up to date, for those who ask other processes, and settle them at the end."""
    with ThreadPoolExecutor(1, thread_name_prefix="metrics") as executor:
        again = repeat(executor, SETTLE_EVERY_S, settle, log=_log, failed="metrics could not be brought up to date")
        task = asyncio.create_task(again, name="metrics")
        try:
            yield
        finally:
            task.cancel()
            settle()


class Exposition:
    """Renders the series of this process, or of all that share a directory.

    Args:
        registry: With the series of this process.
        directory: Where all processes write theirs; None: this process is the only one.
        settle: Brings the series of this process up to date.
    """

    def __init__(
        self, registry: CollectorRegistry, directory: Path | None, settle: Callable[[], object] = lambda: None
    ) -> None:
        self._registry = registry
        self._directory = directory
        self._settle = settle

    def render(self) -> bytes:
        """Return the series in Prometheus' text format. Reads files where there are several processes."""
        self._settle()
        source: Collector = self._registry
        if self._directory is not None:
            bury_the_dead(self._directory)
            source = MultiProcessCollector(None, str(self._directory))  # type: ignore[no-untyped-call]
        return generate_latest(_WithRatios(source))


class _WithRatios(Collector):
    """Another collector's series, and what follows from them."""

    def __init__(self, source: Collector) -> None:
        self._source = source

    def collect(self) -> Iterable[Metric]:
        families = {family.name: family for family in self._source.collect()}
        for family in families.values():
            family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
            yield family
        yield from ratios(families)


def ratios(families: dict[str, Metric]) -> Iterator[Metric]:
    """Success per model and cost per success, from the sums over all processes.

    Args:
        families: Metrics by name; counters without `_total`.
    """
    outcomes = {model: count for model, count in _by_model(families.get("quantum_outcomes")).items() if count > 0.0}
    successes = _by_model(families.get("quantum_successes"))
    cost = _by_model(families.get("quantum_cost_usd"))
    ratio = GaugeMetricFamily(
        "quantum_success_ratio", "Successes per outcome since the start.", labels=["provider", "model"]
    )
    for model, count in outcomes.items():
        ratio.add_metric(model, successes.get(model, 0.0) / count)
    yield ratio
    solved = sum(successes.values())
    price = GaugeMetricFamily("quantum_cost_per_success_usd", "USD spent per success since the start.")
    if solved > 0.0:
        price.add_metric((), sum(cost.values()) / solved)
    yield price


def _by_model(family: Metric | None) -> dict[tuple[str, str], float]:
    samples = [] if family is None else family.samples
    return {(sample.labels["provider"], sample.labels["model"]): sample.value for sample in samples}


def bury_the_dead(directory: Path) -> None:
    """Take what processes said of the moment away with them: a queue that is gone is not waiting any more.

    Args:
        directory: Of all processes' files.
    """
    for file in directory.iterdir():
        found = _LIVE_GAUGES.fullmatch(file.name)
        if found is not None and not _lives(int(found[1])):
            with suppress(FileNotFoundError):  # another process is asked at the same time, and was first
                mark_process_dead(int(found[1]), str(directory))  # type: ignore[no-untyped-call]


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's: it lives
        return True
    return True
