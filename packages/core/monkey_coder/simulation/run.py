"""One simulated life: day after day tasks come, are routed by every router, and outcomes come back late or never."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from monkey_coder.catalog.catalog import Catalog
from monkey_coder.models import (
    Attempt,
    Episode,
    ErrorType,
    ExecuteRequest,
    FeedbackRequest,
    Preferences,
    QuantumOptions,
    RouteRequest,
)
from monkey_coder.simulation.engine import BEGINNING_S, SimulatedEngine, catalog_of, heuristic, open_engine
from monkey_coder.simulation.oracle import Oracle
from monkey_coder.simulation.playing import Played, best_ladder, best_single, play_orders
from monkey_coder.simulation.tasks import SLOTS, Ints, Tasks, draw_tasks
from monkey_coder.simulation.traffic import CLASSES
from monkey_coder.simulation.world import HOURS, KINDS, NEWCOMER, World, draw_world, with_drift

ATTEMPTS: Final = 3
"""Calls that a caller makes at most for one task."""
CALL_S: Final = 60.0
"""Between two attempts at a task."""
HOUR_S: Final = 3600.0
OPTIONS: Final = QuantumOptions(timeout_ms=1000)

ENGINE, UNTOLD, ORACLE = "engine", "untold engine", "oracle"
SINGLE, LADDER, GARY8D = "best single", "best ladder", "gary8d"
Nightly = Callable[[SimulatedEngine, int], None]
"""Called after each day, with its number from 0."""


@dataclass
class Days:
    """What one router did, one row a day.

    Attributes:
        tasks: How many.
        solved: How many of them.
        spent_usd: In all.
        unanswered: Attempts that got no answer.
        utility: In all, in successes.
        regret: Utility of the oracle on the same tasks, less the router's own.
    """

    tasks: list[int] = field(default_factory=list)
    solved: list[int] = field(default_factory=list)
    spent_usd: list[float] = field(default_factory=list)
    unanswered: list[int] = field(default_factory=list)
    utility: list[float] = field(default_factory=list)
    regret: list[float] = field(default_factory=list)

    def add(self, tasks: Tasks, played: Played, best: Played) -> None:
        """Take in a day."""
        utility = float(played.utility(tasks).sum())
        self.tasks.append(len(tasks))
        self.solved.append(int(played.solved.sum()))
        self.spent_usd.append(float(played.spent_usd.sum()))
        self.unanswered.append(int(played.unanswered.sum()))
        self.utility.append(utility)
        self.regret.append(float(best.utility(tasks).sum()) - utility)


@dataclass(frozen=True)
class Life:
    """One world, and what every router did in it.

    Attributes:
        world: The world.
        routers: By name.
    """

    world: World
    routers: dict[str, Days]


def build_world(seed: int, days: int, tasks_per_day: int) -> World:
    """A world in which the model that serves best becomes worse, silently."""
    world = draw_world(seed, days, tasks_per_day)
    favourite = Oracle(world, ATTEMPTS).favourite(world.drift[1] * HOURS - 1)
    return with_drift(world, favourite)


def live(world: World, folder: Path, after_day: Callable[[int], None], nightly: Nightly | None = None) -> Life:
    """Live through a world.

    Args:
        world: The world.
        folder: An empty directory for the engine's store.
        after_day: Told of each day that has passed; each passes twice, for the engine that is told nothing.
        nightly: What else the engine does at the end of a day.
    """
    days = [draw_tasks(world, day) for day in range(world.days)]
    oracle = Oracle(world, ATTEMPTS)
    best = [play_orders(tasks, oracle.orders(tasks), ATTEMPTS) for tasks in days]
    routers = {ENGINE: _routed(world, days, folder / "told", after_day, nightly)}
    routers[UNTOLD] = _routed(world, days, folder / "untold", after_day, told=False)
    offered = world.first.present
    single, ladder = (choose(days, offered, ATTEMPTS) for choose in (best_single, best_ladder))
    nobody = [np.zeros(len(tasks), np.bool_) for tasks in days]
    routers[ORACLE] = best
    routers[SINGLE] = [
        play_orders(tasks, np.tile(single, (len(tasks), 1)), ATTEMPTS, never)
        for tasks, never in zip(days, nobody, strict=True)
    ]
    routers[LADDER] = [play_orders(tasks, np.tile(ladder, (len(tasks), 1)), ATTEMPTS) for tasks in days]
    routers[GARY8D] = [_by_heuristic(world, tasks) for tasks in days]
    told = {name: Days() for name in routers}
    for name, played in routers.items():
        for tasks, mine, theirs in zip(days, played, best, strict=True):
            told[name].add(tasks, mine, theirs)
    return Life(world, told)


def _routed(
    world: World,
    days: Sequence[Tasks],
    folder: Path,
    after_day: Callable[[int], None],
    nightly: Nightly | None = None,
    *,
    told: bool = True,
) -> list[Played]:
    folder.mkdir()
    rng = np.random.default_rng([world.seed, 2])
    with open_engine(published(world, 0), folder, ATTEMPTS, rng) as engine:
        caller = _Caller(engine, world, told=told)
        played = []
        for day, tasks in enumerate(days):
            played.append(caller.day(day, tasks))
            if nightly is not None:
                nightly(engine, day)
            after_day(day)
        return played


def published(world: World, hour: int) -> Catalog:
    """The catalog of an hour."""
    now = world.at(hour)
    offered = np.flatnonzero(now.present).tolist()
    return catalog_of({KINDS[model].ref: world.catalog_fields(model, now) for model in offered})


class _Caller:
    """Sends tasks to the engine, and reports what came of them when it is time, or never."""

    def __init__(self, engine: SimulatedEngine, world: World, *, told: bool) -> None:
        self._engine, self._world, self._told = engine, world, told
        self._due: list[tuple[float, int, FeedbackRequest]] = []
        self._sent = 0
        self._column = {kind.ref: model for model, kind in enumerate(KINDS)}

    def day(self, day: int, tasks: Tasks) -> Played:
        """Route the tasks of a day."""
        self._publish(day)
        played = Played.fresh(len(tasks))
        for hour in range(day * HOURS, (day + 1) * HOURS):
            self._wait_until(BEGINNING_S + hour * HOUR_S)
            for slot in range(SLOTS):
                rows = np.flatnonzero((tasks.hour == hour) & (tasks.slot == slot))
                self._route(tasks, rows, BEGINNING_S + (hour + slot / SLOTS) * HOUR_S, played)
        return played

    def _route(self, tasks: Tasks, rows: Ints, when: float, played: Played) -> None:
        """Route tasks that arrive together, until each has ended."""
        episodes: dict[int, list[Attempt]] = {row: [] for row in rows.tolist()}
        for turn in range(ATTEMPTS):
            if len(rows):
                self._wait_until(when + turn * CALL_S)
                self._attempt(tasks, rows, episodes, played)
                rows = rows[~played.ended[rows]]

    def _publish(self, day: int) -> None:
        """Do what operators do when a day begins: prices and models that are announced go into the catalog."""
        now = self._world.at(day * HOURS)
        for model, on in (self._world.cut, self._world.rise, (NEWCOMER, self._world.newcomer_day)):
            if on == day:
                self._engine.put_model(KINDS[model].ref, self._world.catalog_fields(model, now))

    def _wait_until(self, when: float) -> None:
        arrived = []
        while self._due and self._due[0][0] <= when:
            arrived.append(heapq.heappop(self._due)[2])
        self._engine.clock.now = when
        self._engine.tell(arrived)

    def _attempt(self, tasks: Tasks, rows: Ints, episodes: dict[int, list[Attempt]], played: Played) -> None:
        answers = self._engine.decide([_request(tasks, row, episodes[row]) for row in rows.tolist()])
        models = np.array([self._column[f"{a['provider']}/{a['model']}"] for a in answers], np.int64)
        answered = played.attempt(tasks, rows, models, ATTEMPTS, tasks.verified)
        for row, model, there, answer in zip(rows.tolist(), models.tolist(), answered.tolist(), answers, strict=True):
            good = bool(there and tasks.success[row, model])
            cost = float(tasks.cost_usd[row, model]) if there else 0.0
            error: ErrorType | None = None if there else "provider_error"
            episodes[row].append(
                Attempt(model=KINDS[model].ref, success=good, cost_usd=cost, error_type=error, decision_id=None)
            )
            if self._told and tasks.reported[row, model]:
                report = (
                    FeedbackRequest(
                        decision_id=answer["decision_id"],
                        success=good,
                        cost_usd=cost,
                        latency_ms=float(tasks.latency_s[row, model]) * 1e3,
                        input_tokens=int(tasks.input_tokens[row]),
                        output_tokens=int(tasks.output_tokens[row, model]),
                    )
                    if there
                    else FeedbackRequest(decision_id=answer["decision_id"], error_type="provider_error")
                )
                delay = float(tasks.delay_s[row, model]) if there else CALL_S / 2.0
                self._sent += 1
                heapq.heappush(self._due, (self._engine.clock.now + delay, self._sent, report))


def _request(tasks: Tasks, row: int, attempts: Sequence[Attempt]) -> RouteRequest:
    kind = CLASSES[tasks.kind[row]]
    episode = f"task-{tasks.hour[row]}-{row}" if tasks.verified[row] else None
    return RouteRequest(
        request=ExecuteRequest(
            prompt=tasks.prompts[row],
            task_type=kind.task_type,
            input_tokens=int(tasks.input_tokens[row]),
            expected_output_tokens=kind.output_tokens,
        ),
        preferences=Preferences(value_usd=kind.value_usd),
        episode=Episode(episode_id=episode, attempts=tuple(attempts)),
        quantum_config=OPTIONS,
    )


def _by_heuristic(world: World, tasks: Tasks) -> Played:
    """Gary8D, with the catalog of the day: it is asked anew for each attempt, and knows of no outage."""
    if not len(tasks):
        return Played.fresh(0)
    router = heuristic(published(world, int(tasks.hour[0])))
    column = {kind.ref: model for model, kind in enumerate(KINDS)}
    played = Played.fresh(len(tasks))
    episodes: dict[int, list[Attempt]] = {row: [] for row in range(len(tasks))}
    for _ in range(ATTEMPTS):
        rows = np.flatnonzero(~played.ended)
        chosen = [router.heuristic(_request(tasks, row, episodes[row])).ref for row in rows.tolist()]
        models = np.array([column[ref] for ref in chosen], np.int64)
        answered = played.attempt(tasks, rows, models, ATTEMPTS, tasks.verified)
        for row, ref, there in zip(rows.tolist(), chosen, answered.tolist(), strict=True):
            error: ErrorType | None = None if there else "provider_error"
            episodes[row].append(Attempt(model=ref, success=False, error_type=error))
    return played
