"""Learning from single outcomes in made-up worlds: means, contexts, costs, breakdowns, new models, corrections."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from builders import Model, table

from monkey_coder.models import TASK_TYPES
from monkey_coder.quantum.context_map import ContextMap
from monkey_coder.quantum.model_evidence import OnlineOptions
from monkey_coder.quantum.online_model import Lesson, LiveEstimate, OnlineModel
from monkey_coder.quantum.text_marks import text_marks

CONTEXTS = ContextMap.of(8)
BASE = table(*(Model(f"made/{name}", success=0.5, evidence=1.0) for name in "abc"))
PROMPT = "Why does our cache return stale entries after a restart? Look at the loader and the two tests that fail. " * 3
GENERAL = TASK_TYPES.index("general")


def states(rng: np.random.Generator, count: int) -> np.ndarray:
    """(count, S) requests that differ in their embedding alone."""
    out = np.zeros((count, CONTEXTS.layout.size), np.float32)
    points = rng.standard_normal((count, 8))
    out[:, :8] = points / np.linalg.norm(points, axis=1, keepdims=True)
    out[:, CONTEXTS.layout.marks : CONTEXTS.layout.task] = text_marks([PROMPT])
    out[:, CONTEXTS.layout.task + GENERAL] = 1.0
    return out


def lesson(ref: str, state: np.ndarray, score: float | None, **more) -> Lesson:
    return Lesson(ref, CONTEXTS.read(state[None])[0], **({"prior": 0.5, "worth": 1.0, "score": score} | more))


def taught(*rounds: tuple[str, int, float], seed: int = 0, options: OnlineOptions | None = None) -> OnlineModel:
    """A model that saw so many outcomes of each model in turn, all requests alike, with a chance of success."""
    rng = np.random.default_rng(seed)
    model = OnlineModel(CONTEXTS, options)
    for turn, (ref, count, chance) in enumerate(rounds):
        for place, state in enumerate(states(rng, count)):
            model.learn(f"{turn} {place}", lesson(ref, state, float(rng.random() < chance)))
    return model


def chances(model: OnlineModel, base=BASE, count: int = 50) -> np.ndarray:
    """(M,) mean P(success) over fresh requests."""
    estimate = model.estimate(base)
    assert estimate is not None
    return expect(estimate, states(np.random.default_rng(99), count))[0].mean(axis=0)


def expect(estimate: LiveEstimate, rows: np.ndarray, cost: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    return estimate.expect(rows, np.full(len(rows), GENERAL), np.full((len(rows), len(estimate.refs)), cost))


def test_before_the_first_outcome_it_knows_nothing() -> None:
    model = OnlineModel(CONTEXTS)
    assert model.estimate(BASE) is None
    model.learn("says nothing", lesson("made/a", states(np.random.default_rng(0), 1)[0], None))
    assert model.estimate(BASE) is None


def test_it_finds_what_each_model_can_do() -> None:
    found = chances(taught(("made/a", 300, 0.9), ("made/b", 300, 0.3)))
    np.testing.assert_allclose(found[:2], [0.9, 0.3], atol=0.08)
    assert found[1] < found[2] < found[0]  # nobody saw c: it is like the others


def test_a_sure_catalog_is_believed_longer() -> None:
    rng = np.random.default_rng(1)
    moved = {}
    for worth in (1.0, 10.0):
        model = OnlineModel(CONTEXTS)
        for place, state in enumerate(states(rng, 5)):
            model.learn(str(place), lesson("made/a", state, 0.0, worth=worth, prior=0.5))
        moved[worth] = 0.5 - chances(model)[:2]
    assert moved[1.0][0] > moved[10.0][0] > 0.05
    assert moved[10.0][1] < 0.25 * moved[10.0][0]


def test_it_learns_which_requests_a_model_is_good_at() -> None:
    rng = np.random.default_rng(2)
    rows = states(rng, 900)
    model = OnlineModel(CONTEXTS)
    good = rows[:, 0] > 0.0
    for place, (state, able) in enumerate(zip(rows, good, strict=True)):
        ref = ("made/a", "made/b")[place % 2]
        chance = 0.9 if able == (ref == "made/a") else 0.2
        model.learn(str(place), lesson(ref, state, float(rng.random() < chance)))
    fresh = states(rng, 300)
    success, _ = expect(model.estimate(BASE), fresh)
    right = (success[:, 0] > success[:, 1]) == (fresh[:, 0] > 0.0)
    assert right.mean() > 0.85


def test_outcomes_after_failures_do_not_make_a_model_look_worse_than_it_is() -> None:
    rng = np.random.default_rng(4)
    chance = 1.0 / (1.0 + np.exp(2.0 * 0.8) * 0.2 / 0.8)  # 0.8, after a failure of a model that was given 0.8
    found = {}
    for given in (0.0, 0.8):
        model = OnlineModel(CONTEXTS)
        for place, state in enumerate(states(rng, 400)):
            model.learn(str(place), lesson("made/a", state, float(rng.random() < chance), prior=0.8, given=given))
        found[given] = chances(model, table(Model("made/a", success=0.8, evidence=1.0)))[0]
        assert model.estimate(BASE).of(table(Model("made/new"))).setback_logits == pytest.approx(2.0, abs=0.7)
    assert found[0.0] < chance + 0.1
    assert found[0.8] > 0.7


def test_specialities_by_type_of_task_are_found_within_some_forty_outcomes() -> None:
    rng = np.random.default_rng(11)
    model = OnlineModel(CONTEXTS)
    for place, state in enumerate(states(rng, 160)):
        if place % 2:
            state[CONTEXTS.layout.task :][: len(TASK_TYPES)] = 0.0
            state[CONTEXTS.layout.task] = 1.0
        ref = ("made/a", "made/b")[place // 2 % 2]
        chance = 0.9 if (place % 2 == 1) == (ref == "made/a") else 0.3
        model.learn(str(place), lesson(ref, state, float(rng.random() < chance)))
    here, there = states(rng, 50), states(rng, 50)
    there[:, CONTEXTS.layout.task : CONTEXTS.layout.task + len(TASK_TYPES)] = 0.0
    there[:, CONTEXTS.layout.task] = 1.0
    estimate = model.estimate(BASE)
    assert expect(estimate, here)[0][:, 1].mean() > expect(estimate, here)[0][:, 0].mean() + 0.2
    assert expect(estimate, there)[0][:, 0].mean() > expect(estimate, there)[0][:, 1].mean() + 0.2


def test_costs_are_learned_and_calibrated() -> None:
    rng = np.random.default_rng(3)
    model = OnlineModel(CONTEXTS)
    for place, state in enumerate(states(rng, 600)):
        usd = 0.02 * np.exp(0.8 * np.sign(state[0]) + 0.3 * rng.standard_normal())
        model.learn(str(place), lesson("made/a", state, 1.0, cost_usd=float(usd), expected_usd=0.01))
    fresh = states(rng, 400)
    _, cost = expect(model.estimate(BASE), fresh, 0.01)
    true = 0.02 * np.exp(0.8 * np.sign(fresh[:, 0]) + 0.5 * 0.3**2)
    assert cost[:, 0].mean() == pytest.approx(true.mean(), rel=0.1)
    assert np.corrcoef(np.log(cost[:, 0]), np.log(true))[0, 1] > 0.7


def test_a_model_without_reported_costs_keeps_the_catalogs() -> None:
    _, cost = expect(taught(("made/a", 50, 0.9)).estimate(BASE), states(np.random.default_rng(0), 5), 0.25)
    np.testing.assert_allclose(cost, 0.25, rtol=1e-6)


def test_a_model_that_breaks_is_noticed_within_some_ten_outcomes_and_tried_again_later() -> None:
    model = taught(("made/b", 300, 0.8), ("made/a", 300, 0.95))
    rng = np.random.default_rng(5)
    for place, state in enumerate(states(rng, 20)):
        model.learn(f"broken {place}", lesson("made/a", state, 0.0))
    broken = chances(model)
    assert broken[0] < broken[1] - 0.1
    for place, state in enumerate(states(rng, 800)):
        model.learn(f"others {place}", lesson("made/b", state, float(rng.random() < 0.8)))
    assert chances(model)[0] > broken[0] + 0.1


def test_chance_alone_moves_no_level() -> None:
    estimate = taught(("made/a", 2000, 0.7)).estimate(BASE)
    assert abs(float(estimate.level[0])) < 0.06


def test_optimism_goes_to_those_with_few_outcomes_and_to_nobody_while_there_are_none() -> None:
    estimate = taught(("made/a", 200, 0.9), ("made/b", 5, 0.9)).estimate(BASE)
    a, b, c = estimate.optimism
    assert a == 0.0 < b < c <= OnlineOptions().optimism
    assert estimate.seen[0] > 150
    np.testing.assert_allclose(estimate.with_optimism(3.0).optimism, 3.0 * estimate.optimism, rtol=1e-6)


def test_a_correction_counts_instead_of_what_it_corrects() -> None:
    rng = np.random.default_rng(6)
    rows = states(rng, 40)
    wrong, right = OnlineModel(CONTEXTS), OnlineModel(CONTEXTS)
    for place, state in enumerate(rows):
        wrong.learn(str(place), lesson("made/a", state, 0.0 if place < 10 else 1.0))
        right.learn(str(place), lesson("made/a", state, 1.0))
    for place, state in enumerate(rows[:10]):
        wrong.learn(str(place), lesson("made/a", state, 1.0))
        wrong.learn(str(place), lesson("made/a", state, None))
    assert chances(wrong)[0] == pytest.approx(chances(right)[0], abs=0.05)


def test_cost_first_and_score_later_is_one_outcome() -> None:
    rng = np.random.default_rng(11)
    rows, paid = states(rng, 60), {"cost_usd": 0.03, "expected_usd": 0.01}
    apart, together, half = OnlineModel(CONTEXTS), OnlineModel(CONTEXTS), OnlineModel(CONTEXTS)
    for place, state in enumerate(rows):
        apart.learn(str(place), lesson("made/a", state, None, **paid))
        apart.learn(str(place), lesson("made/a", state, 0.9, further=True))
        together.learn(str(place), lesson("made/a", state, 0.9, **paid))
        half.learn(str(place), lesson("made/a", state, 0.9))
        half.learn(str(place), lesson("made/a", state, 0.9, further=True, **paid))
    whole = together.estimate(BASE)
    for other in (apart.estimate(BASE), half.estimate(BASE)):
        assert other.seen[0] == pytest.approx(whole.seen[0])
        for got, wanted in zip(expect(other, rows), expect(whole, rows), strict=True):
            np.testing.assert_allclose(got[:, 0], wanted[:, 0], atol=0.05)


def test_a_corrected_cost_counts_instead_of_the_first() -> None:
    rows = states(np.random.default_rng(12), 60)
    wrong, corrected = OnlineModel(CONTEXTS), OnlineModel(CONTEXTS)
    for model in (wrong, corrected):
        for place, state in enumerate(rows):
            model.learn(str(place), lesson("made/a", state, 1.0, cost_usd=0.1, expected_usd=0.01))
    for place, state in enumerate(rows):
        corrected.learn(str(place), lesson("made/a", state, 1.0, cost_usd=0.02, expected_usd=0.01, further=True))
    believed, now = (expect(model.estimate(BASE), rows, 0.01)[1][:, 0].mean() for model in (wrong, corrected))
    assert believed == pytest.approx(0.1, rel=0.1)
    assert now == pytest.approx(0.02, rel=0.5)


def test_a_correction_of_what_is_forgotten_is_no_new_outcome_and_one_of_what_said_nothing_is() -> None:
    model = taught(("made/a", 30, 1.0))
    before = model.estimate(BASE)
    state = states(np.random.default_rng(0), 1)[0]
    model.learn("never heard of", lesson("made/a", state, 0.0, further=True))
    np.testing.assert_array_equal(model.estimate(BASE).seen, before.seen)
    model.learn("an error", lesson("made/a", state, None))
    model.learn("an error", lesson("made/a", state, 0.0, further=True))
    assert model.estimate(BASE).seen[0] > before.seen[0]


def test_many_at_once_teach_what_each_teaches_alone() -> None:
    rng = np.random.default_rng(13)
    told = [
        (str(place % 190), lesson(("made/a", "made/b")[place % 2], state, float(rng.random() < 0.6), cost_usd=0.02))
        for place, state in enumerate(states(rng, 200))
    ]
    one_by_one, at_once = OnlineModel(CONTEXTS), OnlineModel(CONTEXTS)
    for identity, each in told:
        one_by_one.learn(identity, each)
    at_once.learn_all(told)
    rows = states(rng, 20)
    for got, wanted in zip(expect(at_once.estimate(BASE), rows), expect(one_by_one.estimate(BASE), rows), strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-5)


def test_the_same_outcome_twice_counts_once() -> None:
    once, twice = taught(("made/a", 30, 0.2)), taught(("made/a", 30, 0.2))
    state = states(np.random.default_rng(8), 1)[0]
    once.learn("x", lesson("made/a", state, 0.0))
    for _ in range(5):
        twice.learn("x", lesson("made/a", state, 0.0))
    np.testing.assert_array_equal(chances(once), chances(twice))


def test_no_reporter_outweighs_all_others_once_there_are_two() -> None:
    rng = np.random.default_rng(9)
    alone, shared = OnlineModel(CONTEXTS), OnlineModel(CONTEXTS)
    for model, honest in ((alone, False), (shared, True)):
        for place, state in enumerate(states(rng, 300)):
            if honest and place % 3 == 0:
                model.learn(f"honest {place}", lesson("made/a", state, 1.0, reporter="honest"))
            model.learn(f"liar {place}", lesson("made/a", state, 0.0, reporter="liar"))
    assert chances(alone)[0] < 0.1
    assert chances(shared)[0] > 0.35


def test_another_catalog_keeps_what_is_known_and_gives_new_models_what_all_have_in_common() -> None:
    model = taught(("made/a", 200, 0.9), ("made/b", 200, 0.9))
    estimate = model.estimate(BASE)
    wider = table(
        Model("made/new", success=0.5, evidence=1.0), *(Model(ref, success=0.5, evidence=1.0) for ref in BASE.refs[1:])
    )
    rows = states(np.random.default_rng(1), 30)
    at_once, later = estimate.of(wider), model.estimate(wider)
    assert estimate.of(BASE) is estimate
    for got, solved in zip(expect(at_once, rows), expect(later, rows), strict=True):
        np.testing.assert_allclose(got, solved, atol=0.02)
    assert expect(at_once, rows)[0][:, 0].mean() > 0.7
    assert at_once.optimism[0] > at_once.optimism[1]


def test_only_so_many_outcomes_can_be_corrected() -> None:
    model = taught(("made/a", 10, 1.0), options=replace(OnlineOptions(), remembered=3))
    before = chances(model)[0]
    state = states(np.random.default_rng(0), 1)[0]
    model.learn("0 0", lesson("made/a", state, 0.0))  # forgotten, so it counts as a new one
    assert chances(model)[0] < before
