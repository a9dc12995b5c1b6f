"""The composition: prepared tables are fitted, played and handed to the analysis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monkey_coder.errors import SettingsError
from monkey_coder.evaluation.episodes import play
from monkey_coder.evaluation.preparation import Part, Prepared, describe_tasks, view
from monkey_coder.evaluation.protocol import (
    ORACLE,
    STOP,
    OrdersPrompts,
    Router,
    RouterContext,
    Routers,
    Tasks,
    TrainingView,
)
from monkey_coder.evaluation.routers import Oracle
from monkey_coder.evaluation.verifier import verdicts

Progress = Callable[[str, int, int], None]
"""Called with what is being done, steps done, and steps in all."""


@dataclass(frozen=True)
class Played:
    """All attempts of one router, and how it orders prompts.

    Attributes:
        tried: (W, S, N, K) models tried for each cost weight, seed and test task, padded with -1.
        preference: (N,) how much a prompt needs the stronger of the two models; None for more models, or where the
            router has no such order.
    """

    tried: NDArray[np.int16]
    preference: NDArray[np.float64] | None = None


def check_names(names: Sequence[str], factories: Routers) -> None:
    """Refuse routers that do not exist.

    Raises:
        SettingsError: It names them, and those that exist.
    """
    known = (*factories, ORACLE)
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise SettingsError(f"--routers: no router named {', '.join(unknown) or '...'}; there are {', '.join(known)}")


def accepted_answers(prepared: Prepared) -> NDArray[np.bool_]:
    """(S, N, M) what the verifier says to each answer, for each seed."""
    test, plan = prepared.test, prepared.plan
    return np.stack([verdicts(test.scores, test.ids, test.models, seed, plan.noise) for seed in range(plan.seeds)])


def play_routers(
    prepared: Prepared, names: Sequence[str], factories: Routers, context: RouterContext, progress: Progress
) -> dict[str, Played]:
    """Fit every router on every part and play all its episodes.

    Args:
        prepared: Tables and settings.
        names: Which routers, each once.
        factories: How to make them; the oracle is made here, for it alone is handed scores.
        context: What they may need besides the tables.
        progress: Told of each step.

    Returns:
        The attempts of each router, in the order of `names`.

    Raises:
        SettingsError: A name is unknown.
    """
    names = tuple(dict.fromkeys(names))
    check_names(names, factories)
    accepted = accepted_answers(prepared)
    routers = {name: factories[name](context) for name in names if name != ORACLE}
    steps = len(prepared.parts) * len(names)
    played = {name: _empty(prepared) for name in names}
    preferences: dict[str, NDArray[np.float64]] = {}
    for number, part in enumerate(prepared.parts):
        train = view(part, prepared)
        rows = part.test_rows
        tasks = describe_tasks(prepared.test.rows(rows))
        for name in names:
            progress(name, number * len(names) + list(names).index(name), steps)
            router = _oracle(prepared, part) if name == ORACLE else routers[name]
            router.fit(train)
            played[name][:, :, rows] = _play_part(router, tasks, train, prepared, accepted[:, rows], rows)
            if len(train.models) == 2 and isinstance(router, OrdersPrompts):
                preferences.setdefault(name, np.zeros(len(prepared.test)))[rows] = router.preference(
                    tasks, *strong_and_weak(prepared)
                )
    progress("done", steps, steps)
    return {name: Played(tried, preferences.get(name)) for name, tried in played.items()}


def strong_and_weak(prepared: Prepared) -> tuple[int, int]:
    """Of two models, the index of the one with the higher mean score on the training rows, and of the other."""
    priors = mean_over_parts(prepared, lambda train: train.models.prior)
    strong = int(priors.argmax())
    return strong, 1 - strong


def mean_cost_ref(prepared: Prepared) -> float | None:
    """`Models.cost_ref`, averaged over the parts by their test rows; None without costs."""
    if not prepared.has_costs:
        return None
    return float(mean_over_parts(prepared, lambda train: np.array([train.models.cost_ref]))[0])


def mean_over_parts(prepared: Prepared, figure: Callable[[TrainingView], NDArray[np.float64]]) -> NDArray[np.float64]:
    """Average a figure of the training views over the parts, each with the weight of its test rows."""
    values = np.stack([figure(view(part, prepared)) for part in prepared.parts])
    return np.average(values, axis=0, weights=[len(part.test_rows) for part in prepared.parts])


def _empty(prepared: Prepared) -> NDArray[np.int16]:
    plan = prepared.plan
    return np.full((len(prepared.weights), plan.seeds, len(prepared.test), plan.attempts), STOP, dtype=np.int16)


def _oracle(prepared: Prepared, part: Part) -> Oracle:
    test, rows = prepared.test, part.test_rows
    return Oracle(test.scores[rows], test.costs[rows] if prepared.has_costs and test.costs is not None else None)


def _play_part(
    router: Router,
    tasks: Tasks,
    train: TrainingView,
    prepared: Prepared,
    accepted: NDArray[np.bool_],
    rows: NDArray[np.intp],
) -> NDArray[np.int16]:
    """(W, S, n, K) attempts on the test rows of one part."""
    plan, costs = prepared.plan, prepared.test.costs
    spent = costs[rows] if prepared.has_costs and costs is not None else None
    same_for_all = not router.seeded and plan.noise == 0.0
    seeds = range(1 if same_for_all else plan.seeds)
    runs = np.stack(
        [
            np.stack(
                [
                    play(
                        router,
                        tasks,
                        train.models,
                        accepted[seed],
                        spent,
                        attempts=plan.attempts,
                        cost_weight=weight,
                        seed=seed,
                    )
                    for weight in train.weights
                ]
            )
            for seed in seeds
        ],
        axis=1,
    )
    return np.repeat(runs, plan.seeds, axis=1) if same_for_all else runs
