"""Learning from the log: joined outcomes become training data, a run becomes a challenger, and a judge compares it.

Bandit feedback: of each decision only the outcome of the model that was served is known. First attempts speak for
P(success) by one over their propensities; later ones, fallbacks and cached decisions tell how failures go together and
what the memory holds, and count nothing for P(success). A fixed share of the prompts trains nothing, ever, and is what
policies are judged by.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

import numpy as np

from monkey_coder.catalog.table import ModelTable
from monkey_coder.errors import OutcomeTableError, TrainingDivergedError
from monkey_coder.models import TASK_TYPES
from monkey_coder.quantum.logged_episodes import Attempt
from monkey_coder.quantum.policy_bundle import PolicyBundle
from monkey_coder.quantum.policy_choices import in_columns
from monkey_coder.quantum.policy_judge import JudgeOptions, Verdict, held_out_decisions, is_held_out, judge
from monkey_coder.quantum.served_policy import TrainedParts
from monkey_coder.quantum.state_encoder import StateLayout
from monkey_coder.quantum.training_data import LoggedDecisions, OutcomeData, outcomes_of_log
from monkey_coder.quantum.training_options import LEAST_OUTCOMES, LEAST_TASKS, TrainOptions, preset
from monkey_coder.quantum.training_pipeline import Start, TrainedPolicy, silent, train
from monkey_coder.quantum.transition_log import CountedOutcome, Lookup, TransitionLog, TransitionOptions
from monkey_coder.quantum.value_training import Control, Progress
from monkey_coder.storage.port import START, StreamedOutcome

MORE_EVIDENCE: Final = 1.1
"""Factor by which the outcomes must have grown before the same two policies are compared anew."""


@dataclass(frozen=True, slots=True)
class LogOptions:
    """How to learn from the log.

    Attributes:
        training: One run.
        judging: When a policy may serve.
        log: What is kept.
        held_out: Share of the prompts that trains nothing and judges all.
        least_new: Outcomes since the last run that make another one worthwhile.
        growth: The same as a share of the outcomes that the log holds, so that runs do not follow each other ever
            faster than they teach anything.
    """

    training: TrainOptions = field(default_factory=lambda: preset("fast_online"))
    judging: JudgeOptions = field(default_factory=JudgeOptions)
    log: TransitionOptions = field(default_factory=TransitionOptions)
    held_out: float = 0.3
    least_new: int = 200
    growth: float = 0.1

    def __post_init__(self) -> None:
        if not 0.0 < self.held_out < 1.0:
            raise ValueError(f"held_out is {self.held_out}; it must lie between 0 and 1")
        if self.least_new < 1 or self.growth < 0.0:
            raise ValueError("least_new must be at least 1, and growth at least 0")


@dataclass(frozen=True, eq=False)
class Challenger:
    """A policy that was trained on the log, and does not serve yet.

    Attributes:
        trained: What training gave, with a card that tells of the log.
    """

    trained: TrainedPolicy

    @property
    def card(self) -> Mapping[str, Any]:
        """The model card."""
        return self.trained.card

    @property
    def bundle(self) -> PolicyBundle:
        """What would serve."""
        trained = self.trained
        return PolicyBundle(trained.parts, trained.memory, trained.reliability, trained.card)


@dataclass(frozen=True, eq=False)
class Gathered:
    """What one run trains on: all that the log held at one moment, but for the held-out prompts.

    Attributes:
        data: The outcomes.
        at: That moment, seconds since 1970.
        about: Counts of the log, for the card.
    """

    data: OutcomeData
    at: float
    about: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class _Look:
    """The last comparison: of what, with what, at how many outcomes in the log, and what came of it."""

    challenger: TrainedParts
    current: int | None
    outcomes: int
    verdict: Verdict

    def holds(self, challenger: TrainedParts, current: int | None, outcomes: int) -> bool:
        """Whether the same would be compared with hardly more evidence."""
        same = self.challenger is challenger and self.current == current
        return same and outcomes < MORE_EVIDENCE * self.outcomes


class LogTrainer:
    """Takes outcomes in, trains challengers, and judges them. For one thread at a time, but for `train` on `Gathered`.

    All that it knows is a function of the set of outcomes it was given; `state` only says from where they must be read
    again, and when it last trained.

    Args:
        table: The models; may be replaced as the catalog changes.
        options: How to learn.
        seed: Of all randomness.
        wall_clock: Seconds since 1970.

    Attributes:
        table: The models that policies are trained for and judged on.
        options: How to learn.
    """

    def __init__(
        self, table: ModelTable, options: LogOptions | None, seed: int, wall_clock: Callable[[], float]
    ) -> None:
        self.table = table
        self.options = options or LogOptions()
        self._seed, self._now = seed, wall_clock
        self._log = TransitionLog(self.options.log)
        self._trained_at = 0.0
        self._runs = 0
        self._last_look: _Look | None = None

    def take(self, rows: Sequence[StreamedOutcome], decision: Lookup) -> list[CountedOutcome]:
        """Take outcomes in; see `TransitionLog.take`."""
        return self._log.take(rows, decision, self._now())

    def ready(self) -> bool:
        """Whether enough new outcomes have come for another run."""
        return self._log.outcomes_after(self._trained_at) >= self._needed()

    def status(self) -> dict[str, Any]:
        """How it stands, as JSON values: counts of the log, new outcomes, and how many the next run needs."""
        return asdict(self._log.counts) | {
            "fresh": self._log.outcomes_after(self._trained_at),
            "needed": self._needed(),
            "trained_at": self._trained_at,
            "runs": self._runs,
        }

    def gather(self) -> Gathered:
        """All that the log holds for training by now.

        Raises:
            OutcomeTableError: Too few tasks or models so far.
        """
        now = self._now()
        data = data_of(self._log.attempts(now), self.table, self.options.held_out)
        about = {**asdict(self._log.counts), "held_out": self.options.held_out, "trained_at": now}
        return Gathered(data, now, about)

    def train(
        self,
        progress: Progress = silent,
        control: Control | None = None,
        start: Start | None = None,
        gathered: Gathered | None = None,
    ) -> Challenger:
        """Train a challenger on all that the log holds, but for the held-out prompts.

        Args:
            progress: Told what is being done.
            control: A person's hand on the run.
            start: An earlier run's agent to go on from.
            gathered: What to train on, while another thread takes further outcomes in; None: what there is now.

        Raises:
            OutcomeTableError: Too few tasks or models so far.
            TrainingDivergedError: Training diverged, also without a value network; nothing should be published.
        """
        gathered = gathered or self.gather()
        data, told = gathered.data, dict(gathered.about)
        options = self.options.training
        seed = int(np.random.default_rng([self._seed, self._runs]).integers(2**31))
        options = replace(options, seed=seed, dqn=replace(options.dqn, seed=seed))
        self._runs += 1
        try:
            trained = train(data, options, progress, control, start)
        except TrainingDivergedError as error:
            if options.steps == 0:
                raise
            # What a value network adds to the lookahead is little; to do without costs less than to wait for more data.
            progress("policy", 0, 1, "the value network diverged; the lookahead serves without one")
            trained = train(data, replace(options, steps=0), progress, control, start)
            told["value_network"] = str(error)
        self._trained_at = gathered.at
        return Challenger(replace(trained, card={**trained.card, "log": told}))

    def judge(self, challenger: PolicyBundle, current: PolicyBundle | None) -> Verdict:
        """Compare a policy with the one that serves, by the held-out decisions of now.

        The same two are compared anew only once the log holds a tenth more outcomes: looking again and again at nearly
        the same evidence would let one pass by luck. Until then the verdict is that of the last look.

        Args:
            challenger: The new one.
            current: The one that serves; None: the engine without a policy.
        """
        options, outcomes = self.options, self._log.counts.outcomes
        version = None if current is None else current.parts.version
        last = self._last_look
        if last is not None and last.holds(challenger.parts, version, outcomes):
            return last.verdict
        held_out = held_out_decisions(
            self._log.attempts(self._now()), self.table, options.held_out, options.judging.most_decisions
        )
        verdict = judge(held_out, self.table, challenger, current, options.judging, np.random.default_rng(self._seed))
        self._last_look = _Look(challenger.parts, version, outcomes, verdict)
        return verdict

    def state(self) -> dict[str, Any]:
        """What `restore` needs, as JSON values."""
        return {"since": self._log.since, "trained_at": self._trained_at, "runs": self._runs}

    def restore(self, state: Mapping[str, Any]) -> str:
        """Forget all, and become the trainer whose state this is once the stream was read again.

        Args:
            state: From `state`; an empty or damaged one means: from the beginning.

        Returns:
            The position after which to read.
        """
        since = state.get("since", START)
        since = since if isinstance(since, str) else START
        self._trained_at, self._runs = _number(state.get("trained_at")), int(_number(state.get("runs")))
        self._log = TransitionLog(self.options.log, since)
        return since

    def _needed(self) -> int:
        return max(self.options.least_new, int(self.options.growth * self._log.counts.outcomes))


def data_of(attempts: Sequence[Attempt], table: ModelTable, held_out: float) -> OutcomeData:
    """Training data of logged attempts.

    Args:
        attempts: From a log.
        table: The models; attempts at others are left out.
        held_out: Share of the prompts that is left out.

    Raises:
        OutcomeTableError: Nothing is left, or too little of any two models.
    """
    first = {each.episode: each.record.embedding for each in attempts if each.place == 0}
    rows = [
        each
        for each in attempts
        if not np.isnan(each.score)
        and each.report.model in table.index
        and not is_held_out(first.get(each.episode, each.record.embedding), held_out)
    ]
    size = len(max(rows, key=lambda each: each.record.made_at).record.state) if rows else 0
    rows = [each for each in rows if len(each.record.state) == size]
    if not rows:
        raise OutcomeTableError(
            f"no outcome of a model of the catalog yet; training needs {LEAST_TASKS} tasks: add outcomes"
        )
    records = [each.record for each in rows]
    expected = in_columns([(record.refs, record.cost_usd) for record in records], table.refs, np.nan)
    usual = np.nanmean(np.concatenate([expected, np.zeros((1, len(table)))]), axis=0)
    log = LoggedDecisions(
        states=np.array([_fresh(each) for each in rows], dtype=np.float32),
        embedding=np.array([record.embedding for record in records], dtype=np.float32),
        task=np.array([TASK_TYPES.index(record.task) for record in records], dtype=np.int64),
        complexity=np.array([record.complexity for record in records], dtype=np.float32),
        families=tuple(record.task for record in records),
        episode=np.array([each.episode for each in rows], dtype=np.int64),
        attempt=np.array([each.place for each in rows], dtype=np.int64),
        chosen=np.array([table.index[each.report.model] for each in rows], dtype=np.int64),
        score=np.array([each.score for each in rows], dtype=np.float64),
        cost=np.array([np.nan if each.report.outcome.cost_usd is None else each.cost_usd for each in rows]),
        propensity=np.array([each.propensity if each.drawn else 1.0 for each in rows], dtype=np.float64),
        expected_cost=np.where(np.isnan(expected), usual, expected).astype(np.float32),
        counted=np.array([_speaks(each) for each in rows], dtype=np.bool_),
    )
    data = outcomes_of_log(log, table, about={"source": "log", "decisions": len(rows)})
    assert data.weight is not None
    enough = np.flatnonzero((data.observed & (data.weight > 0.0)).sum(axis=0) >= LEAST_OUTCOMES)
    if len(enough) < 2:
        raise OutcomeTableError(
            f"only {len(enough)} models have {LEAST_OUTCOMES} outcomes of first attempts; training needs 2: let the "
            "engine explore, or add outcomes"
        )
    return data.models(enough)


def _speaks(attempt: Attempt) -> bool:
    """Whether an attempt speaks for P(success): drawn by the engine, at a task that nothing was tried at before."""
    return attempt.drawn and attempt.place == 0 and not attempt.record.attempts.any()


def _fresh(attempt: Attempt) -> Any:  # noqa: ANN401 (an array)
    """(S,) the state of the task before any attempt."""
    record = attempt.record
    if not record.attempts.any():
        return record.state
    layout, state = StateLayout(record.dimensions), record.state.copy()
    state[layout.attempts : layout.preferences] = 0.0
    return state


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
