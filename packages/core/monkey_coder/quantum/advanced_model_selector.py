"""Scoring models by an objective: the one formula that the objective strategies share (T2.3.1).

Each objective bends the request's own preferences a little and then maximises the utility of `reward.py`:

* BALANCED takes the request at its word.
* COST_EFFICIENT satisfices: quality beyond "good enough" earns nothing, and money weighs more.
* PERFORMANCE wants the answer right and soon: money weighs less, time more.
* TASK_OPTIMIZED matches models to the difficulty of the task: the harder it looks, the more a weak model's
  chances shrink. Difficulty shifts the log-odds of every model alike, as in the one-parameter item response
  model (Rasch, 1960).
A caller who verifies answers and comes back may spare a dear model until a cheaper one has failed. `planned_utility`
counts in what further attempts are worth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from monkey_coder.ports import REJECTED, UNTRIED, BoolArray, FloatArray, RouteBatch


@dataclass(frozen=True, slots=True)
class Objective:
    """How an objective bends a request's preferences.

    Attributes:
        cost_scale: Factor on lambda.
        cost_extra: Added to lambda, in success per price of the dearest candidate.
        latency_scale: Factor on mu.
        good_enough: Success above the best candidate's minus this margin earns nothing more; None: no cap.
        difficulty_logits: By how many logits the chances fall between complexity 0 and 1; neutral at 0.5.
    """

    cost_scale: float = 1.0
    cost_extra: float = 0.0
    latency_scale: float = 1.0
    good_enough: float | None = None
    difficulty_logits: float = 0.0


BALANCED: Final = Objective()
COST_EFFICIENT: Final = Objective(cost_scale=2.0, cost_extra=0.1, good_enough=0.1)
PERFORMANCE: Final = Objective(cost_scale=0.25, latency_scale=2.0)
TASK_OPTIMIZED: Final = Objective(difficulty_logits=2.0)

_NEXT_TO_NOTHING_USD: Final = 1e-30

# As arrays: a plain number takes twice to three times the time of one.
_ONE: Final = np.array(1.0, dtype=np.float32)
_LEAST: Final = np.array(1e-4, dtype=np.float32)
_MOST: Final = np.array(1.0 - 1e-4, dtype=np.float32)


def objective_utility(batch: RouteBatch, objective: Objective) -> FloatArray:
    """Score every model of a batch by an objective.

    Args:
        batch: Requests and models; entries of models that are no candidates are meaningless.
        objective: How to bend the preferences.

    Returns:
        (B, M) utility in successes.
    """
    return _one_attempt(batch, objective, batch.success)[0]


def planned_utility(batch: RouteBatch, objective: Objective) -> FloatArray:
    """Score every model by an objective, the attempts that may follow a failure included.

    An attempt is worth what it is worth alone and, with the probability that it fails, the best that can be tried then,
    if that is worth trying. Each failure lowers the chances of all models (`RouteBatch.setback_logits`). How much a
    planned failure says is told from the open model of highest utility, whichever is tried: so all orders need no more
    than one look at every model for each attempt.

    Args:
        batch: Requests and models; `success` as for a task that nobody has tried yet.
        objective: How to bend the preferences.

    Returns:
        (B, M) utility in successes, at most 1.
    """
    success = batch.success
    if not batch.untried:
        rejected = batch.attempts == REJECTED
        success = harder(success, batch.setback_logits * success.sum(axis=1, where=rejected))
    value, chances = _one_attempt(batch, objective, success)
    most = batch.most_attempts
    if most <= 1:
        return value
    open_models = batch.candidates & (batch.attempts == UNTRIED)
    steps = [(value, chances)]
    for _ in range(1, most):
        best = np.where(open_models, value, -np.inf).argmax(axis=1)
        success = harder(success, batch.setback_logits * success[np.arange(len(best)), best])
        value, chances = _one_attempt(batch, objective, success)
        steps.append((value, chances))
    for place in range(most - 2, -1, -1):
        alone, chances = steps[place]
        further = np.where((batch.attempts_left > place + 1)[:, None], _best_other(value, open_models), 0.0)
        value = np.asarray(alone + (1.0 - chances) * np.maximum(further, 0.0), dtype=np.float32)
    return value


def _one_attempt(batch: RouteBatch, objective: Objective, success: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(B, M) utility of one attempt alone, and (B, M) the chances as the objective sees them; from P(success)."""
    if objective.difficulty_logits:
        success = harder(success, objective.difficulty_logits * (batch.complexity - 0.5))
    chances = success
    if objective.good_enough is not None:
        best = np.maximum.reduce(success, axis=1, where=batch.candidates, initial=0.0)
        success = np.minimum(success, np.maximum(best - objective.good_enough, batch.quality_floor)[:, None])
    price = batch.price if objective.cost_scale == 1.0 else objective.cost_scale * batch.price
    if objective.cost_extra:
        usd, candidates = batch.cost_usd, batch.candidates
        dearest = np.maximum.reduce(usd, axis=1, where=candidates, initial=_NEXT_TO_NOTHING_USD)
        price = price + (objective.cost_extra / dearest)[:, None] * usd
    delay = batch.delay if objective.latency_scale == 1.0 else objective.latency_scale * batch.delay
    return np.asarray(success - price - delay, dtype=np.float32), chances


def _best_other(value: FloatArray, open_models: BoolArray) -> FloatArray:
    """(B, M) the highest value among the open models other than each; minus infinity where there is none."""
    held = np.where(open_models, value, -np.inf)
    rows, first = np.arange(len(held)), held.argmax(axis=1)
    best = np.repeat(held[rows, first][:, None], held.shape[1], axis=1)
    held[rows, first] = -np.inf
    best[rows, first] = held.max(axis=1)
    return best


def harder(success: FloatArray, logits: FloatArray) -> FloatArray:
    """Lower chances by `logits` (B,) on the log-odds scale; negative logits raise them."""
    chances = np.minimum(np.maximum(success, _LEAST), _MOST)
    lowered = chances * np.exp(-logits)[:, None]
    return np.asarray(lowered / (lowered + (_ONE - chances)), dtype=np.float32)
