"""What happens at night: the learner trains in the same process, by the rules by which it trains in a deployment."""

from __future__ import annotations

import threading
from collections.abc import Callable

from monkey_coder.catalog.table import ModelTable
from monkey_coder.learner import learn
from monkey_coder.learning import Workshop
from monkey_coder.quantum.log_training import LogOptions, LogTrainer
from monkey_coder.simulation.engine import SimulatedEngine

OWNER = "simulation"


def learning(
    seed: int, tell: Callable[[str], None], options: LogOptions | None = None
) -> Callable[[SimulatedEngine, int], None]:
    """Make what an engine does each night: one cycle of the learner, and serving what it published.

    Args:
        seed: Of training.
        tell: Told what happens, a line each.
        options: How to learn; None: as in a deployment.
    """

    def night(engine: SimulatedEngine, day: int) -> None:
        def table() -> ModelTable:
            return engine.live().table

        def say(line: str) -> None:
            tell(f"night {day + 1}: {line}")

        shop = Workshop(
            store=engine.store,
            make_trainer=lambda: LogTrainer(table(), options or LogOptions(), seed, engine.clock),
            table=table,
            tell=say,
            stop=threading.Event(),
            now=engine.clock,
            clock=engine.clock,
        )
        learn(shop, OWNER, once=True)
        engine.policies.look()

    return night
