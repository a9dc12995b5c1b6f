"""How often the judge of new policies lets one serve, and how soon the guard takes one back, where the truth is known.

    python scripts/measure_judging.py [--runs N]

A made-up deployment: six models, of which the current policy always takes the first, and the new one takes the second
in three decisions of ten, where it is better or worse by a known effect. All runs have seeds of their own, from 0 up.
"""

from __future__ import annotations

import argparse

import numpy as np

from monkey_coder.quantum.off_policy import BanditLog, difference_of
from monkey_coder.quantum.policy_judge import JudgeOptions
from monkey_coder.quantum.regression_guard import RegressionGuard
from monkey_coder.quantum.reward_model import cross_fitted
from monkey_coder.quantum.transition_log import CountedOutcome

MODELS, DIFFER = 6, 0.3
RESAMPLES = 300


def judged(seed: int, decisions: int, epsilon: float, effect: float) -> tuple[bool, bool, float, int]:
    """Whether it may serve, whether the interval holds the truth, its width, and how many decisions tried it."""
    rng, options = np.random.default_rng(seed), JudgeOptions()
    prompt = rng.normal(size=(decisions, 8)).astype(np.float32)
    ours = np.where(rng.random(decisions) < DIFFER, 1, 0)
    chance = np.full((decisions, MODELS), 0.55)
    chance[:, 0] = 0.65 + 0.1 * np.tanh(prompt[:, 0])
    chance[:, 1] = chance[:, 0] + effect
    logged = np.full((decisions, MODELS), 0.4 * epsilon / (MODELS - 2))
    logged[:, 0], logged[:, 1] = 1.0 - epsilon, 0.6 * epsilon
    rows = np.arange(decisions)
    action = (logged.cumsum(axis=1) < rng.random(decisions)[:, None]).sum(axis=1).clip(max=MODELS - 1)
    reward = (rng.random(decisions) < chance[rows, action]).astype(float)
    log = BanditLog(action, logged[rows, action], reward, rows)
    q_hat = cross_fitted(prompt, np.full((decisions, MODELS), 0.6), action, reward, rows, rng)
    one_hot = np.eye(MODELS)
    told = difference_of(log, one_hot[ours], one_hot[0 * ours], q_hat, rng, resamples=RESAMPLES).doubly_robust
    checks = int(((ours == 1) & (action == 1)).sum())
    publish = checks >= options.least_checks and told.low >= -options.tolerance
    return publish, told.low <= effect * float((ours == 1).mean()) <= told.high, told.high - told.low, checks


def taken_back(seed: int, earlier: int, before: float, now: float, most: int) -> float:
    """Outcomes under the new policy until it is taken back, looked at after every ten; infinite if it is not."""
    rng, guard = np.random.default_rng(seed), RegressionGuard(2, 1)

    def outcomes(version: int, chance: float, count: int) -> list[CountedOutcome]:
        return [
            CountedOutcome("made", "made/model", "general", version, False, False, score, score, 0.0)
            for score in (rng.random(count) < chance).astype(float).tolist()
        ]

    guard.observe(outcomes(1, before, earlier))
    for seen in range(10, most + 10, 10):
        guard.observe(outcomes(2, now, 10))
        if guard.report().roll_back:
            return seen
    return np.inf


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100, help="of each row")
    runs = parser.parse_args().runs
    print("| exploration | held-out decisions | effect | may serve | interval holds the truth | its width | tried |")
    print("|---|---|---|---|---|---|---|")
    for epsilon, decisions in ((0.02, 1000), (0.02, 2400), (0.1, 1000), (0.1, 2400)):
        for effect in (-0.1, 0.0, 0.2):
            found = np.array([judged(seed, decisions, epsilon, effect) for seed in range(runs)], dtype=float)
            publish, holds, width, checks = found.mean(axis=0)
            figures = f"{publish:.0%} | {holds:.0%} | {width:.3f} | {checks:.0f}"
            print(f"| {epsilon} | {decisions:,} | {effect:+.1f} | {figures} |", flush=True)
    print("\n| earlier outcomes | success before | now | taken back | median | 95% |\n|---|---|---|---|---|---|")
    for earlier, before, now in ((4000, 0.7, 0.6), (1000, 0.7, 0.6), (4000, 0.7, 0.5), (4000, 0.7, 0.7)):
        taken = np.array([taken_back(seed, earlier, before, now, 2_000) for seed in range(2 * runs)])
        shares = [float(np.quantile(taken, share, method="higher")) for share in (0.5, 0.95)]
        told = ["never" if np.isinf(share) else f"{share:.0f}" for share in shares]
        print(
            f"| {earlier:,} | {before} | {now} | {np.isfinite(taken).mean():.1%} | {told[0]} | {told[1]} |", flush=True
        )


if __name__ == "__main__":
    main()
