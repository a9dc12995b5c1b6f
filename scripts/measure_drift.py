"""How soon does traffic leave a model that breaks, come back when it recovers, and find a new model that is best?

Usage: measure_drift.py [--seed 0] [--seeds 5] [--budget USD] [--json OUT]

The stream of measure_online.py (`pip install paretobandit`) and the learning parts of the engine, at one budget, for
each seed:

* drift: for 800 tasks in the middle of the stream the model that had most traffic before scores nothing; then it is as
  before. Reported is its share of traffic in the last 200 tasks before, from 100 and from 200 tasks after it broke
  until it recovers, and from 250 to 500 tasks after that.
* a new model: that model joins the catalog only after 1,200 tasks, declared like the others. Reported is its share from
  0 to 150, and from 150 to 400 tasks after that.

Exits with 1 if, at any seed, more than a tenth of the traffic is left after 200 tasks, less than three quarters of the
former share is back before 500, or a model added is chosen for less than half of the tasks after 150.
"""

from __future__ import annotations

import argparse
import json
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from measure_online import order_of, stream
from numpy.typing import NDArray
from online_stream import failing, play_parts

BREAKS, RECOVERS, JOINS, ENDS = 1200, 2000, 1200, 2700


def share(chosen: NDArray[np.int64], column: int, start: int, end: int) -> float:
    """Part of the tasks from `start` to `end` that went to a model."""
    return float((chosen[start:end] == column).mean())


def drift(seed: int, budget: float) -> list[float]:
    """Shares of the model that breaks."""
    tasks, _, vectors = stream()
    order = order_of(seed)
    before = play_parts(tasks, order[:BREAKS], vectors, seed, budget).chosen
    column = int(np.bincount(before[-200:], minlength=len(tasks.refs)).argmax())
    changes = {BREAKS: failing(column, 0.0, tasks), RECOVERS: tasks}
    chosen = play_parts(tasks, order[:ENDS], vectors, seed, budget, changes=changes).chosen
    return [
        share(chosen, column, BREAKS - 200, BREAKS),
        share(chosen, column, BREAKS + 100, RECOVERS),
        share(chosen, column, BREAKS + 200, RECOVERS),
        share(chosen, column, RECOVERS + 250, RECOVERS + 500),
    ]


def joining(seed: int, budget: float) -> list[float]:
    """Shares of a model that joins late: the one with most traffic where it is there from the start."""
    tasks, _, vectors = stream()
    everywhere = play_parts(tasks, order_of(seed)[:JOINS], vectors, seed, budget).chosen
    column = int(np.bincount(everywhere[-200:], minlength=len(tasks.refs)).argmax())
    chosen = play_parts(tasks, order_of(seed)[:ENDS], vectors, seed, budget, joins=(column, JOINS)).chosen
    return [share(chosen, column, JOINS, JOINS + 150), share(chosen, column, JOINS + 150, JOINS + 400)]


def main() -> int:
    """Measure, and print two Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="the first one")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--budget", type=float, default=6.62e-4)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if find_spec("pareto_bandit") is None:
        print("the package paretobandit is missing: pip install paretobandit", file=sys.stderr)
        return 2
    seeds = range(options.seed, options.seed + options.seeds)
    shares = {run.__name__: [run(seed, options.budget) for seed in seeds] for run in (drift, joining)}
    print(
        "| seed | before | from 100 after it broke | from 200 | 250 to 500 after it recovered |\n|---|---|---|---|---|"
    )
    for seed, row in zip(seeds, shares["drift"], strict=True):
        print(f"| {seed} | {' | '.join(f'{each:.3f}' for each in row)} |")
    print("\n| seed | first 150 tasks | 150 to 400 |\n|---|---|---|")
    for seed, row in zip(seeds, shares["joining"], strict=True):
        print(f"| {seed} | {' | '.join(f'{each:.3f}' for each in row)} |")
    if options.json:
        options.json.write_text(json.dumps(shares, indent=1))
    left = all(row[2] <= 0.1 and row[3] >= 0.75 * row[0] for row in shares["drift"])
    return int(not (left and all(row[1] >= 0.5 for row in shares["joining"])))


if __name__ == "__main__":
    sys.exit(main())
