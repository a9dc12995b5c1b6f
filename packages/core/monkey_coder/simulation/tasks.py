"""The tasks of one day, and what would come of every model on every one of them: the same for all routers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from monkey_coder.simulation.traffic import CLASSES, LEVELS, prompt
from monkey_coder.simulation.world import HOURS, KINDS, LUCK_SD, Bools, Floats, World, levels

Ints = NDArray[np.int64]

LENGTH_SD: Final = 0.3
"""Scatter of the logarithm of an answer's length."""
VERIFIED_DELAY_S, SEEN_DELAY_S, DELAY_SD = 300.0, 6 * 3600.0, 1.0
"""Median seconds until a verified, and until any other outcome is reported; scatter of their logarithm."""
VERIFIED_MISSING, SEEN_MISSING = 0.1, 0.4
"""Shares of outcomes that are never reported."""
SLOTS: Final = 3
"""Slots of an hour."""
BUSY: Final = (1, 1, 1, 1, 1, 1, 2, 4, 8, 10, 10, 9, 7, 9, 10, 10, 8, 6, 4, 3, 3, 2, 2, 1)
"""Traffic by the hour of the day."""


@dataclass(frozen=True)
class Tasks:
    """N tasks of one day, in order of arrival, and M models.

    Attributes:
        kind: (N,) index into `CLASSES`.
        level: (N,) index into `LEVELS`.
        hour: (N,) since the beginning.
        slot: (N,) which slot of the hour: tasks of one slot are decided together.
        prompts: N.
        input_tokens: (N,) of prompt and files.
        value_usd: (N,) what a solution is worth.
        verified: (N,) whether the caller can check.
        success: (N, M) whether the model would solve it.
        down: (N, M) whether the model would not answer at all.
        cost_usd: (N, M) of an attempt that is answered.
        latency_s: (N, M) of the same.
        output_tokens: (N, M) of the same.
        delay_s: (N, M) until a report about the model comes.
        reported: (N, M) whether one ever comes.
    """

    kind: Ints
    level: Ints
    hour: Ints
    slot: Ints
    prompts: tuple[str, ...]
    input_tokens: Ints
    value_usd: Floats
    verified: Bools
    success: Bools
    down: Bools
    cost_usd: Floats
    latency_s: Floats
    output_tokens: Ints
    delay_s: Floats
    reported: Bools

    def __len__(self) -> int:
        return len(self.kind)


def draw_tasks(world: World, day: int) -> Tasks:
    """Draw the tasks of a day; the same ones whoever routes them."""
    rng = np.random.default_rng([world.seed, 1, day])
    count, models = int(rng.poisson(world.tasks_per_day)), len(KINDS)
    shares = np.array([kind.share for kind in CLASSES])
    kind = rng.choice(len(CLASSES), count, p=shares / shares.sum())
    level = rng.choice(len(LEVELS), count, p=[level[1] for level in LEVELS])
    busy = np.array(BUSY, np.float64)
    hour = np.sort(rng.choice(HOURS, count, p=busy / busy.sum())) + day * HOURS
    luck = rng.normal(0.0, LUCK_SD, count)
    draw = rng.random((count, models))
    size = rng.lognormal(-(LENGTH_SD**2) / 2.0, LENGTH_SD, (count, 2))
    verified = np.array([kind.verified for kind in CLASSES])[kind]
    usual_s = np.where(verified, VERIFIED_DELAY_S, SEEN_DELAY_S)[:, None]
    delay_s = usual_s * rng.lognormal(0.0, DELAY_SD, (count, models))
    reported = rng.random((count, models)) >= np.where(verified, VERIFIED_MISSING, SEEN_MISSING)[:, None]
    prompts = tuple(prompt(CLASSES[k], int(step), rng) for k, step in zip(kind, level, strict=True))
    slow = rng.lognormal(0.0, 0.4, (count, models))

    by_hour = {h: world.at(h) for h in np.unique(hour).tolist()}
    logit = np.array([by_hour[h].skill[k] for h, k in zip(hour.tolist(), kind, strict=True)]).reshape(count, models)
    prices = np.array([by_hour[h].prices for h in hour.tolist()]).reshape(count, models, 2)
    down = np.array([by_hour[h].down for h in hour.tolist()]).reshape(count, models)
    chance = 1.0 / (1.0 + np.exp(-(logit + levels()[level][:, None] + luck[:, None])))
    usual = np.array([(kind.input_tokens, kind.output_tokens) for kind in CLASSES])[kind]
    verbosity = np.array([kind.verbosity for kind in KINDS])
    input_tokens = np.maximum(20, usual[:, 0] * size[:, 0]).astype(np.int64)
    output_tokens = np.maximum(10, (usual[:, 1] * size[:, 1])[:, None] * verbosity).astype(np.int64)
    return Tasks(
        kind=kind.astype(np.int64),
        level=level.astype(np.int64),
        hour=hour.astype(np.int64),
        slot=rng.integers(SLOTS, size=count),
        prompts=prompts,
        input_tokens=input_tokens,
        value_usd=np.array([kind.value_usd for kind in CLASSES])[kind],
        verified=verified,
        success=draw < chance,
        down=down,
        cost_usd=input_tokens[:, None] * prices[..., 0] + output_tokens * prices[..., 1],
        latency_s=np.array([kind.latency_s for kind in KINDS]) * slow,
        output_tokens=output_tokens,
        delay_s=delay_s,
        reported=reported,
    )
