"""How far does one API key that reports only failures move a model's profile, and those of other models?

Usage: measure_poisoning.py [--honest 3] [--share 0.5] [--seed 0]

Honest keys report outcomes of all models, drawn with each model's true chance, which is far from what the catalog says;
then one more key reports nothing but failures of the first model, in all task types. Printed is the first model's mean
P(success) over task types before and after, how far of the way to 0 it was moved, and the largest change of any other
model.
"""

from __future__ import annotations

import argparse

import numpy as np

from monkey_coder.catalog.catalog import load_catalog
from monkey_coder.catalog.table import ModelTable
from monkey_coder.models import TASK_TYPES
from monkey_coder.quantum.capability_profiler import Observation, ProfileOptions, Profiles

FALSE = (0, 1, 10, 100, 1_000, 10_000)
TRUE = (3, 10, 100)


def profiles_after(true: int, false: int, honest: int, share: float, table: ModelTable, seed: int) -> Profiles:
    """What is known after so many honest outcomes per model and task type, and false failures per task type."""
    rng = np.random.default_rng(seed)
    truth = rng.uniform(0.3, 1.0, table.success.shape)
    profiles = Profiles(ProfileOptions(share=share))
    number = 0
    for _ in range(true):
        for ref, chances in zip(table.refs, truth.T, strict=True):
            for task, chance in zip(TASK_TYPES, chances, strict=True):
                seen = Observation(ref, task, float(rng.random() < chance), reporter=f"honest {number % honest}")
                profiles.learn(str(number), seen)
                number += 1
    for _ in range(false):
        for task in TASK_TYPES:
            profiles.learn(str(number), Observation(table.refs[0], task, 0.0, reporter="poisoning"))
            number += 1
    return profiles


def main() -> None:
    """Print the table."""
    about = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=about)
    parser.add_argument("--honest", type=int, default=3, help="keys that tell the truth")
    parser.add_argument("--share", type=float, default=0.5, help="the most that one key is worth")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    table = load_catalog(None).table()
    print("| honest outcomes a model and task type | false failures a task type | P(success) | moved | others moved |")
    print("|---|---|---|---|---|")
    for true in TRUE:
        before = None
        for false in FALSE:
            profiles = profiles_after(true, false, given.honest, given.share, table, given.seed)
            success = profiles.table(table).success.mean(axis=0)
            before = success if before is None else before
            moved, others = 1.0 - success[0] / before[0], np.abs(success - before)[1:].max()
            print(f"| {true} | {false:,} | {success[0]:.4f} | {moved:.1%} | {others:.1g} |")


if __name__ == "__main__":
    main()
