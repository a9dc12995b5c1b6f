"""Training a policy from outcomes, end to end: success model, belief, value network, memory, and their model card.

Everything that is trained on top of the success model sees only what that model says of tasks it was not fitted on.
A share of the prompts is held out from belief and value network; it chooses the weights of the network, and gives the
figures of the card and the trust in each strategy. In the end belief and memory are fitted once more on all tasks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from monkey_coder import __version__
from monkey_coder.errors import OutcomeTableError, TrainingDivergedError
from monkey_coder.ports import BoolArray, FloatArray, IntArray
from monkey_coder.quantum.belief_training import train_belief
from monkey_coder.quantum.cost_model import fit_cost_model
from monkey_coder.quantum.dqn_agent import DQNAgent
from monkey_coder.quantum.episode_simulation import World
from monkey_coder.quantum.model_card import CARD_FORMAT, data_facts
from monkey_coder.quantum.outcome_memory import OutcomeMemory
from monkey_coder.quantum.particles import Particles
from monkey_coder.quantum.routing_strategies import objective_strategies
from monkey_coder.quantum.routing_value import encode_models as encode_for_network
from monkey_coder.quantum.served_policy import TrainedParts
from monkey_coder.quantum.state_encoder import ENCODING_VERSION, encode_models
from monkey_coder.quantum.success_model import SuccessEstimate
from monkey_coder.quantum.success_training import SuccessData, SuccessTraining, train_success
from monkey_coder.quantum.training_data import OutcomeData, held_out
from monkey_coder.quantum.training_figures import (
    Played,
    calibration,
    frontier,
    paired_gain,
    play_best_single,
    play_memory,
    play_strategies,
    strategy_trust,
    weights_of,
)
from monkey_coder.quantum.training_monitor import TrainingPoint
from monkey_coder.quantum.training_options import LEAST_OUTCOMES, LEAST_TASKS, TrainOptions, preset
from monkey_coder.quantum.training_validation import Expectations, Network, Observed, follow_network, grid, worth
from monkey_coder.quantum.value_training import Control, Progress, ValueTraining, train_value

STRATEGIES: Final = ("dqn", "memory", "task_optimized", "cost_efficient", "performance", "balanced")
"""Those whose trust is measured."""

__all__ = ["OutcomeData", "Start", "TrainOptions", "TrainedPolicy", "preset", "train"]


@dataclass(frozen=True, eq=False)
class Start:
    """An agent that training goes on from.

    Attributes:
        agent: As an earlier run left it.
        models: Refs of the models it knows, in the order of its columns.
    """

    agent: DQNAgent
    models: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class TrainedPolicy:
    """What training gives.

    Attributes:
        parts: What serving needs; `version` is 0 until it is published.
        memory: Outcomes by nearest neighbours; what it expects without them is `SuccessEstimate.prior`.
        reliability: How far each strategy deserves trust, by its name, 0..1.
        agent: Goes on from here with the next outcomes.
        card: Figures, options and counts for the model card, as JSON values.
        points: What was measured while the value network was trained.
    """

    parts: TrainedParts
    memory: OutcomeMemory
    reliability: Mapping[str, float]
    agent: DQNAgent
    card: Mapping[str, Any]
    points: tuple[TrainingPoint, ...]

    @property
    def start(self) -> Start:
        """What the next run may go on from."""
        assert self.parts.network is not None
        return Start(self.agent, self.parts.network.header.models)


@dataclass(frozen=True, eq=False)
class _Side:
    """Tasks on one side of the validation split."""

    data: OutcomeData
    estimate: SuccessEstimate
    world: World

    @property
    def expected(self) -> Expectations:
        return Expectations.of(self.world, self.estimate.success)


def silent(what: str, done: int, steps: int, note: str) -> None:
    """Tell nobody."""


def train(
    data: OutcomeData,
    options: TrainOptions,
    progress: Progress = silent,
    control: Control | None = None,
    start: Start | None = None,
) -> TrainedPolicy:
    """Train a policy.

    Args:
        data: Outcomes. Models with fewer than 5 count as unknown: serving judges them as new ones.
        options: How; see `preset` for good ones.
        progress: Told what is being done.
        control: Pauses, stops or overrides the training of the value network.
        start: Goes on from an earlier run's agent; the rest is fitted afresh, in seconds.

    Raises:
        OutcomeTableError: Too few tasks or models.
        TrainingDivergedError: Training diverged; nothing should be published.
    """
    with _one_thread():
        return _train(_known_models(data), options, progress, control, start)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch compute on one core, and put back what was set.

    On several, networks this small take many times as long as soon as other programs compute as well, and sums come
    out a little different on every machine.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _train(
    data: OutcomeData, options: TrainOptions, progress: Progress, control: Control | None, start: Start | None
) -> TrainedPolicy:
    refs = data.table.refs
    generators = np.random.default_rng(options.seed).spawn(7)
    validation = _split(data, options, generators[0])
    success = train_success(
        SuccessData(data.embedding, data.marks, data.scores, data.families, refs, data.weight),
        options.success,
        generators[1],
        lambda epoch, epochs, loss: progress("success model", epoch, epochs, f"held-out loss {loss:.4f}"),
    )
    estimate = success.held_out
    progress("belief", 0, 2, "")
    learning, held = (np.flatnonzero(side) for side in (~validation, validation))
    part = data.rows(learning)
    whole = _completed(data, estimate, generators[6])
    first = train_belief(refs, whole[learning], estimate.take(learning), options.belief, generators[2])
    ours = _side(part, estimate.take(learning), first.held_out, data.cost_ref, options)
    theirs = _side(
        data.rows(held),
        estimate.take(held),
        first.belief.bind(refs).particles(estimate.take(held)),
        data.cost_ref,
        options,
    )
    progress("belief", 1, 2, "")
    final = train_belief(refs, whole, estimate, options.belief, generators[3])
    progress("belief", 2, 2, "")
    features = encode_models(data.table)
    shown = _some(len(held), options.most_validation, generators[4])
    value = train_value(
        ours.world.take(_some(len(learning), options.most_tasks, generators[4])),
        theirs.world.take(shown),
        Expectations.of(theirs.world.take(shown), theirs.estimate.success[shown]),
        refs,
        features,
        options,
        generators[4],
        progress,
        control,
        None if start is None else _resumed(start, refs, features),
    )
    progress("model card", 0, 1, "")
    memory = _memory(part, ours.estimate, generators[5])
    played = {attempts: _play(ours, theirs, value, memory, attempts) for attempts in sorted({1, options.attempts})}
    trust = strategy_trust([{name: one[name] for name in one if name in STRATEGIES} for one in played.values()])
    card = _card(data, options, theirs, played, trust, value, success, generators[5])
    progress("model card", 1, 1, "")
    cost = None
    if data.costs is not None:
        model = success.model
        cost = fit_cost_model(refs, data.embedding, data.marks, data.costs, model.mark_mean, model.mark_scale)
    parts = TrainedParts(success.model, final.belief, value.network, options.noise, options.attempts, 0, cost)
    _require_finite(parts)
    return TrainedPolicy(parts, _memory(data, estimate, generators[5]), trust, value.agent, card, value.points)


def _require_finite(parts: TrainedParts) -> None:
    """Let nothing out that would spoil every decision it takes part in.

    Raises:
        TrainingDivergedError: A number of a part is none.
    """
    for name, part in (("success", parts.success), ("belief", parts.belief), ("cost", parts.cost)):
        arrays = {} if part is None else part.to_arrays()[0]
        for key, array in arrays.items():
            if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
                raise TrainingDivergedError(
                    f"the {name} model has values in {key!r} that are not finite; nothing was published: try another "
                    "seed, or add outcomes of other tasks"
                )


def _known_models(data: OutcomeData) -> OutcomeData:
    """The models with enough outcomes, in the same order."""
    outcomes = data.observed.sum(axis=0)
    enough = np.flatnonzero(outcomes >= LEAST_OUTCOMES)
    taught: BoolArray = np.asarray(data.observed[:, enough].any(axis=1))
    tasks = int(taught.sum())
    if tasks < LEAST_TASKS or len(enough) < 2:
        raise OutcomeTableError(
            f"{tasks} tasks and {len(enough)} models with at least {LEAST_OUTCOMES} outcomes; training needs "
            f"{LEAST_TASKS} tasks and 2 models: add outcomes"
        )
    return data.rows(taught).models(enough)


def _split(data: OutcomeData, options: TrainOptions, rng: np.random.Generator) -> BoolArray:
    """(N,) which tasks are held out, at least one; a model whose outcomes all fell there gets them back.

    Raises:
        OutcomeTableError: None can be.
    """
    validation = held_out(data.groups, options.validation_share, rng)
    observed = data.observed
    without = ~observed[~validation].any(axis=0)
    if without.any():
        validation &= ~np.isin(data.groups, data.groups[observed[:, without].any(axis=1)])
    if not validation.any():
        raise OutcomeTableError(
            f"{len(data)} tasks with {len(np.unique(data.groups))} different prompts; training holds some out to "
            "choose weights by, and none can be spared: add outcomes of other tasks"
        )
    return validation


def _completed(data: OutcomeData, estimate: SuccessEstimate, rng: np.random.Generator) -> NDArray[np.float64]:
    """(N, P) scores to learn from how failures go together; of a log, what was not tried is drawn as it is foretold.

    One outcome a row says nothing of any two models. What is foretold of a prompt does (imputation: Rubin 1987), and
    what later attempts saw counts in full: which models were tried next depended on nothing but what was seen.
    """
    if data.weight is None:
        return data.scores
    drawn = rng.random(data.scores.shape) < estimate.success
    return np.where(data.observed, data.scores, drawn.astype(np.float64))


def _some(count: int, most: int, rng: np.random.Generator) -> IntArray:
    """All of so many tasks, or a random part of them, in their order."""
    return np.sort(rng.permutation(count)[:most])


def _side(
    data: OutcomeData, estimate: SuccessEstimate, particles: Particles, cost_ref: float, options: TrainOptions
) -> _Side:
    world = World(particles, data.scores, data.paid(), data.expected_cost, cost_ref, options.attempts, options.noise)
    return _Side(data, estimate, world)


def _resumed(start: Start, refs: tuple[str, ...], features: FloatArray) -> DQNAgent:
    """The earlier agent with a column for each of these models."""
    column = {ref: place for place, ref in enumerate(start.models)}
    return start.agent.with_models([column.get(ref, -1) for ref in refs], features)


def _memory(data: OutcomeData, estimate: SuccessEstimate, rng: np.random.Generator) -> OutcomeMemory:
    return OutcomeMemory.of_table(data.table.refs, data.embedding, data.marks, data.scores, estimate.prior, rng)


def _play(ours: _Side, theirs: _Side, value: ValueTraining, memory: OutcomeMemory, attempts: int) -> dict[str, Played]:
    """Play every strategy on the held-out tasks, each fitted on the others."""
    world = replace(theirs.world, attempts=attempts)
    expected = theirs.expected
    weights = weights_of(world)
    rows, weight = grid(len(world), weights)
    encoded = encode_for_network(value.network, ours.data.table.refs, encode_models(ours.data.table))

    def learned(observed: Observed) -> FloatArray:
        return value.network.q_values(observed, encoded)

    networks: Mapping[str, Network | None] = {"dqn": learned, "lookahead": None}
    played = {
        name: Played.of(worth(follow_network(world, rows, weight, network, attempts), rows, expected), world, weights)
        for name, network in networks.items()
    }
    played["memory"] = play_memory(memory, theirs.data, theirs.estimate.prior, world, expected, attempts)
    played |= play_strategies(objective_strategies(), theirs.data, world, expected, attempts)
    played["best_single"] = play_best_single(ours.data, world, expected, attempts)
    return played


def _card(
    data: OutcomeData,
    options: TrainOptions,
    held: _Side,
    played: Mapping[int, Mapping[str, Played]],
    trust: Mapping[str, float],
    value: ValueTraining,
    success: SuccessTraining,
    rng: np.random.Generator,
) -> dict[str, Any]:
    weights = weights_of(held.world)
    longest = played[max(played)]
    estimate = success.held_out
    return {
        "format": CARD_FORMAT,
        "data": data_facts(data.table.refs, data.families, int(data.observed.sum()), data.cost_ref, data.about),
        "options": asdict(options),
        "validation": {
            "tasks": len(held.data),
            "attempts": {
                str(attempts): {name: frontier(one, weights, rng) for name, one in every.items()}
                for attempts, every in played.items()
            },
            "gain_over_lookahead": paired_gain(longest["dqn"], longest["lookahead"]),
            "gain_over_best_single": paired_gain(longest["dqn"], longest["best_single"]),
        },
        "calibration": calibration(estimate.success, data.scores, estimate.prior),
        "trust": dict(trust),
        "training": {
            "success_losses": list(success.losses),
            "points": [asdict(point) for point in value.points],
            "verdict": value.verdict.reason,
            "chosen_step": value.chosen_step,
            "lookahead": value.lookahead,
        },
        "versions": {
            "monkey_coder": __version__,
            "state_encoding": ENCODING_VERSION,
            "numpy": np.__version__,
            "torch": str(torch.__version__),
        },
    }
