"""What there is to count in decisions, in plain numbers; series take it over now and then, not for each decision."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from monkey_coder.ports import DecisionEvent, Repeat

DECISION_BUCKETS: Final = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
"""Seconds; from a cached decision to a stuck one."""

Key = TypeVar("Key")
Counts = dict[Key, int]


@dataclass(slots=True)
class Times:
    """What a histogram of times takes in.

    Attributes:
        buckets: How many fell into each of `DECISION_BUCKETS`, by its place; one behind the last for longer ones.
        total_s: All of them together.
    """

    buckets: Counts[int] = field(default_factory=lambda: defaultdict(int))
    total_s: float = 0.0

    def add(self, seconds: float) -> None:
        """Take in one."""
        self.buckets[bisect_left(DECISION_BUCKETS, seconds)] += 1
        self.total_s += seconds


@dataclass(slots=True)
class DecisionTally:
    """Counts by label values, as they come.

    Attributes:
        models: Decisions by provider, model and collapse.
        results: Opinions asked of strategies, by name and status.
        degraded: Decisions by what was broken.
        arms: Decisions by experiment and arm.
        seconds: Times of decisions by what the cache had to do with them.
        timed: Times of strategies, once a batch.
    """

    models: Counts[tuple[str, str, str]] = field(default_factory=lambda: defaultdict(int))
    results: Counts[tuple[str, str]] = field(default_factory=lambda: defaultdict(int))
    degraded: Counts[str] = field(default_factory=lambda: defaultdict(int))
    arms: Counts[tuple[str, str]] = field(default_factory=lambda: defaultdict(int))
    seconds: dict[str, Times] = field(default_factory=lambda: defaultdict(Times))
    timed: dict[str, Times] = field(default_factory=lambda: defaultdict(Times))

    def add(self, events: Sequence[DecisionEvent]) -> None:
        """Take in the decisions of one batch."""
        timed: dict[str, float] = {}
        for event in events:
            answer = event.answer
            self.models[answer["provider"], answer["model"], answer["collapse_strategy"]] += 1
            self.seconds[answer["cache"]].add(event.duration_s)
            for reason in answer["degraded"]:
                self.degraded[reason] += 1
            experiment = answer.get("experiment")
            if experiment is not None:
                self.arms[experiment["id"], experiment["arm"]] += 1
            for thread in answer["thread_results"] if event.reuse is None else ():
                name, time_ms = thread["strategy"], thread["execution_time_ms"]
                self.results[name, thread["status"]] += 1
                if time_ms is not None:
                    timed[name] = time_ms
        for name, time_ms in timed.items():
            self.timed[name].add(time_ms / 1e3)

    def add_repeated(self, repeats: Sequence[Repeat]) -> None:
        """Take in answers from the cache; strategies had no part in them."""
        said = {id(repeat.said): repeat.said for repeat in repeats}
        for which, count in Counter([id(repeat.said) for repeat in repeats]).items():
            answer = said[which]
            self.models[answer["provider"], answer["model"], answer["collapse_strategy"]] += count
            experiment = answer.get("experiment")
            if experiment is not None:
                self.arms[experiment["id"], experiment["arm"]] += count
        for troubles, count in Counter([repeat.degraded for repeat in repeats]).items():
            for reason in troubles:
                self.degraded[reason] += count
        for repeat in repeats:
            self.seconds[repeat.tier].add(repeat.seconds)
