"""The simulated world: everything is drawn from its seed, whoever routes, and nobody beats the oracle."""

from __future__ import annotations

from dataclasses import fields, replace
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monkey_coder.simulation.oracle import Oracle, best_orders, expected_cost
from monkey_coder.simulation.playing import Played, best_ladder, best_single, play_orders
from monkey_coder.simulation.run import ATTEMPTS, build_world, published
from monkey_coder.simulation.tasks import Tasks, draw_tasks
from monkey_coder.simulation.traffic import CLASSES, LEVELS
from monkey_coder.simulation.world import (
    DRIFT_LOGITS,
    HOURS,
    KINDS,
    LUCK_SD,
    NEWCOMER,
    PRICE_CUT,
    PRICE_RISE,
    Outage,
    World,
    draw_world,
)

ALL = np.arange(len(KINDS)) != NEWCOMER


@pytest.fixture(scope="module")
def world() -> World:
    return build_world(3, days=20, tasks_per_day=150)


@pytest.fixture(scope="module")
def days(world: World) -> list[Tasks]:
    return [draw_tasks(world, day) for day in range(6)]


def columns(tasks: Tasks) -> dict[str, object]:
    return {field.name: getattr(tasks, field.name) for field in fields(tasks)}


def test_a_seed_says_everything_and_another_says_something_else(world: World) -> None:
    again, other = build_world(3, 20, 150), build_world(4, 20, 150)
    assert again.described() == world.described() != other.described()
    for name, value in columns(draw_tasks(world, 2)).items():
        assert np.array_equal(value, columns(draw_tasks(again, 2))[name]), name
    assert draw_tasks(world, 2).prompts != draw_tasks(other, 2).prompts
    assert not np.array_equal(world.first.skill, other.first.skill)


def test_prices_models_and_skills_change_when_they_are_said_to(world: World) -> None:
    before, after = world.at(0), world.at(20 * HOURS)
    changed = {model: after.prices[model, 0] / before.prices[model, 0] for model in range(len(KINDS))}
    assert changed.pop(world.cut[0]) == pytest.approx(PRICE_CUT)
    assert changed.pop(world.rise[0]) == pytest.approx(PRICE_RISE)
    assert set(changed.values()) == {1.0}
    assert not before.present[NEWCOMER]
    assert after.present.all()
    gone = after.skill - before.skill
    assert gone[:, world.drift[0]] == pytest.approx(np.full(len(CLASSES), DRIFT_LOGITS))
    assert np.count_nonzero(gone.any(axis=0)) == 1
    last_before = world.at(world.drift[1] * HOURS - 1)
    assert np.array_equal(last_before.skill, before.skill)


def test_the_catalog_says_what_is_published_and_never_the_truth(world: World) -> None:
    first, later = published(world, 0), published(world, 20 * HOURS - 1)
    assert later.refs == (*first.refs, KINDS[NEWCOMER].ref)
    for catalog in (first, later):
        table = catalog.table()
        for ref, column in table.index.items():
            told = world.published[[kind.ref for kind in KINDS].index(ref)]
            assert table.success[:, column] == pytest.approx(np.full(len(table.success), told), abs=1e-3)
    cheaper = KINDS[world.cut[0]].ref
    assert later.get(cheaper).prices.output_usd == pytest.approx(PRICE_CUT * first.get(cheaper).prices.output_usd)


def test_a_provider_that_is_down_answers_nobody(world: World) -> None:
    outage = world.outages[0]
    there = [kind.ref.startswith(f"{outage.provider}/") for kind in KINDS]
    assert world.at(outage.first_hour).down[there].all()
    assert world.at(outage.end_hour - 1).down[there].all()
    others = {o.provider for o in world.outages if o.first_hour <= outage.first_hour < o.end_hour}
    silent = [kind.ref.partition("/")[0] in others for kind in KINDS]
    assert np.array_equal(world.at(outage.first_hour).down, silent)


def test_tasks_succeed_as_often_as_the_world_says() -> None:
    quiet = replace(draw_world(5, 30, 4_000), outages=())
    tasks = draw_tasks(quiet, 0)
    rng = np.random.default_rng(0)
    luck = rng.normal(0.0, LUCK_SD, 20_000)
    for model in (0, 4, 7):
        for kind in (0, 3):
            rows = (tasks.kind == kind) & (tasks.level == 1)
            logit = quiet.first.skill[kind, model] + LEVELS[1][2] + luck
            expected = float(np.mean(1.0 / (1.0 + np.exp(-logit))))
            seen = tasks.success[rows, model]
            assert seen.mean() == pytest.approx(expected, abs=4.0 * np.sqrt(0.25 / len(seen)))
    mean = tasks.cost_usd[tasks.kind == 1].mean(axis=0)
    assert mean == pytest.approx(expected_cost(quiet.first)[1], rel=0.1)


def test_prompts_tell_their_class_and_level_apart(world: World) -> None:
    tasks = draw_tasks(world, 1)
    by_prompt: dict[str, set[tuple[int, int]]] = {}
    for said, kind, level in zip(tasks.prompts, tasks.kind.tolist(), tasks.level.tolist(), strict=True):
        by_prompt.setdefault(said, set()).add((kind, level))
    assert all(len(meant) == 1 for meant in by_prompt.values())
    assert len(by_prompt) > 0.7 * len(tasks)  # and hardly ever come twice


def test_the_oracle_plans_as_well_as_trying_every_order_by_chance() -> None:
    now = build_world(6, 10, 10).at(0)
    rng = np.random.default_rng(1)
    draws = 40_000
    luck, dice = rng.normal(0.0, LUCK_SD, draws), rng.random((draws, len(KINDS)))
    kind, level = 3, 2
    good = dice < 1.0 / (1.0 + np.exp(-(now.skill[kind] + LEVELS[level][2] + luck[:, None])))
    cost = expected_cost(now)[kind] / CLASSES[kind].value_usd

    def worth(order: tuple[int, ...]) -> float:
        value, still_open = np.zeros(draws), np.ones(draws, np.bool_)
        for model in order:
            value += still_open * (good[:, model] - cost[model])
            still_open &= ~good[:, model]
        return float(value.mean())

    offered = [model for model in range(len(KINDS)) if now.present[model]]
    best = max(worth(order) for order in permutations(offered, 2))
    planned = tuple(best_orders(now, 2)[kind, level].tolist())
    assert worth(planned) == pytest.approx(best, abs=0.004)


def test_nobody_beats_the_oracle_on_average(world: World, days: list[Tasks]) -> None:
    oracle = Oracle(world, ATTEMPTS)

    def total(played: list[Played]) -> float:
        return sum(float(each.utility(tasks).sum()) for each, tasks in zip(played, days, strict=True))

    best = total([play_orders(tasks, oracle.orders(tasks), ATTEMPTS) for tasks in days])
    for model in np.flatnonzero(ALL):
        alone = [play_orders(tasks, np.full((len(tasks), 1), model), ATTEMPTS) for tasks in days]
        assert total(alone) < best
    ladder = best_ladder(days, ALL, ATTEMPTS)
    assert total([play_orders(tasks, np.tile(ladder, (len(tasks), 1)), ATTEMPTS) for tasks in days]) < best


def test_the_model_that_gets_worse_is_the_one_that_serves_best(world: World) -> None:
    day = world.drift[1]
    oracle = Oracle(world, ATTEMPTS)
    tasks = draw_tasks(world, day - 1)
    first = np.bincount(oracle.orders(tasks)[:, 0], minlength=len(KINDS))
    assert first[world.drift[0]] == first.max()


def test_the_best_single_model_and_ladder_are_found_by_looking_back(days: list[Tasks]) -> None:
    worth = [0.0] * (len(KINDS) - 1)
    for model in range(len(worth)):
        worth[model] = sum(float((d.success[:, model] - d.cost_usd[:, model] / d.value_usd).sum()) for d in days)
    assert best_single(days, ALL, 2).tolist() == np.argsort(worth)[::-1][:2].tolist()
    few = np.isin(np.arange(len(KINDS)), (1, 4, 6))
    ladder = tuple(best_ladder(days, few, 2).tolist())

    def total(order: tuple[int, ...]) -> float:
        played = [play_orders(d, np.tile(order, (len(d), 1)), 2) for d in days]
        return sum(float(p.utility(d).sum()) for p, d in zip(played, days, strict=True))

    assert total(ladder) == max(total(order) for order in permutations((1, 4, 6), 2))


@given(st.data())
@settings(max_examples=50)
def test_a_caller_pays_for_answers_and_stops_at_the_first_good_one(data: st.DataObject) -> None:
    tasks = _TASKS
    most = data.draw(st.integers(1, 4))
    orders = np.array(
        data.draw(st.lists(st.lists(st.integers(0, len(KINDS) - 1), min_size=4, max_size=4), min_size=1, max_size=4))
    )
    orders = orders[np.arange(len(tasks)) % len(orders)]
    played = play_orders(tasks, orders, most)
    for row in range(len(tasks)):
        spent, solved, calls = 0.0, False, 0
        for model in orders[row, :most]:
            calls += 1
            if tasks.down[row, model]:
                continue
            spent += tasks.cost_usd[row, model]
            solved = bool(tasks.success[row, model])
            if solved or not tasks.verified[row]:
                break
        assert (played.solved[row], played.calls[row]) == (solved, calls)
        assert played.spent_usd[row] == pytest.approx(spent)
        assert played.utility(tasks)[row] == pytest.approx(solved - spent / tasks.value_usd[row])


_TASKS = draw_tasks(replace(draw_world(1, 3, 40), outages=(Outage("cobalt", 8, 18), Outage("aster", 12, 24))), 0)
