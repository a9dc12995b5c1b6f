"""Playing episodes, all tasks at once, and scoring what was tried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monkey_coder.evaluation.protocol import STOP, EpisodeState, Models, Router, Tasks


class RouterFaultError(RuntimeError):
    """A router broke the rules of an episode; a fault of the program, not of the data."""


@dataclass(frozen=True)
class Outcomes:
    """What came of the attempts on N tasks (any leading axes before N).

    Attributes:
        success: (..., N) true score of the answer kept at the end.
        cost: (..., N) USD of all attempts; 0 without costs.
        attempts: (..., N) how many were made.
    """

    success: NDArray[np.float64]
    cost: NDArray[np.float64]
    attempts: NDArray[np.int64]


def play(
    router: Router,
    tasks: Tasks,
    models: Models,
    accepted: NDArray[np.bool_],
    costs: NDArray[np.float64] | None,
    *,
    attempts: int,
    cost_weight: float,
    seed: int,
) -> NDArray[np.int16]:
    """Play one episode of every task.

    Args:
        router: A fitted router.
        tasks: The N tasks.
        models: The M models.
        accepted: (N, M) what the verifier would say to each answer.
        costs: (N, M) USD of each answer, or None.
        attempts: Most attempts, K; never more than there are models.
        cost_weight: The weight w asked for.
        seed: Which repetition this is.

    Returns:
        (N, K) the models tried, first to last, padded with -1.

    Raises:
        RouterFaultError: The router named no model, a tried one, or none for a first attempt.
    """
    tried = np.full((len(tasks), attempts), STOP, dtype=np.int16)
    waiting = np.arange(len(tasks))
    for step in range(min(attempts, len(models))):
        if waiting.size == 0:
            break
        before = tried[waiting, :step].astype(np.intp)
        spent = np.zeros(before.shape) if costs is None else costs[waiting[:, None], before]
        state = EpisodeState(tasks, models, waiting, before, spent, attempts, seed)
        choice = np.asarray(router.choose(state, cost_weight))
        _check(router.name, choice, before, len(models))
        tried[waiting, step] = choice
        going = choice != STOP
        going[going] = ~accepted[waiting[going], choice[going]]
        waiting = waiting[going]
    return tried


def score(tried: NDArray[np.int16], scores: NDArray[np.float64], costs: NDArray[np.float64] | None) -> Outcomes:
    """Score attempts: the last one made is the answer kept, for an episode ends with the first accepted answer.

    Args:
        tried: (..., N, K) models tried, padded with -1; at least one for each task.
        scores: (N, M) true scores.
        costs: (N, M) USD, or None.
    """
    made = tried != STOP
    count = made.sum(axis=-1)
    last = np.take_along_axis(tried, count[..., None] - 1, axis=-1)[..., 0]
    rows = np.arange(len(scores))
    cost = np.zeros(count.shape)
    if costs is not None:
        cost = np.where(made, costs[rows[:, None], tried], 0.0).sum(axis=-1)
    return Outcomes(scores[rows, last], cost, count)


def check_attempts(names: Sequence[str], accepted: NDArray[np.bool_], models: Sequence[int], attempts: int) -> None:
    """Check that a list of attempts at one task is an episode by the rules.

    Args:
        names: Model names, for the message.
        accepted: (M,) what the verifier says to each answer.
        models: The models tried, first to last.
        attempts: Most attempts, K.

    Raises:
        ValueError: Which rule it breaks.
    """
    if not models:
        raise ValueError("an episode has at least one attempt")
    if len(models) > attempts:
        raise ValueError(f"{len(models)} attempts, where {attempts} are allowed")
    if len(set(models)) < len(models):
        raise ValueError("a model was tried twice")
    early = next((model for model in models[:-1] if accepted[model]), None)
    if early is not None:
        raise ValueError(f"the episode went on after the accepted answer of {names[early]!r}")


def _check(name: str, choice: NDArray[np.intp], tried: NDArray[np.intp], models: int) -> None:
    if choice.shape != (len(tried),) or not np.issubdtype(choice.dtype, np.integer):
        raise RouterFaultError(f"{name} answered {choice.dtype} of shape {choice.shape} to {len(tried)} tasks")
    lowest = 0 if tried.shape[1] == 0 else STOP
    if choice.size and (choice.min() < lowest or choice.max() >= models):
        raise RouterFaultError(f"{name} named a model outside {lowest}..{models - 1}")
    if (choice[:, None] == tried)[choice != STOP].any():
        raise RouterFaultError(f"{name} named a model for the second time in one episode")
