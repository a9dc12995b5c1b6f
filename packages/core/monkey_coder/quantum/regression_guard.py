"""Watches whether a new policy does worse live than the one before it, and says when to go back.

Each outcome under the new policy is compared with a few outcomes of the one before, in the same kind of traffic; none
of those is used twice. If the new policy is not worse than tolerated, each comparison is a game that a bettor against
it cannot expect to win, whatever was seen before; so the chance that the bettor's capital ever grows to
``1 / error_rate`` is at most `error_rate`, however often one looks (Ville's inequality; betting: Shafer 2021,
Waudby-Smith and Ramdas 2024). The capital is spread over several stakes, so that none must be tuned.

What is assumed: outcomes of one kind of traffic come alike before and after the change. If a provider fails or tasks
get harder just then, the guard blames the policy. Going back is cheap, and the policy can be tried again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from monkey_coder.quantum.transition_log import CountedOutcome

LEAST_REWARD: Final = -1.0
"""Rewards count as no less: an attempt may cost more than a success is worth, but one report must not decide."""

STAKES: Final = np.array([0.02, 0.05, 0.1, 0.2, 0.3, 0.45])
"""Shares of the capital that stand on each comparison, which loses at most 2.2 times its stake."""

RESERVE: Final = 400
"""Comparisons for which outcomes of the policy before shall last, at the rate of the moment."""

_Stratum = tuple[str, bool]


@dataclass(frozen=True, slots=True)
class GuardOptions:
    """When to go back.

    Attributes:
        error_rate: Chance, at most, that a policy which is no worse than tolerated is ever sent back.
        tolerance: Utility, in successes an attempt, by which a policy may be worse.
        per_outcome: Most outcomes of the policy before that each new one is compared with: they lower the noise.
        most_before: Outcomes of the policy before that are kept for it, the newest, in each kind of traffic.
    """

    error_rate: float = 0.01
    tolerance: float = 0.01
    per_outcome: int = 8
    most_before: int = 8_000

    def __post_init__(self) -> None:
        if not 0.0 < self.error_rate < 1.0:
            raise ValueError(f"error_rate is {self.error_rate}; it must lie between 0 and 1")
        if not 0.0 <= self.tolerance <= 0.2:
            raise ValueError(f"tolerance is {self.tolerance}; it must lie in 0..0.2")
        if self.per_outcome < 1 or self.most_before < self.per_outcome:
            raise ValueError("per_outcome must be at least 1, and most_before at least as many")


@dataclass(frozen=True, slots=True)
class GuardReport:
    """How a new policy does live.

    Attributes:
        roll_back: Whether it does worse; once so, it stays so.
        compared: Outcomes that were compared.
        unmatched: Outcomes in traffic of which too little was known from before.
        evidence: Capital of the bettor against the policy, 1 at the start; it is sent back at ``1 / error_rate``.
        loss: Mean utility lost an attempt, in successes; negative where the new policy does better.
        reason: In one sentence.
    """

    roll_back: bool
    compared: int
    unmatched: int
    evidence: float
    loss: float
    reason: str


class RegressionGuard:
    """Compares one policy with the one before it. For one thread at a time.

    Args:
        current: Number of the policy that serves.
        before: Number of the one before; None: the engine without a policy.
        options: When to go back.
    """

    def __init__(self, current: int, before: int | None, options: GuardOptions | None = None) -> None:
        self.current, self.before = current, before
        self.options = options or GuardOptions()
        self._earlier: dict[_Stratum, deque[float]] = {}
        self._capital = np.zeros(len(STAKES))
        self._most = 0.0
        self._compared = self._unmatched = 0
        self._lost = 0.0

    def observe(self, outcomes: Iterable[CountedOutcome]) -> None:
        """Take outcomes in, in order of their arrival; those of other policies and from caches are passed over."""
        lost: list[float] = []
        for outcome in outcomes:
            if outcome.cached or outcome.policy_version not in (self.current, self.before):
                continue
            stratum = (outcome.task, outcome.planned)
            earlier = self._earlier.setdefault(stratum, deque(maxlen=self.options.most_before))
            reward = min(max(outcome.reward, LEAST_REWARD), 1.0)
            if outcome.policy_version == self.before:
                earlier.append(reward)
            elif earlier:
                share = max(1, min(self.options.per_outcome, len(earlier) // RESERVE))
                drawn = [earlier.pop() for _ in range(share)]
                lost.append(sum(drawn) / len(drawn) - reward)
            else:
                self._unmatched += 1
        self._bet(np.array(lost))

    def report(self) -> GuardReport:
        """Say how the policy does."""
        need = 1.0 / self.options.error_rate
        loss = self._lost / self._compared if self._compared else 0.0
        back = self._most >= np.log(need)
        before = "the engine without a policy" if self.before is None else f"policy {self.before}"
        seen = f"over {self._compared} outcomes policy {self.current} lost {loss:+.3f} utility against {before}"
        evidence = float(np.exp(min(np.logaddexp.reduce(self._capital) - np.log(len(STAKES)), 700.0)))
        reason = (
            f"{seen}: worse, with a chance of at most {self.options.error_rate:g} to be wrong"
            if back
            else f"{seen}: no reason to go back (evidence {evidence:.3g} of {need:g})"
        )
        return GuardReport(bool(back), self._compared, self._unmatched, evidence, loss, reason)

    def _bet(self, lost: NDArray[np.float64]) -> None:
        if not lost.size:
            return
        self._compared += lost.size
        self._lost += float(lost.sum())
        gains = np.log1p(STAKES * (lost[:, None] - self.options.tolerance))
        capital = self._capital + gains.cumsum(axis=0)
        self._capital = capital[-1]
        self._most = max(self._most, float((np.logaddexp.reduce(capital, axis=1) - np.log(len(STAKES))).max()))
