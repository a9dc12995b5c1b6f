"""Training the value network: simulated episodes fill the replay buffer, and held-out tasks choose the weights.

The fresh network, which adds nothing to the lookahead, is the first candidate: training can only replace it by what
was better on held-out tasks.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from monkey_coder.errors import TrainingDivergedError
from monkey_coder.ports import FloatArray
from monkey_coder.quantum.dqn_agent import DQNAgent, LearnReport, replay
from monkey_coder.quantum.dqn_config import DQNConfig
from monkey_coder.quantum.episode_simulation import World, schema, transitions, visit
from monkey_coder.quantum.experience_buffer import ExperienceBuffer, Prioritisation, Transitions
from monkey_coder.quantum.neural_networks import TwoTower, standardise_inputs
from monkey_coder.quantum.particles import STATE_FEATURES
from monkey_coder.quantum.policy import Policy
from monkey_coder.quantum.policy_file import NetworkShape, PolicyHeader
from monkey_coder.quantum.routing_value import EXACT_UP_TO, PAIRS, feature_range
from monkey_coder.quantum.state_encoder import ENCODING_VERSION
from monkey_coder.quantum.training_monitor import (
    Overrides,
    TrainingPoint,
    Verdict,
    action_entropy,
    judge,
)
from monkey_coder.quantum.training_options import WEIGHT_GRID, TrainOptions
from monkey_coder.quantum.training_validation import Expectations, Observed, follow_network, grid, worth

Progress = Callable[[str, int, int, str], None]
"""Told what is being done, how many steps of how many are done, and how it looks; may raise to stop."""

SURE: Final = 2.0
"""Standard errors by which learned weights must beat the lookahead on held-out tasks to be served."""

LEAST_HELD_OUT: Final = 100
"""With fewer held-out tasks the lookahead is served: among a few dozen, a dozen looks find a lucky network."""

LARGEST_ADDITION: Final = 1.0
"""Successes that any policy can be worth more or less than the lookahead: a network that adds more has diverged."""


class Control(Protocol):
    """A person's hand on the run; `TrainingControl` is one."""

    def wait(self) -> Overrides:
        """Return the wishes of this moment, after waiting while the run is paused."""
        ...


@dataclass(frozen=True, eq=False)
class ValueTraining:
    """What a run gives.

    Attributes:
        agent: As it was at its last step: training can go on from it.
        network: The weights that were best on held-out tasks, for serving.
        points: What was measured, step by step; `max_abs_q` is the most that the network added to a lookahead.
        verdict: Why the run ended.
        chosen_step: Gradient steps of the weights that were chosen; 0: the lookahead was not beaten.
        lookahead: Utility of the lookahead alone on the held-out tasks, to which `points` compare.
    """

    agent: DQNAgent
    network: Policy
    points: tuple[TrainingPoint, ...]
    verdict: Verdict
    chosen_step: int
    lookahead: float


def train_value(
    learning: World,
    held_out: World,
    expected: Expectations,
    refs: Sequence[str],
    features: FloatArray,
    options: TrainOptions,
    rng: np.random.Generator,
    progress: Progress,
    control: Control | None = None,
    start: DQNAgent | None = None,
) -> ValueTraining:
    """Train until the steps are used up, validation no longer improves, or somebody stops the run.

    Args:
        learning: Tasks of the simulated episodes.
        held_out: Tasks that choose the weights.
        expected: What attempts at the held-out tasks do.
        refs: M model refs.
        features: (M, F) encoded models.
        options: Knobs.
        rng: Of episodes and samples; weights and dropout have their own, from the seed of `options.dqn`.
        progress: Told after each validation.
        control: Asked before each gradient step.
        start: An agent to go on from, made for these models; None: a fresh one.

    Raises:
        TrainingDivergedError: The run diverges; nothing it made should be used.
    """
    shape = NetworkShape(STATE_FEATURES, features.shape[1], PAIRS, len(refs))
    agent = DQNAgent(options.dqn, shape, features) if start is None else start
    run = _Run(agent, held_out, expected, refs, features, options, progress)
    run.measure([])
    if not _can_learn(learning, options):
        return run.result(Verdict("converged", "the lookahead is exact for so few attempts: there is nothing to learn"))
    buffer = _buffer(options.dqn, len(refs))
    reports: list[LearnReport] = []
    first = agent.steps
    for step in range(options.steps):
        wishes = Overrides() if control is None else control.wait()
        if wishes.stopped:
            return run.result(Verdict("converged", f"step {agent.steps}: stopped by hand"))
        if step % options.round_steps == 0:
            epsilon = agent.epsilon if wishes.epsilon is None else wishes.epsilon
            visits = visit(learning, agent, options.round_states, options.outcome_share, rng, epsilon)
            fresh = transitions(learning, visits, options.actions, rng)
            if step == 0 and start is None:
                _see_inputs(agent, fresh, features)
            buffer.add(fresh)
        reports.append(replay(agent, buffer, rng, wishes.learning_rate))
        if (agent.steps - first) % options.check_steps == 0 or step + 1 == options.steps:
            verdict = run.measure(reports)
            reports = []
            if verdict.status == "diverged":
                raise TrainingDivergedError(
                    f"what the value network adds to the lookahead: {verdict.reason}; nothing was published: "
                    "try another seed, or a lower learning rate (`monkey-coder policy tune --learning-rate 0.0001`)"
                )
            if verdict.status == "converged":
                return run.result(verdict)
    return run.result(Verdict("converged", f"step {agent.steps}: all {options.steps} steps are made"))


class _Run:
    """Keeps what was measured, and the best weights so far.

    Weights must beat the lookahead by more than chance explains: the best of a dozen looks at a few held-out tasks is
    better there by luck alone, and worse elsewhere.
    """

    def __init__(
        self,
        agent: DQNAgent,
        held_out: World,
        expected: Expectations,
        refs: Sequence[str],
        features: FloatArray,
        options: TrainOptions,
        progress: Progress,
    ) -> None:
        self._agent, self._world, self._expected = agent, held_out, expected
        self._refs, self._features, self._options, self._progress = refs, features, options, progress
        self._rows, self._weight = grid(len(held_out), WEIGHT_GRID if held_out.cost_ref > 0.0 else WEIGHT_GRID[:1])
        self._first = agent.steps
        self._points: list[TrainingPoint] = []
        self._lookahead = self._utility(follow_network(held_out, self._rows, self._weight, None))
        self._best_gain, self._best, self._best_step = 0.0, _network(_silenced(agent), refs, features), 0

    def measure(self, reports: Sequence[LearnReport]) -> Verdict:
        """Validate the network as it is, keep it if it is the best so far, and judge the run."""
        agent = self._agent
        added = [0.0]

        def valued(seen: Observed) -> FloatArray:
            q = agent.q_values(seen)
            added.append(float(np.abs(q - seen["base"])[seen["candidates"]].max()))
            return q

        tried = follow_network(self._world, self._rows, self._weight, valued)
        utility = self._utility(tried)
        gain, doubt = self._gain(utility)
        if len(self._world) >= LEAST_HELD_OUT and gain - SURE * doubt > self._best_gain:
            self._best_gain, self._best_step = gain - SURE * doubt, agent.steps
            self._best = _network(agent.online, self._refs, self._features)
        point = TrainingPoint(
            step=agent.steps,
            loss=float(np.mean([report.loss for report in reports])) if reports else 0.0,
            max_abs_q=float(np.max(added)),
            validation_reward=float(utility.mean()),
            action_entropy=action_entropy(tried[:, 0], self._world.scores.shape[1]),
        )
        if reports:
            self._points.append(point)
        self._progress("value network", agent.steps - self._first, self._options.steps, f"gain {gain:+.4f}")
        return judge(self._points, LARGEST_ADDITION, self._options.monitor)

    def result(self, verdict: Verdict) -> ValueTraining:
        """Give the best weights."""
        return ValueTraining(
            self._agent, self._best, tuple(self._points), verdict, self._best_step, float(self._lookahead.mean())
        )

    def _gain(self, utility: NDArray[np.float64]) -> tuple[float, float]:
        """Mean utility over the lookahead's, and its standard error over tasks."""
        count = np.bincount(self._rows)
        by_task = np.bincount(self._rows, utility - self._lookahead) / np.maximum(count, 1)
        by_task = by_task[count > 0]
        doubt = float(by_task.std(ddof=1)) / float(np.sqrt(len(by_task))) if len(by_task) > 1 else np.inf
        return float(by_task.mean()), doubt

    def _utility(self, tried: NDArray[np.int64]) -> NDArray[np.float64]:
        value = worth(tried, self._rows, self._expected)
        return value.success - self._world.per_usd(self._weight) * value.cost


def _can_learn(world: World, options: TrainOptions) -> bool:
    return options.steps > 0 and len(world) > 0 and min(world.attempts, world.scores.shape[1]) > EXACT_UP_TO


def _buffer(config: DQNConfig, models: int) -> ExperienceBuffer:
    priority = None if config.priority_alpha is None else Prioritisation(config.priority_alpha)
    return ExperienceBuffer(schema(models), config.replay_capacity, priority)


def _see_inputs(agent: DQNAgent, rows: Transitions, features: FloatArray) -> None:
    """Standardise what the networks read by the first states that were visited."""
    candidates = rows.observation["candidates"]
    for network in (agent.online, agent.target):
        standardise_inputs(
            network, state=rows.observation["state"], model=features, pair=rows.observation["pairs"][candidates]
        )


def _silenced(agent: DQNAgent) -> TwoTower:
    """The network without any learned part: the lookahead alone."""
    network = copy.deepcopy(agent.online)
    network.state_tower.silence()
    if agent.online.shape.pair:
        network.pair_tower.silence()
    return network


def _network(network: TwoTower, refs: Sequence[str], features: FloatArray) -> Policy:
    header = PolicyHeader(network.config, network.shape, ENCODING_VERSION, tuple(refs), feature_range(features))
    return Policy(header, {name: array.numpy(force=True).copy() for name, array in network.state_dict().items()})
