"""Tells whether a training run is healthy, has converged, or diverges, and lets a person steer it (R2.1).

Judging is a pure function of the history; whoever trains asks it, and stops a diverging run with
`TrainingDivergedError`, so that its weights are never published. `TrainingControl` carries a person's wishes to the
training loop.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

Status = Literal["healthy", "converged", "diverged"]

_Q_STRIKES: Final = 3
"""Points in a row with values out of bounds before it is no accident of one batch."""


@dataclass(frozen=True, slots=True)
class TrainingPoint:
    """What was measured after some gradient step.

    Attributes:
        step: Gradient steps so far.
        loss: Mean loss since the point before.
        max_abs_q: Largest |Q| of a candidate since the point before.
        validation_reward: Mean reward of an episode of the greedy policy on held-out tasks; None: not measured.
        action_entropy: See `action_entropy`; None: not measured.
        dead_share: Share of hidden units that no longer react, 0..1; None: not measured.
    """

    step: int
    loss: float
    max_abs_q: float
    validation_reward: float | None = None
    action_entropy: float | None = None
    dead_share: float | None = None


@dataclass(frozen=True, slots=True)
class MonitorConfig:
    """Thresholds of the monitor.

    Attributes:
        q_slack: Values may leave the achievable returns by this share of the largest |return|; fresh networks do.
        loss_window: Points that are averaged (median) for the loss trend, at least 1.
        loss_factor: The loss has blown up when it is this many times the best earlier window, above 1.
        loss_floor: Losses below this are too small to speak of a trend.
        patience: Validations without improvement after which training has converged, at least 1.
        min_improvement: Rise of the validation reward that counts as one, not negative.
        reward_drop: Fall below the best validation reward that, with a collapsed choice, is divergence; above 0.
        entropy_floor: Action entropy below which the policy has collapsed to one model, 0..1.
        dead_limit: Share of dead units from which on a network cannot learn, 0..1.
    """

    q_slack: float = 0.5
    loss_window: int = 5
    loss_factor: float = 20.0
    loss_floor: float = 1e-3
    patience: int = 10
    min_improvement: float = 1e-3
    reward_drop: float = 0.05
    entropy_floor: float = 0.02
    dead_limit: float = 0.95

    def __post_init__(self) -> None:
        for knob, sane in (
            ("q_slack", self.q_slack >= 0.0),
            ("loss_window", self.loss_window >= 1),
            ("loss_factor", self.loss_factor > 1.0),
            ("loss_floor", self.loss_floor > 0.0),
            ("patience", self.patience >= 1),
            ("min_improvement", self.min_improvement >= 0.0),
            ("reward_drop", self.reward_drop > 0.0),
            ("entropy_floor", 0.0 <= self.entropy_floor <= 1.0),
            ("dead_limit", 0.0 < self.dead_limit <= 1.0),
        ):
            if not sane:
                raise ValueError(f"{knob} is {getattr(self, knob)}; see its description for the range")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the monitor thinks, and why.

    Attributes:
        status: `healthy` (go on), `converged` (stop, take the best weights), `diverged` (stop, publish nothing).
        reason: One true sentence with the numbers behind it.
        warnings: What looks odd without being divergence.
    """

    status: Status
    reason: str
    warnings: tuple[str, ...] = ()


def largest_return(reward_low: float, reward_high: float, discount: float, horizon: int) -> float:
    """Bound |Q| of any policy: so many steps of the largest reward, discounted.

    Args:
        reward_low: Least reward of one step.
        reward_high: Largest reward of one step.
        discount: Of one step, 0..1.
        horizon: Steps of the longest episode, at least 1.
    """
    return max(abs(reward_low), abs(reward_high)) * sum(discount**step for step in range(horizon))


def action_entropy(action: NDArray[np.int64], models: int) -> float:
    """Entropy of the chosen models over a batch: 0 when all requests get the same one, 1 when all are as frequent."""
    if models < 2:
        return 1.0
    share = np.bincount(action, minlength=models) / max(1, len(action))
    used = share[share > 0.0]
    return float(-(used * np.log(used)).sum() / math.log(models))


def judge(history: Sequence[TrainingPoint], return_bound: float, config: MonitorConfig | None = None) -> Verdict:
    """Judge a run by everything measured so far.

    Args:
        history: Points in order of steps; the newest last.
        return_bound: Largest |return| that any policy can achieve; see `largest_return`.
        config: Thresholds; None: the defaults.
    """
    config = config or MonitorConfig()
    if not history:
        return Verdict("healthy", "nothing was measured yet")
    for trouble in (
        _not_finite(history),
        _q_scale(history, return_bound, config),
        _loss(history, config),
        _dead_units(history, config),
        _collapse(history, config),
    ):
        if trouble:
            return Verdict("diverged", trouble)
    warnings = _warnings(history, config)
    return _plateau(history, config, warnings)


def _not_finite(history: Sequence[TrainingPoint]) -> str | None:
    last = history[-1]
    names = ("loss", "max_abs_q", "validation_reward", "action_entropy", "dead_share")
    bad = [name for name in names if not math.isfinite(getattr(last, name) or 0.0)]
    return f"step {last.step}: {', '.join(bad)} not finite" if bad else None


def _q_scale(history: Sequence[TrainingPoint], bound: float, config: MonitorConfig) -> str | None:
    limit = bound * (1.0 + config.q_slack)
    recent = [point.max_abs_q for point in history[-_Q_STRIKES:]]
    if len(recent) == _Q_STRIKES and min(recent) > limit:
        return (
            f"step {history[-1].step}: |Q| reached {recent[-1]:.3g} and was above {limit:.3g} {_Q_STRIKES} times "
            f"in a row, while no policy can achieve more than {bound:.3g}"
        )
    return None


def _loss(history: Sequence[TrainingPoint], config: MonitorConfig) -> str | None:
    window = config.loss_window
    if len(history) < 2 * window:
        return None
    losses = np.array([point.loss for point in history])
    middle = np.median(np.lib.stride_tricks.sliding_window_view(losses, window), axis=1)
    best = max(float(middle[:-window].min()) if len(middle) > window else float(middle[0]), config.loss_floor)
    if middle[-1] > config.loss_factor * best:
        return (
            f"step {history[-1].step}: the loss rose to {middle[-1]:.3g}, more than {config.loss_factor:g} times "
            f"its best earlier level {best:.3g} (medians of {window} points)"
        )
    return None


def _dead_units(history: Sequence[TrainingPoint], config: MonitorConfig) -> str | None:
    dead = history[-1].dead_share
    if dead is not None and dead >= config.dead_limit:
        return f"step {history[-1].step}: {dead:.0%} of the hidden units no longer react to the request"
    return None


def _collapse(history: Sequence[TrainingPoint], config: MonitorConfig) -> str | None:
    """One model for everything is divergence only if the policy was better before: it may be the best there is."""
    last = history[-1]
    rewards = [point.validation_reward for point in history if point.validation_reward is not None]
    if last.action_entropy is None or last.validation_reward is None or last.action_entropy >= config.entropy_floor:
        return None
    fall = max(rewards) - last.validation_reward
    if fall <= config.reward_drop:
        return None
    return (
        f"step {last.step}: nearly every request gets the same model (entropy {last.action_entropy:.3g}), and the "
        f"validation reward fell {fall:.3g} below its best {max(rewards):.3g}"
    )


def _warnings(history: Sequence[TrainingPoint], config: MonitorConfig) -> tuple[str, ...]:
    last = history[-1]
    found = []
    if last.action_entropy is not None and last.action_entropy < config.entropy_floor:
        found.append(f"nearly every request gets the same model (entropy {last.action_entropy:.3g})")
    if last.dead_share is not None and last.dead_share > config.dead_limit / 2:
        found.append(f"{last.dead_share:.0%} of the hidden units no longer react to the request")
    return tuple(found)


def _plateau(history: Sequence[TrainingPoint], config: MonitorConfig, warnings: tuple[str, ...]) -> Verdict:
    measured = [(point.step, point.validation_reward) for point in history if point.validation_reward is not None]
    if not measured:
        return Verdict("healthy", f"step {history[-1].step}: loss {history[-1].loss:.3g}", warnings)
    best_step, best, waited = measured[0][0], measured[0][1], 0
    for step, reward in measured[1:]:
        waited += 1
        if reward > best + config.min_improvement:
            best_step, best, waited = step, reward, 0
    told = f"best validation reward {best:.4g} at step {best_step}, {waited} validations ago"
    if waited >= config.patience:
        return Verdict("converged", f"step {history[-1].step}: {told}; patience is {config.patience}", warnings)
    return Verdict("healthy", f"step {history[-1].step}: {told}", warnings)


@dataclass(frozen=True, slots=True)
class Overrides:
    """A person's wishes at one moment; None leaves a knob to its schedule."""

    paused: bool = False
    stopped: bool = False
    learning_rate: float | None = None
    epsilon: float | None = None


class TrainingControl:
    """Carries manual overrides into a running training loop; any thread may call it at any time.

    The loop calls `wait` between gradient steps and obeys what it returns.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._now = Overrides()

    @property
    def now(self) -> Overrides:
        """The wishes of this moment."""
        return self._now

    def pause(self) -> None:
        """Hold the loop at its next step."""
        self._set(paused=True)

    def resume(self) -> None:
        """Let a paused loop go on."""
        self._set(paused=False)

    def stop(self) -> None:
        """End the loop at its next step, also when it is paused; there is no way back."""
        self._set(stopped=True)

    def set_learning_rate(self, value: float | None) -> None:
        """Use this learning rate (above 0) instead of the schedule's; None: the schedule's again."""
        if value is not None and not 0.0 < value < math.inf:
            raise ValueError(f"learning_rate is {value}; it must be above 0")
        self._set(learning_rate=value)

    def set_epsilon(self, value: float | None) -> None:
        """Use this share of random choices (0..1) instead of the schedule's; None: the schedule's again."""
        if value is not None and not 0.0 <= value <= 1.0:
            raise ValueError(f"epsilon is {value}; it must lie in 0..1")
        self._set(epsilon=value)

    def wait(self, timeout_s: float | None = None) -> Overrides:
        """Return the wishes of this moment, after waiting while paused (no longer than the timeout; None: for ever)."""
        with self._changed:
            self._changed.wait_for(lambda: self._now.stopped or not self._now.paused, timeout_s)
            return self._now

    def _set(self, **changes: bool | float | None) -> None:
        with self._changed:
            self._now = replace(self._now, **changes)  # type: ignore[arg-type]
            self._changed.notify_all()
