"""The routers that `monkey-coder evaluate` knows by itself; the command adds the learned ones."""

from __future__ import annotations

from monkey_coder.evaluation.gary8d import Gary8D
from monkey_coder.evaluation.knn import Knn
from monkey_coder.evaluation.ladder import Ladder
from monkey_coder.evaluation.protocol import Routers
from monkey_coder.evaluation.routers import BestSingle, Cheapest, Random


def builtin_routers() -> Routers:
    """Every router by name; to add one is to add its factory to the mapping."""
    return {
        "random": lambda _: Random(),
        "cheapest": lambda _: Cheapest(),
        "best_single": lambda _: BestSingle(),
        "gary8d": lambda _: Gary8D(),
        "ladder": lambda _: Ladder(),
        "knn": lambda context: Knn(context.embedder()),
    }
