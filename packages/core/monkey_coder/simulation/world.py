"""The simulated world: models with true skills, prices, outages and silent changes, drawn from a seed.

Nothing here is fitted to the engine. Skills scatter around what a catalog would publish, so that the published order of
models is right on average and wrong in many classes of tasks; which model is best where differs from seed to seed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from monkey_coder.simulation.traffic import CLASSES, LEVELS

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

HOURS: Final = 24

SPECIALITY_SD: Final = 0.8
"""Scatter of a model's skill over classes, in logits: beyond its general skill, nobody knows it beforehand."""
GENERAL_SD: Final = 0.35
"""Scatter of general skill around what its price would suggest."""
PUBLISHED_SD: Final = 0.25
"""Error of the published quality."""
LUCK_SD: Final = 0.7
"""How tasks of one class and level differ: by logits, for all models alike, so that failures go together."""
PUBLISHED_EVIDENCE: Final = 10

DRIFT_LOGITS: Final = -1.5
OUTAGES_PER_DAY: Final = 0.1
"""Of each provider."""
OUTAGE_HOURS: Final = (2, 8)

PRICE_CUT_AT, NEW_MODEL_AT, DRIFT_AT, PRICE_RISE_AT = 0.25, 0.4, 0.55, 0.7
"""When things happen, as shares of the simulated time."""
PRICE_CUT, PRICE_RISE = 0.5, 1.6


@dataclass(frozen=True, slots=True)
class ModelKind:
    """A model before the seed has its say.

    Attributes:
        ref: ``provider/model``; invented.
        input_mtok: USD per million input tokens.
        output_mtok: USD per million output tokens.
        general: Skill that such a price suggests, in logits.
        verbosity: Length of its answers against the usual.
        latency_s: Usual seconds of a call.
    """

    ref: str
    input_mtok: float
    output_mtok: float
    general: float
    verbosity: float
    latency_s: float


KINDS: Final = (
    ModelKind("dune/open-8b", 0.08, 0.08, -0.6, 0.8, 2.0),
    ModelKind("cobalt/flash", 0.15, 0.6, 0.0, 0.9, 2.5),
    ModelKind("borealis/small", 0.25, 1.25, 0.2, 1.0, 3.0),
    ModelKind("aster/mini", 0.4, 1.6, 0.4, 1.3, 4.0),
    ModelKind("dune/open-70b", 0.8, 0.8, 0.7, 0.9, 6.0),
    ModelKind("cobalt/pro", 2.5, 10.0, 1.2, 1.1, 8.0),
    ModelKind("borealis/large", 5.0, 25.0, 1.7, 1.0, 10.0),
    ModelKind("aster/max", 10.0, 50.0, 2.2, 1.2, 14.0),
    ModelKind("ember/ember-1", 1.0, 4.0, 1.5, 1.0, 6.0),
)
"""In order of price; the last one appears while the world runs."""

NEWCOMER: Final = len(KINDS) - 1


@dataclass(frozen=True, slots=True)
class Outage:
    """A provider that cannot be reached.

    Attributes:
        provider: Which.
        first_hour: Since the beginning.
        end_hour: The first hour in which it answers again.
    """

    provider: str
    first_hour: int
    end_hour: int


@dataclass(frozen=True, slots=True)
class Conditions:
    """The truth of an hour; C classes and M models.

    Attributes:
        present: (M,) whether the model is offered.
        down: (M,) whether its provider cannot be reached.
        prices: (M, 2) USD per input and output token.
        skill: (C, M) in logits, for a task of the middle level.
    """

    present: Bools
    down: Bools
    prices: Floats
    skill: Floats

    @property
    def key(self) -> bytes:
        """Equal for equal conditions."""
        return b"".join(array.tobytes() for array in (self.present, self.down, self.prices, self.skill))


@dataclass(frozen=True)
class World:
    """Everything that happens, but for the tasks.

    Attributes:
        seed: It was drawn from.
        days: How long it runs.
        tasks_per_day: On average.
        first: The conditions at the beginning.
        published: (M,) P(success) that the catalog gives each model.
        outages: In order of their beginning.
        cut: Model whose price falls, and when.
        rise: Model whose price rises, and when.
        newcomer_day: When the new model appears.
        drift: Model that becomes worse without anybody saying so, and when.
    """

    seed: int
    days: int
    tasks_per_day: int
    first: Conditions
    published: Floats
    outages: tuple[Outage, ...]
    cut: tuple[int, int]
    rise: tuple[int, int]
    newcomer_day: int
    drift: tuple[int, int]

    def at(self, hour: int) -> Conditions:
        """The truth of an hour, counted from the beginning."""
        day = hour // HOURS
        prices, skill, present = self.first.prices.copy(), self.first.skill.copy(), self.first.present.copy()
        if day >= self.cut[1]:
            prices[self.cut[0]] *= PRICE_CUT
        if day >= self.rise[1]:
            prices[self.rise[0]] *= PRICE_RISE
        if day >= self.newcomer_day:
            present[NEWCOMER] = True
        if day >= self.drift[1]:
            skill[:, self.drift[0]] += DRIFT_LOGITS
        silent = {outage.provider for outage in self.outages if outage.first_hour <= hour < outage.end_hour}
        down = np.array([kind.ref.partition("/")[0] in silent for kind in KINDS])
        return Conditions(present, down, prices, skill)

    def catalog_fields(self, model: int, conditions: Conditions) -> Mapping[str, Any]:
        """One model as an operator would write it into the catalog: what is published, never the truth."""
        kind = KINDS[model]
        return {
            "context_window": 200_000,
            "max_output": 32_000,
            "capabilities": ["tools", "json_mode"],
            "regions": ["global"],
            "quality": {"default": round(float(self.published[model]), 3)},
            "evidence": PUBLISHED_EVIDENCE,
            "latency_s": kind.latency_s,
            "sources": {"quality": "published in the simulated world"},
            "prices": {
                "input_mtok": round(float(conditions.prices[model, 0]) * 1e6, 6),
                "output_mtok": round(float(conditions.prices[model, 1]) * 1e6, 6),
            },
        }

    def described(self) -> dict[str, Any]:
        """What happens, for reports."""
        return {
            "seed": self.seed,
            "price_cut": {"model": KINDS[self.cut[0]].ref, "day": self.cut[1] + 1, "factor": PRICE_CUT},
            "price_rise": {"model": KINDS[self.rise[0]].ref, "day": self.rise[1] + 1, "factor": PRICE_RISE},
            "new_model": {"model": KINDS[NEWCOMER].ref, "day": self.newcomer_day + 1},
            "drift": {"model": KINDS[self.drift[0]].ref, "day": self.drift[1] + 1, "logits": DRIFT_LOGITS},
            "outages": [
                {"provider": o.provider, "day": o.first_hour // HOURS + 1, "hours": o.end_hour - o.first_hour}
                for o in self.outages
            ],
        }


def draw_world(seed: int, days: int, tasks_per_day: int) -> World:
    """Draw a world; the model that becomes worse is not yet the one that hurts most (see `run.with_drift`).

    Args:
        seed: Of all that happens.
        days: How long it runs.
        tasks_per_day: On average.
    """
    rng = np.random.default_rng([seed, 0])
    suggested = np.array([kind.general for kind in KINDS])
    general = suggested + rng.normal(0.0, GENERAL_SD, len(KINDS))
    skill = general + rng.normal(0.0, SPECIALITY_SD, (len(CLASSES), len(KINDS)))
    published = 1.0 / (1.0 + np.exp(-(general + rng.normal(0.0, PUBLISHED_SD, len(KINDS)))))
    prices = np.array([[kind.input_mtok, kind.output_mtok] for kind in KINDS]) / 1e6
    present = np.arange(len(KINDS)) != NEWCOMER
    first = Conditions(present, np.zeros(len(KINDS), np.bool_), prices, skill)
    cut, rise = (int(model) for model in rng.choice(np.arange(3, NEWCOMER), 2, replace=False))
    return World(
        seed=seed,
        days=days,
        tasks_per_day=tasks_per_day,
        first=first,
        published=published,
        outages=_outages(days, rng),
        cut=(cut, max(1, round(PRICE_CUT_AT * days))),
        rise=(rise, max(1, round(PRICE_RISE_AT * days))),
        newcomer_day=max(1, round(NEW_MODEL_AT * days)),
        drift=(0, max(1, round(DRIFT_AT * days))),
    )


def with_drift(world: World, model: int) -> World:
    """The same world, in which this model becomes worse."""
    return replace(world, drift=(model, world.drift[1]))


def _outages(days: int, rng: np.random.Generator) -> tuple[Outage, ...]:
    providers = dict.fromkeys(kind.ref.partition("/")[0] for kind in KINDS)
    found = []
    for provider in providers:
        for day in np.flatnonzero(rng.random(days) < OUTAGES_PER_DAY).tolist():
            first = day * HOURS + int(rng.integers(HOURS))
            found.append(Outage(provider, first, first + int(rng.integers(*OUTAGE_HOURS, endpoint=True))))
    return tuple(sorted(found, key=lambda outage: outage.first_hour))


def levels() -> Floats:
    """Logits of the levels of difficulty."""
    return np.array([level[2] for level in LEVELS])
