"""What a model card shows: how strategies do on held-out tasks, how far each deserves trust, and calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from monkey_coder.ports import REJECTED, UNTRIED, BoolArray, FloatArray, IntArray, RouteBatch, Strategy
from monkey_coder.quantum.advanced_model_selector import BALANCED, objective_utility
from monkey_coder.quantum.episode_simulation import World
from monkey_coder.quantum.outcome_memory import OutcomeMemory
from monkey_coder.quantum.state_encoder import encode_models
from monkey_coder.quantum.training_data import OutcomeData
from monkey_coder.quantum.training_options import WEIGHT_GRID
from monkey_coder.quantum.training_validation import (
    Expectations,
    Waiting,
    Worth,
    follow_order,
    grid,
    plans,
    worth,
)

TOLERANCE: Final = 0.003
"""Utility, in successes, whose loss costs a strategy all but 1/e of its trust."""

BELIEF_TASKS: Final = 300.0
BELIEVED_LOSS: Final[Mapping[str, float]] = MappingProxyType({"dqn": 0.0, "memory": 0.005})
BELIEVED_LOSS_OF_OTHERS: Final = 0.02
"""What strategies are believed to lose before any task was played: those that read no outcome know only the means."""

RESAMPLES: Final = 1_000
BINS: Final = 10


@dataclass(frozen=True, eq=False)
class Played:
    """A strategy on held-out tasks (n) at each cost weight (W).

    Attributes:
        success: (n, W) expected score of the answer kept.
        cost: (n, W) USD.
        attempts: (n, W) how many are made.
        utility: (n, W) success less the weighted cost.
    """

    success: NDArray[np.float64]
    cost: NDArray[np.float64]
    attempts: NDArray[np.float64]
    utility: NDArray[np.float64]

    @classmethod
    def of(cls, value: Worth, world: World, weights: tuple[float, ...]) -> Played:
        """Arrange what plans on `grid` came to."""
        shape = (-1, len(weights))
        success, cost = value.success.reshape(shape), value.cost.reshape(shape)
        utility = success - world.per_usd(np.array(weights))[None, :].astype(np.float64) * cost
        return cls(success, cost, value.attempts.reshape(shape), utility)


def weights_of(world: World) -> tuple[float, ...]:
    """The cost weights that make sense: the grid, or 0 alone where nothing has a price."""
    return WEIGHT_GRID if world.cost_ref > 0.0 else WEIGHT_GRID[:1]


def play_strategies(
    strategies: Sequence[Strategy], data: OutcomeData, world: World, expected: Expectations, attempts: int
) -> dict[str, Played]:
    """Play strategies as the engine would ask them, each by itself.

    Where one abstains, the balanced utility by priors decides in its place.

    Args:
        strategies: Bound to the models of `data`.
        data: The held-out tasks, the same as those of `world`.
        world: The held-out tasks.
        expected: What attempts at them do.
        attempts: Most attempts.
    """
    weights = weights_of(world)
    rows, weight = grid(len(data), weights)
    per_usd = world.per_usd(weight)

    def follow(strategy: Strategy) -> NDArray[np.int64]:
        def decide(waiting: Waiting) -> tuple[FloatArray, FloatArray]:
            batch = as_batch(data, rows[waiting.places], per_usd[waiting.places], waiting.rejected, waiting.left)
            scores = strategy.score(batch)
            plain = objective_utility(batch, BALANCED)
            utility = np.where(scores.abstains[:, None], plain, scores.utility)
            return utility, np.zeros(len(utility), np.float32)

        return plans(len(rows), len(data.table), attempts, decide)

    return {
        strategy.name: Played.of(worth(follow(strategy), rows, expected), world, weights) for strategy in strategies
    }


def play_memory(
    memory: OutcomeMemory, data: OutcomeData, prior: FloatArray, world: World, expected: Expectations, attempts: int
) -> Played:
    """Play the memory by itself; where nothing is near, it says what was expected.

    Args:
        memory: Of other tasks.
        data: The held-out tasks, the same as those of `world`.
        prior: (n, M) what is expected of them without memory.
        world: The held-out tasks.
        expected: What attempts at them do.
        attempts: Most attempts.
    """
    weights = weights_of(world)
    rows, weight = grid(len(data), weights)
    price = world.per_usd(weight)[:, None] * world.expected_cost[rows]

    def decide(waiting: Waiting) -> tuple[FloatArray, FloatArray]:
        some = rows[waiting.places]
        recall = memory.recall(
            data.embedding[some], data.marks[some], data.table.refs, prior[some], waiting.rejected, world.noise
        )
        return recall.success - price[waiting.places], np.zeros(len(some), np.float32)

    tried = plans(len(rows), len(data.table), attempts, decide)
    return Played.of(worth(tried, rows, expected), world, weights)


def play_best_single(learning: OutcomeData, world: World, expected: Expectations, attempts: int) -> Played:
    """Play the best single model of the learning tasks, and after a rejection the next best.

    Args:
        learning: Tasks whose means rank the models.
        world: The held-out tasks.
        expected: What attempts at them do.
        attempts: Most attempts.
    """
    weights = weights_of(world)
    rows, weight = grid(len(world), weights)
    count = np.maximum(learning.observed.sum(axis=0), 1)
    mean = np.nansum(learning.scores, axis=0) / count
    utility = mean - world.per_usd(weight)[:, None] * learning.paid().mean(axis=0)
    tried = follow_order(utility.astype(np.float32), attempts)
    return Played.of(worth(tried, rows, expected), world, weights)


def as_batch(
    data: OutcomeData, rows: IntArray, cost_weight: FloatArray, rejected: BoolArray, attempts_left: int
) -> RouteBatch:
    """Requests for tasks `rows` (B,) at these prices of money, after these rejections (B, M)."""
    zeros = np.zeros(len(rows), np.float32)
    return RouteBatch(
        table=data.table,
        state=data.states[rows],
        embedding=data.embedding[rows],
        model_features=encode_models(data.table),
        task=data.task[rows],
        complexity=data.complexity[rows],
        candidates=~rejected,
        attempts=np.where(rejected, REJECTED, UNTRIED).astype(np.int8),
        attempts_left=np.full(len(rows), attempts_left, dtype=np.int64),
        success=data.table.success[data.task[rows]],
        evidence=data.table.evidence[data.task[rows]],
        cost_usd=data.expected_cost[rows],
        latency_s=np.broadcast_to(data.table.latency_s, rejected.shape),
        cost_weight=cost_weight,
        latency_weight=zeros,
        quality_floor=zeros,
    )


def strategy_trust(played: Sequence[Mapping[str, Played]]) -> dict[str, float]:
    """How far each strategy deserves trust, above 0 to 1: by the utility that following it loses against the best.

    ``exp(-loss / TOLERANCE)``, where the loss is the mean over tasks and cost weights less its standard error: what
    chance explains is not held against a strategy. Averaging over weights first matters: where money is everything all
    strategies agree, and that must not make up for bad choices elsewhere. A few tasks cannot tell the strategies
    apart, so the loss is shrunk towards `BELIEVED_LOSS`, with the weight of `BELIEF_TASKS` tasks.

    Args:
        played: The same strategies in one or more settings, such as numbers of attempts.
    """
    shares: dict[str, list[float]] = {}
    for setting in played:
        by_task = {name: one.utility.mean(axis=1) for name, one in setting.items()}
        best = max(by_task.values(), key=lambda utility: float(utility.mean()))
        for name, utility in by_task.items():
            lost, count = best - utility, len(utility)
            doubt = float(lost.std()) / float(np.sqrt(count))
            believed = BELIEVED_LOSS.get(name, BELIEVED_LOSS_OF_OTHERS)
            loss = (count * max(0.0, float(lost.mean()) - doubt) + BELIEF_TASKS * believed) / (count + BELIEF_TASKS)
            shares.setdefault(name, []).append(float(np.exp(-loss / TOLERANCE)))
    return {name: float(np.mean(each)) for name, each in shares.items()}


def frontier(played: Played, weights: tuple[float, ...], rng: np.random.Generator) -> list[dict[str, Any]]:
    """Mean success, cost, attempts and utility at each weight, with 95% intervals by resampling tasks."""
    count = len(played.utility)
    share = rng.multinomial(count, np.full(count, 1.0 / count), size=RESAMPLES) / count

    def figure(values: NDArray[np.float64]) -> dict[str, float]:
        low, high = np.quantile(share @ values, (0.025, 0.975))
        return {"mean": float(values.mean()), "low": float(low), "high": float(high)}

    return [
        {"weight": weight}
        | {name: figure(getattr(played, name)[:, i]) for name in ("success", "cost", "attempts", "utility")}
        for i, weight in enumerate(weights)
    ]


def paired_gain(ours: Played, theirs: Played) -> dict[str, float]:
    """Mean difference of utility over tasks and weights, with a normal 95% interval over tasks."""
    difference = (ours.utility - theirs.utility).mean(axis=1)
    mean = float(difference.mean())
    half = 1.96 * float(difference.std(ddof=1)) / float(np.sqrt(len(difference))) if len(difference) > 1 else 0.0
    return {"mean": mean, "low": mean - half, "high": mean + half}


def calibration(success: FloatArray, scores: NDArray[np.float64], prior: FloatArray) -> dict[str, Any]:
    """How well P(success) of held-out outcomes was foretold.

    Args:
        success: (N, M) P(success) by what had not seen the outcome.
        scores: (N, M) outcomes 0..1, NaN where there is none.
        prior: (N, M) what the families alone said.

    Returns:
        Outcomes in ten bins of equal size, mean distance between foretold and seen, Brier score and log loss in nats,
        and the log loss of the prior.
    """
    known = ~np.isnan(scores)
    told, seen, plain = success[known].astype(np.float64), scores[known], prior[known].astype(np.float64)
    order = np.argsort(told, kind="stable")
    bins = [part for part in np.array_split(order, BINS) if len(part)]
    table = [
        {"foretold": float(told[part].mean()), "seen": float(seen[part].mean()), "outcomes": len(part)} for part in bins
    ]
    distance = sum(abs(row["foretold"] - row["seen"]) * row["outcomes"] for row in table) / max(1, len(told))
    return {
        "bins": table,
        "outcomes": len(told),
        "calibration_error": float(distance),
        "brier": float(np.square(told - seen).mean()),
        "log_loss": _log_loss(told, seen),
        "prior_log_loss": _log_loss(plain, seen),
    }


def _log_loss(told: NDArray[np.float64], seen: NDArray[np.float64]) -> float:
    cut = np.clip(told, 1e-6, 1.0 - 1e-6)
    return float(-(seen * np.log(cut) + (1.0 - seen) * np.log(1.0 - cut)).mean())
