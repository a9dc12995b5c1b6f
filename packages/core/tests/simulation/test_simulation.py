"""The real engine in the simulated world: it learns there, and knows only what callers could tell it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders import ask
from matplotlib.image import imread
from scipy.stats import ttest_1samp

from monkey_coder.commands.app import run as run_command
from monkey_coder.models import FeedbackRequest
from monkey_coder.quantum.learner_status import read_status
from monkey_coder.quantum.log_training import LogOptions
from monkey_coder.simulation.engine import SimulatedEngine, open_engine
from monkey_coder.simulation.night import learning
from monkey_coder.simulation.report import Report
from monkey_coder.simulation.run import (
    ATTEMPTS,
    ENGINE,
    GARY8D,
    ORACLE,
    UNTOLD,
    Days,
    Life,
    build_world,
    live,
    published,
)
from monkey_coder.simulation.world import KINDS, NEWCOMER, Outage, World, draw_world

QUICK = ("--days", "3", "--tasks-per-day", "25", "--seeds", "1", "--no-learn")


class Witness:
    """Looks at the engine after each day."""

    def __init__(self) -> None:
        self.refs: list[tuple[str, ...]] = []
        self.prices: list[Mapping[str, float]] = []
        self.outcomes: list[int] = []

    def __call__(self, engine: SimulatedEngine, day: int) -> None:
        table = engine.live().table
        self.refs.append(table.refs)
        self.prices.append(dict(zip(table.refs, table.output_usd.tolist(), strict=True)))
        self.outcomes.append(len(engine.store.read_outcomes("0", 10_000)))


@pytest.fixture(scope="module")
def world() -> World:
    """What is published of the models is all wrong: the best are said to be the worst."""
    drawn = draw_world(13, days=5, tasks_per_day=70)
    return replace(drawn, published=drawn.published[::-1].copy(), outages=())


@pytest.fixture(scope="module")
def lived(world: World, tmp_path_factory: pytest.TempPathFactory) -> tuple[Life, Witness]:
    witness = Witness()
    return live(world, tmp_path_factory.mktemp("life"), lambda _: None, witness), witness


def test_outcomes_teach_what_the_catalog_has_wrong(lived: tuple[Life, Witness]) -> None:
    routers = lived[0].routers
    late = {name: sum(days.regret[1:]) for name, days in routers.items()}
    assert late[ENGINE] < 0.6 * late[UNTOLD]
    assert late[ENGINE] < 0.6 * late[GARY8D]
    assert late[ORACLE] == 0.0
    assert len({tuple(days.tasks) for days in routers.values()}) == 1  # all had the same tasks


def test_the_engine_follows_the_catalog_while_it_runs(world: World, lived: tuple[Life, Witness]) -> None:
    _, witness = lived
    newcomer = KINDS[NEWCOMER].ref
    for day, refs in enumerate(witness.refs):
        assert (newcomer in refs) == (day >= world.newcomer_day)
    model, on = KINDS[world.cut[0]].ref, world.cut[1]
    assert witness.prices[on][model] == pytest.approx(0.5 * witness.prices[on - 1][model])


def test_reports_come_late_and_some_never(world: World, lived: tuple[Life, Witness]) -> None:
    life, witness = lived
    assert all(later > earlier for earlier, later in zip(witness.outcomes, witness.outcomes[1:], strict=False))
    tasks = np.cumsum(life.routers[ENGINE].tasks)
    assert witness.outcomes[0] < tasks[0] * 1.2
    assert witness.outcomes[-1] < tasks[-1] * 1.5  # attempts are more than tasks, and not all are reported


def test_the_same_seed_gives_the_same_life(tmp_path: Path) -> None:
    lives = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        lives.append(live(build_world(2, 2, 20), tmp_path / name, lambda _: None))
    assert lives[0].routers == lives[1].routers


def test_a_provider_that_is_down_costs_attempts_and_no_money(tmp_path: Path) -> None:
    """All but one of the providers are down all the second day: every solution then comes from that one."""
    calm = replace(draw_world(4, 2, 40), outages=())
    gone = [Outage(name, 24, 48) for name in ("borealis", "aster", "cobalt", "ember")]
    routers = live(replace(calm, outages=tuple(gone)), tmp_path, lambda _: None).routers
    assert routers[ENGINE].unanswered[0] == routers[ORACLE].unanswered[1] == 0
    assert 0 < routers[ENGINE].unanswered[1] < routers[GARY8D].unanswered[1]
    assert routers[ENGINE].solved[1] > routers[GARY8D].solved[1]
    dearest = max(kind.output_mtok for kind in KINDS if kind.ref.startswith("dune/"))
    most_tokens = 12_000  # of an answer, with room: no price above that of the one that is left was paid
    assert routers[ENGINE].spent_usd[1] < 3 * routers[ENGINE].tasks[1] * 2 * most_tokens * dearest / 1e6


def test_a_night_is_one_cycle_of_the_learner_on_what_the_engine_was_told(tmp_path: Path) -> None:
    """With so few outcomes there is nothing to train on yet, which is what the learner says."""
    said: list[str] = []
    night = learning(0, said.append, LogOptions(least_new=10))
    rng = np.random.default_rng(0)
    with open_engine(published(build_world(1, 2, 25), 0), tmp_path, ATTEMPTS, rng) as engine:
        for day in range(2):
            asked = [ask(f"Fix the {word} of the parser") for word in ("race", "leak", "crash", "loop", "lexer", "bug")]
            answers = engine.decide(asked)
            engine.clock.now += 3600.0
            engine.tell([FeedbackRequest(decision_id=answer["decision_id"], success=True) for answer in answers])
            night(engine, day)
            status = read_status(engine.store)
            assert status is not None
            assert status.counts["outcomes"] == 6 * (day + 1)
        assert engine.live().policy_version is None
    assert said[0] == "night 1: reading the outcomes so far"
    assert any(line.startswith("night 2: too little to learn from") for line in said)


def days_of(regret: list[float], solved: int = 5) -> Days:
    count = len(regret)
    return Days(
        [10] * count, [solved] * count, [0.5] * count, [0] * count, [4.0] * count, [10 * value for value in regret]
    )


def a_report(*regrets: list[float]) -> Report:
    world = draw_world(0, len(regrets[0]), 10)
    return Report(tuple(Life(world, {ENGINE: days_of(regret), ORACLE: days_of([0.0] * 4)}) for regret in regrets))


def test_intervals_over_seeds_are_those_of_the_textbook() -> None:
    report = a_report([0.4, 0.3, 0.2, 0.1], [0.6, 0.3, 0.2, 0.3], [0.5, 0.1, 0.2, 0.2], [0.1, 0.1, 0.1, 0.2])
    mean, half = report.daily(ENGINE, "regret")
    assert half is not None
    for day in range(4):
        told = ttest_1samp(report.figure(ENGINE, "regret")[:, day], 0.0).confidence_interval(0.95)
        assert (mean[day] - half[day], mean[day] + half[day]) == pytest.approx((told.low, told.high))
    change = report.change(ENGINE, "regret")
    assert change.value == pytest.approx(0.8 / 1.6 - 1.0)
    assert change.low is not None
    assert change.high is not None
    assert change.low < change.value < change.high
    assert report.change(ENGINE, "regret", 2).value == pytest.approx((0.15 + 0.25 + 0.2 + 0.15) / 1.2 - 1.0)
    assert report.change(ENGINE, "success_per_usd").value == 0.0
    assert report.figure(ENGINE, "success_per_usd")[0].tolist() == [10.0] * 4


def test_two_seeds_are_too_few_for_an_interval() -> None:
    report = a_report([0.4, 0.3, 0.2, 0.1], [0.6, 0.3, 0.2, 0.3])
    assert report.daily(ENGINE, "regret")[1] is None
    assert report.change(ENGINE, "regret").low is None
    assert report.as_json()["routers"][ENGINE]["regret"]["low"] is None


def test_the_command_writes_figures_and_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures, picture = tmp_path / "month.json", tmp_path / "month.png"
    code = run_command(["simulate", *QUICK, "--report", "--json", str(figures), "--plot", str(picture)])
    said = capsys.readouterr().out
    assert code == 0
    for words in ("3 days, about 25 tasks a day; seeds 0", "best ladder", "day 3 against day 1", "day by day"):
        assert words in said
    told = json.loads(figures.read_text())
    assert told["seeds"] == [0]
    assert set(told["routers"]) >= {"engine", "oracle", "best single", "best ladder", "gary8d"}
    assert len(told["routers"]["engine"]["regret"]["mean"]) == 3
    assert imread(picture).shape[0] > 300


def test_the_learner_takes_part_where_it_is_asked_to(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["simulate", "--days", "2", "--tasks-per-day", "4", "--seeds", "1", "--learn"]) == 0
    told = capsys.readouterr()
    assert "night 2: reading the outcomes so far" in told.err
    assert "2 days, about 4 tasks a day" in told.out


@pytest.mark.parametrize(
    "wrong",
    [
        ["--days", "1"],
        ["--seeds", "0"],
        ["--tasks-per-day", "many"],
        ["--plot", "."],
        ["--json", "no/folder/here.json"],
    ],
)
def test_bad_usage_ends_with_two(wrong: list[str]) -> None:
    assert run_command(["simulate", *wrong]) == 2
