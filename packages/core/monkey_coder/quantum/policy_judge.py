"""Judges a newly trained policy by logged decisions that it was not trained on, against the one that serves.

The question is: had the engine followed the new policy in one decision, and gone on as it did, would the callers have
been better off? (The first-order surrogate of Kakade and Langford 2002: exact for single attempts; in an episode it
looks one changed decision ahead.) The answer is a doubly robust estimate of the difference with an interval over
episodes; the policy may serve if even the lower end is not below a small tolerance. Where exploration never tried what
the policy wants, nothing is known, and the answer is no.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from monkey_coder.catalog.table import ModelTable
from monkey_coder.ports import UNTRIED, FloatArray
from monkey_coder.quantum.decision_record import DecisionRecord
from monkey_coder.quantum.logged_episodes import Attempt
from monkey_coder.quantum.off_policy import (
    CLIP,
    LEVEL,
    BanditLog,
    Estimate,
    Estimates,
    Support,
    difference_of,
    support,
    value_of,
)
from monkey_coder.quantum.policy_bundle import PolicyBundle
from monkey_coder.quantum.policy_choices import NOBODY, Chooser, in_columns
from monkey_coder.quantum.reward_model import cross_fitted

LEAST_REWARD: Final = -1.0
"""Rewards count as no less, so that no single report decides; they are at most 1 by their making."""


@dataclass(frozen=True, slots=True)
class JudgeOptions:
    """When a policy may serve.

    Attributes:
        tolerance: Utility, in successes a decision, by which the lower end of the difference may lie below 0.
        level: Of the two-sided interval; half of the rest is the chance that a worse policy passes by luck.
        clip: Largest weight of one decision.
        least_decisions: Held-out decisions that must have been open to exploration.
        least_checks: Decisions with an outcome, among those where the two policies differ, that did what the new one
            would do. Below these, intervals by resampling are too narrow.
        most_unchecked: Share of the policy's choices, at most, that no outcome can correct.
        most_decisions: The newest decisions that are looked at.
    """

    tolerance: float = 0.01
    level: float = LEVEL
    clip: float = CLIP
    least_decisions: int = 100
    least_checks: int = 10
    most_unchecked: float = 0.1
    most_decisions: int = 8_000

    def __post_init__(self) -> None:
        if not 0.0 <= self.tolerance <= 1.0:
            raise ValueError(f"tolerance is {self.tolerance}; it must lie in 0..1")
        if not 0.0 <= self.most_unchecked <= 1.0:
            raise ValueError(f"most_unchecked is {self.most_unchecked}; it must lie in 0..1")
        for knob in ("least_decisions", "least_checks", "most_decisions"):
            if getattr(self, knob) < 1:
                raise ValueError(f"{knob} is {getattr(self, knob)}; it must be at least 1")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found.

    Attributes:
        publish: Whether the new policy may serve.
        reason: In one sentence.
        decisions: Held-out decisions that it rests on, open to exploration and with a known end.
        episodes: Episodes that they belong to.
        differ: Share of them in which the two policies choose differently.
        checks: Decisions among those that did what the new policy would do.
        challenger: Utility of the new policy, in successes a decision; None where too little was known.
        current: Of the one that serves, or of the engine without a policy.
        difference: The new one's less the other's.
        support: How far the log can speak of the new policy.
    """

    publish: bool
    reason: str
    decisions: int = 0
    episodes: int = 0
    differ: float = 0.0
    checks: int = 0
    challenger: Estimates | None = None
    current: Estimates | None = None
    difference: Estimates | None = None
    support: Support | None = None

    def to_json(self) -> dict[str, Any]:
        """JSON values; what is not a number is null."""
        found: dict[str, Any] = _without_nan(asdict(self))
        return found


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Logged decisions (R) that policies are judged by, under the columns of one table.

    Attributes:
        records: R records, of one state size.
        log: What was done, and the utility from there to the end of the episode.
        logged: (R, M) probabilities of all models when each decision was made.
        expected: (R, M) utility of one attempt, as the engine expected it then.
    """

    records: Sequence[DecisionRecord]
    log: BanditLog
    logged: NDArray[np.float64]
    expected: NDArray[np.float64]

    @property
    def embedding(self) -> FloatArray:
        """(R, D) of the prompts."""
        return np.array([record.embedding for record in self.records], dtype=np.float32)


def is_held_out(embedding: FloatArray, share: float) -> bool:
    """Whether a prompt (D,) is among the share that never trains anything: always the same for equal prompts."""
    digest = sha256(np.ascontiguousarray(embedding, dtype="<f4").tobytes()).digest()
    return int.from_bytes(digest[:6]) / 2**48 < share


def held_out_decisions(attempts: Sequence[Attempt], table: ModelTable, share: float, most: int) -> HeldOut | None:
    """Pick the decisions that policies are judged by; None if there is none.

    Left out are those that were not drawn (caches, fallbacks), those without any exploration (sessions that stay,
    callers who opted out), answers that failed for availability, and episodes whose end is not known.

    Args:
        attempts: From a log.
        table: The models.
        share: Of the prompts, that is held out of all training.
        most: The newest decisions to use.
    """
    first = {each.episode: each.record.embedding for each in attempts if each.place == 0}
    to_go = _to_go(attempts)
    rows = [
        (each, value)
        for each, value in zip(attempts, to_go, strict=True)
        if not np.isnan(value)
        and each.drawn
        and each.error is None
        and float(each.record.distribution.max()) < 1.0
        and each.report.model in table.index
        and is_held_out(first.get(each.episode, each.record.embedding), share)
    ]
    rows = sorted(rows, key=lambda row: (row[0].record.made_at, row[0].record.id))[-most:]
    rows = [row for row in rows if len(row[0].record.state) == len(rows[-1][0].record.state)]
    if not rows:
        return None
    records = [each.record for each, _ in rows]
    log = BanditLog(
        action=np.array([table.index[each.report.model] for each, _ in rows], dtype=np.int64),
        propensity=np.array([min(each.propensity, 1.0) for each, _ in rows]),
        reward=np.array([value for _, value in rows]),
        cluster=np.array([each.episode for each, _ in rows], dtype=np.int64),
    )
    logged = in_columns([(record.refs, record.distribution) for record in records], table.refs)
    expected = in_columns([(record.refs, _expected(record)) for record in records], table.refs)
    return HeldOut(records, log, logged, expected)


def judge(
    held_out: HeldOut | None,
    table: ModelTable,
    challenger: PolicyBundle,
    current: PolicyBundle | None,
    options: JudgeOptions,
    rng: np.random.Generator,
) -> Verdict:
    """Judge a new policy.

    Args:
        held_out: Decisions that it was not trained on.
        table: The models, of the same columns.
        challenger: The new policy.
        current: The one that serves; None: the engine without a policy.
        options: When it may serve.
        rng: For folds and resamples.
    """
    if held_out is None:
        return Verdict(False, "no held-out decision was open to exploration: there is nothing to judge by")
    theirs, ours = (Chooser.of(table, bundle).choose(held_out.records) for bundle in (current, challenger))
    decided = (ours != NOBODY) & (theirs != NOBODY)
    log, action = _rows(held_out.log, decided), held_out.log.action[decided]
    if log is None or len(log) < options.least_decisions:
        found = 0 if log is None else len(log)
        return Verdict(
            False,
            f"only {found} held-out decisions were open to exploration; {options.least_decisions} are needed",
            decisions=found,
        )
    ours, theirs = ours[decided], theirs[decided]
    logged = held_out.logged[decided]
    target, baseline = (np.eye(len(table))[chosen] for chosen in (ours, theirs))
    differ = ours != theirs
    generators = rng.spawn(4)
    q_hat = cross_fitted(
        held_out.embedding[decided], held_out.expected[decided], action, log.reward, log.cluster, generators[0]
    )

    def value(policy: NDArray[np.float64], generator: np.random.Generator) -> Estimates:
        return value_of(log, policy, q_hat, generator, clip=options.clip, level=options.level)

    verdict = Verdict(
        publish=False,
        reason="",
        decisions=len(log),
        episodes=len(np.unique(log.cluster)),
        differ=float(differ.mean()),
        checks=int((differ & (action == ours)).sum()),
        challenger=value(target, generators[1]),
        current=value(baseline, generators[2]),
        difference=difference_of(log, target, baseline, q_hat, generators[3], clip=options.clip, level=options.level),
        support=support(log, target, logged, options.clip),
    )
    return _decided(verdict, options)


def _decided(verdict: Verdict, options: JudgeOptions) -> Verdict:
    assert verdict.difference is not None
    assert verdict.support is not None
    found: Estimate = verdict.difference.doubly_robust
    differ = round(verdict.differ * verdict.decisions)
    seen = (
        f"{found.mean:+.4f} [{found.low:+.4f}, {found.high:+.4f}] utility a decision against the current one, by "
        f"{verdict.decisions} held-out decisions of which they differ in {differ} and {verdict.checks} were tried"
    )
    publish = False
    if verdict.differ > options.tolerance and verdict.checks < options.least_checks:
        reason = f"too little was tried of what it would do ({options.least_checks} are needed): {seen}"
    elif verdict.support.unchecked > options.most_unchecked:
        reason = f"exploration hardly ever tries {verdict.support.unchecked:.0%} of what it would do: {seen}"
    elif found.low >= -options.tolerance:
        publish, reason = True, f"not worse: {seen}"
    elif found.high < 0.0:
        reason = f"worse: {seen}"
    else:
        reason = f"not shown to be as good within {options.tolerance:g}: {seen}"
    return replace(verdict, publish=publish, reason=reason)


def _to_go(attempts: Sequence[Attempt]) -> NDArray[np.float64]:
    """(R,) utility from each attempt to the end of its episode; not a number where that is not known.

    Of the answers only the last one's success counts, and of the prices all. Where nobody came back after a failure,
    the next attempt is worth what the engine expected of the best model left, if that is anything.
    """
    value = np.full(len(attempts), np.nan)
    for place in range(len(attempts) - 1, -1, -1):
        each = attempts[place]
        if not each.ended:
            continue
        if each.follows is None:
            value[place] = each.reward + (_afterwards(each) if each.truncated else 0.0)
        else:
            score = 0.0 if np.isnan(each.score) else each.score
            value[place] = each.reward - score + value[place + 1]
    return value.clip(LEAST_REWARD, 1.0)


def _afterwards(attempt: Attempt) -> float:
    record = attempt.record
    left = record.candidates & (record.attempts == UNTRIED)
    if attempt.column >= 0:
        left[attempt.column] = False
    if record.attempts_left <= 1 or not left.any():
        return 0.0
    return max(0.0, float(_expected(record)[left].max()))


def _expected(record: DecisionRecord) -> NDArray[np.float64]:
    """(M,) utility of one attempt as the engine expected it when it decided."""
    price = record.cost_weight * record.cost_usd + record.latency_weight * record.latency_s
    value: NDArray[np.float64] = np.clip(np.nan_to_num(record.success - price.astype(np.float64)), LEAST_REWARD, 1.0)
    return value


def _rows(log: BanditLog, keep: NDArray[np.bool_]) -> BanditLog | None:
    if not keep.any():
        return None
    return BanditLog(log.action[keep], log.propensity[keep], log.reward[keep], log.cluster[keep])


def _without_nan(value: Any) -> Any:  # noqa: ANN401 (JSON)
    if isinstance(value, dict):
        return {name: _without_nan(each) for name, each in value.items()}
    return None if isinstance(value, float) and np.isnan(value) else value
