"""Several reporters and one model of what they say: who moves what, and by how much."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from builders import CHEAP, DEAR, table
from hypothesis import given
from hypothesis import strategies as st

from monkey_coder.catalog.table import ModelTable
from monkey_coder.models import TASK_TYPES
from monkey_coder.quantum.context_map import ContextMap
from monkey_coder.quantum.model_evidence import OnlineOptions
from monkey_coder.quantum.online_model import Lesson, LiveEstimate, OnlineModel
from monkey_coder.quantum.state_encoder import StateLayout
from monkey_coder.quantum.voices import MOST_VOICES, MixedEstimate, Voices

DIMENSIONS = 8
CONTEXTS = ContextMap.of(DIMENSIONS)
TABLE = table()
STATES = np.random.default_rng(5).standard_normal((6, StateLayout(DIMENSIONS).size)).astype(np.float32)
TASK = np.zeros(len(STATES), np.int64)
COST = np.tile(np.linspace(0.01, 0.1, len(TABLE)), (len(STATES), 1))


def lesson(model: int, score: float, reporter: str, request: int = 0, **more: float) -> Lesson:
    context = CONTEXTS.read(STATES[request : request + 1])[0]
    prior, worth = float(TABLE.success[0, model]), float(TABLE.evidence[0, model])
    return Lesson(TABLE.refs[model], context, prior, worth, score, reporter=reporter, **more)


def taught(*lessons: Lesson, options: OnlineOptions | None = None) -> Voices:
    voices = Voices(CONTEXTS, options)
    for number, each in enumerate(lessons):
        voices.learn(str(number), each)
    return voices


def expect(voices: Voices, models: ModelTable = TABLE) -> tuple[np.ndarray, np.ndarray]:
    estimate = voices.estimate(models)
    assert estimate is not None
    return estimate.expect(STATES, TASK, COST)


def test_a_single_reporter_is_heard_as_if_it_were_alone() -> None:
    lessons = [lesson(n % 2, n % 3 / 2, "only", n % 6) for n in range(40)]
    alone = OnlineModel(CONTEXTS)
    for number, each in enumerate(lessons):
        alone.learn(str(number), each)
    voices = taught(*lessons)
    told, expected = voices.estimate(TABLE), alone.estimate(TABLE)
    assert isinstance(told, LiveEstimate)
    assert expected is not None
    assert np.array_equal(told.expect(STATES, TASK, COST)[0], expected.expect(STATES, TASK, COST)[0])
    assert voices.estimate(TABLE) is told  # nothing new, nothing made
    assert Voices(CONTEXTS).estimate(TABLE) is None


@given(
    honest=st.lists(st.tuples(st.integers(0, 2), st.floats(0.0, 1.0), st.integers(0, 5)), min_size=1, max_size=30),
    lies=st.integers(1, 200),
    request=st.integers(0, 5),
)
def test_who_only_lies_about_a_model_moves_it_by_no_more_than_its_share_and_others_not_at_all(
    honest: list[tuple[int, float, int]], lies: int, request: int
) -> None:
    true = [lesson(model, score, f"honest {n % 2}", where) for n, (model, score, where) in enumerate(honest)]
    true.append(lesson(1, 1.0, "honest 0"))
    true.append(lesson(2, 1.0, "honest 1"))  # two reporters, whatever the others are
    before, _ = expect(taught(*true))
    after, _ = expect(taught(*true, *[lesson(0, 0.0, "liar", request)] * lies))
    assert (after[:, 0] >= 0.5 * before[:, 0] - 1e-6).all()
    assert np.array_equal(after[:, 1:], before[:, 1:])


@given(
    honest=st.lists(st.tuples(st.integers(0, 2), st.floats(0.0, 1.0), st.integers(0, 5)), min_size=1, max_size=60),
    lies=st.integers(1, 200),
    at_once=st.booleans(),
)
def test_being_the_second_reporter_moves_no_other_model(
    honest: list[tuple[int, float, int]], lies: int, at_once: bool
) -> None:
    true = [lesson(model, score, "honest", where, cost_usd=0.03, expected_usd=0.01) for model, score, where in honest]
    voices = taught(*true)
    (before, cost), setback = expect(voices), voices.estimate(TABLE)
    lie = [lesson(0, 0.0, "liar", 1)] * lies
    if at_once:
        voices = Voices(CONTEXTS)
        voices.learn_all([(str(n), each) for n, each in enumerate([*true, *lie])])
    else:
        for number, each in enumerate(lie):
            voices.learn(f"lie {number}", each)
    after, cost_after = expect(voices)
    assert (after[:, 0] >= 0.5 * before[:, 0] - 1e-6).all()
    assert after[:, 1:] == pytest.approx(before[:, 1:], abs=1e-6)
    assert cost_after[:, 1:] == pytest.approx(cost[:, 1:], rel=1e-5)
    mixed = voices.estimate(TABLE)
    assert setback is not None
    assert mixed is not None
    assert mixed.setback_logits == setback.setback_logits


def test_who_was_first_is_held_to_its_share_from_the_second_on() -> None:
    alone = [lesson(0, 1.0, "first")] * 20
    before, _ = expect(taught(*alone, lesson(1, 1.0, "second")))
    after, _ = expect(taught(*alone, lesson(1, 1.0, "second"), *[lesson(0, 0.0, "first")] * 300))
    assert (0.45 * before[:, 0] < after[:, 0]).all()
    assert (after[0, 0] < 0.6 * before[0, 0]).all()


def test_a_model_that_was_broken_while_one_reported_is_not_held_down_for_good() -> None:
    broken = [*[lesson(0, 1.0, "first")] * 50, *[lesson(0, 0.0, "first")] * 30, lesson(1, 1.0, "second")]
    recovered = [lesson(0, 1.0, f"key {n % 3}") for n in range(300)]
    assert expect(taught(*broken))[0][0, 0] < 0.6
    assert expect(taught(*broken, *recovered))[0][0, 0] > 0.8


def test_without_a_cap_or_with_agreement_nobody_is_held_back() -> None:
    agreed = [lesson(0, 0.0, f"key {n % 2}") for n in range(200)]
    assert expect(taught(*agreed))[0][0, 0] < 0.1
    uncapped = taught(*agreed, options=OnlineOptions(share=1.0)).estimate(TABLE)
    assert isinstance(uncapped, LiveEstimate)


def test_a_correction_is_the_reporters_own() -> None:
    voices = taught(lesson(0, 1.0, "a"), lesson(0, 1.0, "b"), lesson(1, 1.0, "b"))
    before, _ = expect(voices)
    voices.learn("0", lesson(0, 0.0, "a"))
    corrected, _ = expect(voices)
    assert corrected[0, 0] < before[0, 0]
    assert np.array_equal(corrected[:, 1:], before[:, 1:])


def test_costs_are_mixed_by_the_same_weights() -> None:
    def paid(reporter: str) -> list[Lesson]:
        return [lesson(0, 1.0, reporter, cost_usd=0.08, expected_usd=0.01)] * 100

    two = [lesson(0, 1.0, "a"), lesson(0, 1.0, "b")]
    _, usd = expect(taught(*two, *paid("a"), *paid("b")))
    _, half = expect(taught(*two, *paid("a")))
    assert usd[0, 0] > 0.04
    assert 0.01 < half[0, 0] < usd[0, 0]
    assert usd[:, 1:] == pytest.approx(COST[:, 1:], rel=1e-5)


def test_models_that_came_later_keep_their_priors() -> None:
    estimate = taught(*[lesson(0, 0.0, "a")] * 5, *[lesson(0, 0.0, "b")] * 5).estimate(TABLE)
    assert isinstance(estimate, MixedEstimate)
    assert estimate.of(TABLE) is estimate
    later = table(replace(DEAR, ref="new/one"), CHEAP)
    success, _ = estimate.of(later).expect(STATES, TASK, COST[:, :2])
    assert success[:, 0] == pytest.approx(later.success[0, 0])
    assert success[:, 1] == pytest.approx(estimate.expect(STATES, TASK, COST)[0][:, 0])
    assert estimate.of(later).optimism[0] == estimate.optimism.max()
    assert estimate.with_optimism(2.0).optimism == pytest.approx(2.0 * estimate.optimism)
    assert estimate.optimism[0] == 0.0  # nobody knows another model better
    assert estimate.optimism[1] > 0.0


def test_who_was_silent_longest_is_forgotten_beyond_the_most() -> None:
    crowd = [lesson(0, 0.0, f"key {n}") for n in range(MOST_VOICES + 1)]
    estimate = taught(*crowd).estimate(TABLE)
    assert isinstance(estimate, MixedEstimate)
    assert len(estimate.voices) == MOST_VOICES + 1  # with what the first one said while it was alone
    assert estimate.weight.shape == (len(TASK_TYPES), MOST_VOICES + 1, len(TABLE))
    assert estimate.weight.sum(axis=1) == pytest.approx(1.0)
