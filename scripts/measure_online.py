"""Does the engine learn online, from what it chose alone, as well as a bandit router made for that? And keep a budget?

Usage: measure_online.py [--seeds 20] [--tune-seeds 5] [--budgets USD ...] [--parts] [--processes 1] [--json OUT]

The stream is what the package `paretobandit` (PyPI, Apache-2.0) brings along: outcomes of `val` in random order, then
those of `test_holdout`, 3 models each. Install it beside the engine first (`pip install paretobandit`); it is not a
dependency.

For each seed and budget both see the same tasks in the same order, read the same static embedding, know the same
prices, and get to know score and cost of the model they chose, nothing else. Both start without any outcome:

* the engine as `online_stream.py` builds it, every model at P(success) 0.5 worth one outcome, `--target` the budget;
* `BanditRouter` with `priors="none"` and its adaptive pacer, on 25 whitened components of the embedding and a bias, as
  its own demo does it; the components are fitted to all prompts of `val`, which the engine does not get. Once with the
  parameters that the package recommends for a cold start, and once with those of a grid that have the highest mean
  score on `val` at that budget, over seeds of their own.

With `--parts` the learning parts of the engine decide alone (online model, pacing, exploration), without the fan-out to
strategies that weigh success, cost and latency in other ways as well; it takes a tenth of the time.

Prints a Markdown table of mean scores on `test_holdout` and on the whole stream, with the mean difference (ours less
theirs) and its 95% t-interval, paired by seed, and of spend over budget. Exits with 1 if the engine is worse than the
recommended parameters at a budget, better at none, or its mean spend is off by more than 1%.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from online_stream import Quick, Run, Tasks, deployment, play, play_parts, unknown_models
from scipy.stats import t as student

from monkey_coder.models import Preferences
from monkey_coder.quantum.embedding import StaticEmbedder

COMPONENTS = 25
ALPHAS = (0.01, 0.02, 0.05, 0.1, 0.2)
FADES = (0.99, 0.997, 0.999, 1.0)
FIRST_TUNING_SEED = 1000
OURS, RECOMMENDED, TUNED = "engine", "paretobandit, as recommended", "paretobandit, tuned"
PREFERENCES = Preferences(quality=0.6, cost=0.3, latency=0.0)


@cache
def stream() -> tuple[Tasks, int, NDArray[np.float32]]:
    """The tasks of `val`, then those of `test_holdout`; how many the former are; and their embeddings."""
    from pareto_bandit.data import get_example_holdout_path, get_example_val_path

    parts = [
        [json.loads(line) for line in Path(path).read_text().split("\n") if line]
        for path in (get_example_val_path(), get_example_holdout_path())
    ]
    rows = [row for part in parts for row in part]
    models = registry()
    tasks = Tasks(
        prompts=[row["prompt"] for row in rows],
        refs=tuple(models),
        scores=np.array([[row["arms"][ref]["reward"] for ref in models] for row in rows]),
        cost_usd=np.array([[row["arms"][ref]["cost"] for ref in models] for row in rows]),
        input_usd=np.array([model["input_cost_per_m"] for model in models.values()]) / 1e6,
        output_usd=np.array([model["output_cost_per_m"] for model in models.values()]) / 1e6,
    )
    return tasks, len(parts[0]), StaticEmbedder.load().embed(tasks.prompts)


def registry() -> dict[str, dict[str, Any]]:
    """The models of the package, as it describes them."""
    import pareto_bandit

    path = Path(pareto_bandit.__file__).parent / "config" / "models.json"
    return {model["model_id"]: model for model in json.loads(path.read_text())["models"]}


def order_of(seed: int) -> NDArray[np.int64]:
    """Rows of the stream in the order of a seed."""
    tasks, first, _ = stream()
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.permutation(first), first + rng.permutation(len(tasks.prompts) - first)])


def ours(seed: int, budget: float, parts: bool) -> Run:
    """One run of the engine, or of its learning parts alone."""
    tasks, _, vectors = stream()
    if parts:
        return play_parts(tasks, order_of(seed), vectors, seed, budget)
    embedder = Quick(tasks.prompts, vectors)
    with deployment(unknown_models(tasks), embedder, seed, budget) as process:
        return play(tasks, order_of(seed), process, PREFERENCES)


@cache
def components() -> NDArray[np.float64]:
    """(N, 26) whitened components of the embedding, fitted to `val`, and 1."""
    _, first, vectors = stream()
    centred = vectors.astype(np.float64) - vectors[:first].mean(axis=0, dtype=np.float64)
    _, singular, right = np.linalg.svd(centred[:first], full_matrices=False)
    scale = np.sqrt(first - 1) / singular[:COMPONENTS]
    return np.hstack([centred @ right[:COMPONENTS].T * scale, np.ones((len(centred), 1))])


def theirs(seed: int, budget: float, alpha: float, fade: float, part: slice = slice(None)) -> Run:
    """One run of the bandit router, on a part of the stream."""
    from pareto_bandit import BanditRouter
    from pareto_bandit.budget_pacer import BudgetPacer, PacingMode
    from pareto_bandit.feature_service import FeatureService
    from pareto_bandit.storage import EphemeralContextStore

    logging.getLogger("pareto_bandit").setLevel(logging.CRITICAL)
    tasks, _, _ = stream()
    read, order = components(), order_of(seed)[part]
    router = BanditRouter.create(
        model_registry=registry(),
        feature_service=FeatureService.for_precomputed(read.shape[1]),
        context_store=EphemeralContextStore(),
        priors="none",
        alpha=alpha,
        forgetting_factor=fade,
        cost_penalty=0.0,
        budget_pacer=BudgetPacer(target_avg_spend_usd=budget, mode=PacingMode.ADAPTIVE),
        bandit_seed=seed,
    )
    chosen = np.empty(len(order), dtype=np.int64)
    for step, row in enumerate(order):
        model, log = router.route(read[row])
        chosen[step] = column = tasks.refs.index(model)
        log.cost_usd = float(tasks.cost_usd[row, column])
        router.process_feedback(log.request_id, reward=float(tasks.scores[row, column]))
    return Run(tasks.scores[order, chosen], tasks.cost_usd[order, chosen], chosen)


def tuned(budget: float, seeds: int) -> tuple[float, float]:
    """Alpha and forgetting factor with the highest mean score on `val`."""
    _, first, _ = stream()

    def score(pair: tuple[float, float]) -> float:
        runs = [theirs(FIRST_TUNING_SEED + seed, budget, *pair, slice(0, first)) for seed in range(seeds)]
        return float(np.mean([run.score.mean() for run in runs]))

    return max(product(ALPHAS, FADES), key=score)


def paired(difference: NDArray[np.float64]) -> tuple[float, float, float]:
    """Mean and 95% t-interval."""
    mean = float(difference.mean())
    half = float(student.ppf(0.975, len(difference) - 1) * difference.std(ddof=1) / np.sqrt(len(difference)))
    return mean, mean - half, mean + half


def summary(runs: list[Run], budget: float, first: int) -> dict[str, Any]:
    """Figures of one router at one budget."""
    return {
        "holdout": [float(run.score[first:].mean()) for run in runs],
        "stream": [float(run.score.mean()) for run in runs],
        "spend": [float(run.cost_usd.mean() / budget) for run in runs],
        "spend_holdout": [float(run.cost_usd[first:].mean() / budget) for run in runs],
    }


def main() -> int:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--tune-seeds", type=int, default=5)
    parser.add_argument("--budgets", type=float, nargs="+", help="USD a task; default: the package's own three")
    parser.add_argument("--parts", action="store_true", help="the learning parts of the engine alone")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if find_spec("pareto_bandit") is None:
        print("the package paretobandit is missing: pip install paretobandit", file=sys.stderr)
        return 2
    from pareto_bandit.config import BEST_K3_TABULA_RASA_HPARAMS as COLD
    from pareto_bandit.config import K3_BUDGET_TARGETS

    _, first, _ = stream()
    found: dict[str, Any] = {}
    print(
        "| budget | router | holdout | ours less theirs | stream | ours less theirs | spend / budget | on the holdout |"
    )
    print("|---|---|---|---|---|---|---|---|")
    with ProcessPoolExecutor(options.processes) as pool:
        for budget in options.budgets or K3_BUDGET_TARGETS:
            best = tuned(budget, options.tune_seeds)
            routers: dict[str, Callable[[int], Run]] = {
                OURS: partial(ours, budget=budget, parts=options.parts),
                RECOMMENDED: partial(theirs, budget=budget, alpha=COLD["alpha"], fade=COLD["forgetting_factor"]),
                f"{TUNED} (alpha {best[0]}, {best[1]})": partial(theirs, budget=budget, alpha=best[0], fade=best[1]),
            }
            rows = {
                name: summary(list(pool.map(run, range(options.seeds))), budget, first) for name, run in routers.items()
            }
            found[str(budget)] = rows
            for name, row in rows.items():
                print(line(budget, name, row, rows[OURS]), flush=True)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))
    return int(not holds(found))


def line(budget: float, name: str, row: dict[str, Any], own: dict[str, Any]) -> str:
    """A row of the table."""
    cells = [f"{budget:.2e}", name]
    for part in ("holdout", "stream"):
        less = "{:+.4f} [{:+.4f}, {:+.4f}]".format(*paired(np.subtract(own[part], row[part]))) if row is not own else ""
        cells += [f"{np.mean(row[part]):.4f}", less]
    cells.append(f"{np.mean(row['spend']):.3f} ({min(row['spend']):.3f} to {max(row['spend']):.3f})")
    cells.append(f"{np.mean(row['spend_holdout']):.3f}")
    return f"| {' | '.join(cells)} |"


def holds(found: dict[str, Any]) -> bool:
    """Whether the claims hold."""
    intervals = [paired(np.subtract(rows[OURS]["holdout"], rows[RECOMMENDED]["holdout"])) for rows in found.values()]
    near = all(abs(np.mean(rows[OURS]["spend"]) - 1.0) <= 0.01 for rows in found.values())
    return near and all(high >= 0.0 for _, _, high in intervals) and any(low > 0.0 for _, low, _ in intervals)


if __name__ == "__main__":
    sys.exit(main())
