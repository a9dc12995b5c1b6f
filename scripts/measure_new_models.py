"""How well is the success of a model foretold that training never saw? Each model of a table is left out in turn.

Usage: measure_new_models.py TABLE [--offset 0.1] [--outcomes 150] [--seed 0]

The left-out model's declared prior lies `--offset` above, and then below, its mean on the training rows. Reported is
the log loss of its foretold success on the test rows (`--holdout 0.3` of docs/reference/evaluation.md) less that of the
declared prior alone, paired over prompts, with 95% intervals by resampling prompts: below 0 is better.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from monkey_coder.evaluation.splits import groups, holdout
from monkey_coder.evaluation.tables import read_table
from monkey_coder.quantum.embedding import StaticEmbedder
from monkey_coder.quantum.success_model import BoundSuccessModel
from monkey_coder.quantum.success_training import SuccessData, SuccessOptions, train_success
from monkey_coder.quantum.text_marks import text_marks

RESAMPLES = 2_000


def log_loss(score: NDArray[np.float64], foretold: NDArray[np.floating]) -> NDArray[np.float64]:
    """Log loss of each foretold probability for a graded outcome, in nats."""
    p = np.clip(foretold, 1e-3, 1.0 - 1e-3)
    return np.asarray(-(score * np.log(p) + (1.0 - score) * np.log(1.0 - p)))


def interval(values: NDArray[np.float64], group: NDArray[np.int64], rng: np.random.Generator) -> str:
    """Mean with its 95% interval, equal prompts resampled together."""
    total, count = np.bincount(group, values), np.bincount(group)
    draws = rng.multinomial(len(count), np.full(len(count), 1.0 / len(count)), size=RESAMPLES)
    means = (draws @ total) / (draws @ count)
    low, high = np.quantile(means, (0.025, 0.975))
    return f"{values.mean():+.4f} [{low:+.4f}, {high:+.4f}]"


def main() -> int:
    """Measure, and print a Markdown table; 1 if a claim fails for the pooled models."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("--offset", type=float, default=0.1)
    parser.add_argument("--outcomes", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    table = read_table(options.table)
    embedding, marks = StaticEmbedder.load().embed(table.prompts), text_marks(table.prompts)
    test = holdout(table.prompts, 0.3)
    rng = np.random.default_rng(options.seed)
    group = groups([prompt for prompt, tested in zip(table.prompts, test, strict=True) if tested])
    pooled: dict[str, list[NDArray[np.float64]]] = {}
    print(f"| model | declared | after 0 outcomes | after {options.outcomes} outcomes |\n|---|---|---|---|")
    for left_out, name in enumerate(table.models):
        known = [m for m in range(len(table.models)) if m != left_out]
        data = SuccessData(
            embedding[~test],
            marks[~test],
            table.scores[~test][:, known],
            [task for task, tested in zip(table.tasks, test, strict=True) if not tested],
            [table.models[m] for m in known],
        )
        model = train_success(data, SuccessOptions(), np.random.default_rng(options.seed)).model
        bound = model.bind((*data.models, name))
        learned = table.scores[~test, left_out]
        for sign in (1.0, -1.0):
            declared = float(np.clip(learned.mean() + sign * options.offset, 0.02, 0.98))
            seen = rng.permutation(len(learned))[: options.outcomes]
            before, of_test = foretell(bound, embedding[test], marks[test], declared)
            _, of_seen = foretell(bound, embedding[~test][seen], marks[~test][seen], declared)
            after = model.new_models.update(declared, of_seen, learned[seen]).success(of_test)
            truth = table.scores[test, left_out]
            alone = log_loss(truth, np.full(len(truth), declared))
            gains = [log_loss(truth, foretold) - alone for foretold in (before, after)]
            for label, gain in zip(("after 0", f"after {options.outcomes}"), gains, strict=True):
                pooled.setdefault(label, []).append(gain)
            shown = " | ".join(interval(gain, group, rng) for gain in gains)
            print(f"| {name} | {declared:.3f} ({sign * options.offset:+.1f}) | {shown} |", flush=True)
    means = {label: np.mean(gains, axis=0) for label, gains in pooled.items()}
    print("| all | | " + " | ".join(interval(mean, group, rng) for mean in means.values()) + " |")
    return int(any(mean.mean() > 0.0 for mean in means.values()))


def foretell(
    bound: BoundSuccessModel, embedding: NDArray[np.float32], marks: NDArray[np.float32], declared: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(B,) P(success) of the last model before any outcome, and (B, P) what its posterior reads."""
    state = np.concatenate([embedding, marks], axis=1)
    priors = np.full((len(state), len(bound.slots)), declared, np.float32)
    estimate = bound.estimate(state, embedding, priors)
    return estimate.success[:, -1], estimate.deviations


if __name__ == "__main__":
    sys.exit(main())
