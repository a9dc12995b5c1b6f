"""The memory of outcomes: it learns from each one, speaks only where something is near, and forgets the oldest."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import DIMENSIONS, World, log_loss

from monkey_coder.errors import PolicyError
from monkey_coder.quantum.outcome_memory import MemorySpace, OutcomeMemory
from monkey_coder.quantum.text_marks import MARKS

WORLD = World.make(seed=41, hidden=1.5)
TRAIN, TEST = WORLD.rows(800, seed=42), WORLD.rows(1000, seed=43)
MODELS = WORLD.models
NO_MARKS = np.zeros(MARKS, np.float32)


def towards(*entries: float) -> np.ndarray:
    vector = np.zeros(DIMENSIONS, np.float32)
    vector[: len(entries)] = entries
    return vector / np.linalg.norm(vector)


def untrained(capacity: int = 100) -> OutcomeMemory:
    return OutcomeMemory(MemorySpace.untrained(DIMENSIONS, np.random.default_rng(0)), capacity)


def ask(memory: OutcomeMemory, vector: np.ndarray, ref: str = "a/one", expected: float = 0.5):
    return memory.recall(vector[None], NO_MARKS[None], [ref], np.full((1, 1), expected, np.float32))


def remember(memory: OutcomeMemory, key: str, vector: np.ndarray, score: float, ref: str = "a/one", expected=0.5):
    memory.add(key, vector, NO_MARKS, ref, score, expected)


@pytest.fixture(scope="module")
def table() -> OutcomeMemory:
    expected = np.tile(TRAIN.scores.mean(axis=0), (len(TRAIN.scores), 1)).astype(np.float32)
    rng = np.random.default_rng(0)
    return OutcomeMemory.of_table(MODELS, TRAIN.embedding, TRAIN.marks, TRAIN.scores, expected, rng)


def recalled(memory: OutcomeMemory, rejected=None, noise: float = 0.0) -> np.ndarray:
    expected = np.tile(TRAIN.scores.mean(axis=0), (len(TEST.scores), 1)).astype(np.float32)
    return memory.recall(TEST.embedding, TEST.marks, MODELS, expected, rejected, noise).success


def test_an_empty_memory_has_no_opinion() -> None:
    found = ask(untrained(), towards(1.0), expected=0.3)
    assert found.far.all()
    assert found.success[0, 0] == pytest.approx(0.3)
    assert found.evidence[0, 0] == 0.0


def test_one_outcome_moves_what_is_near_and_nothing_else() -> None:
    memory = untrained()
    remember(memory, "k", towards(1.0), 0.0)
    near, strange, other = (
        ask(memory, towards(1.0, 0.1)),
        ask(memory, towards(0.0, 1.0)),
        ask(memory, towards(1.0), "b"),
    )
    assert near.success[0, 0] < 0.5
    assert near.evidence[0, 0] == 1.0
    assert not near.far[0]
    assert strange.far[0]
    assert other.success[0, 0] == 0.5
    assert other.evidence[0, 0] == 0.0


def test_more_of_the_same_outcome_says_more() -> None:
    memory, said = untrained(), [0.5]
    for number in range(20):
        remember(memory, f"k{number}", towards(1.0, 0.01 * number), 1.0)
        said.append(float(ask(memory, towards(1.0)).success[0, 0]))
    assert said == sorted(said)
    assert said[-1] > 0.75


def test_outcomes_that_were_expected_are_no_news() -> None:
    memory = untrained()
    remember(memory, "k", towards(1.0), 0.9, expected=0.9)
    assert ask(memory, towards(1.0), expected=0.6).success[0, 0] == pytest.approx(0.6)


def test_a_second_report_replaces_the_first() -> None:
    memory = untrained()
    remember(memory, "k", towards(1.0), 0.0)
    remember(memory, "k", towards(1.0), 1.0)
    assert len(memory) == 1
    assert ask(memory, towards(1.0)).evidence[0, 0] == 1.0
    assert ask(memory, towards(1.0)).success[0, 0] > 0.5


def test_the_oldest_row_makes_room() -> None:
    memory = untrained(capacity=3)
    for number in range(5):
        remember(memory, f"k{number}", towards(*np.eye(5)[number]), 0.0)
    assert len(memory) == 3
    assert [bool(ask(memory, towards(*np.eye(5)[number])).far[0]) for number in range(5)] == [True] * 2 + [False] * 3
    remember(memory, "k0", towards(1.0), 1.0)  # its row is long gone: it is a new one
    assert ask(memory, towards(1.0)).success[0, 0] > 0.5


def test_what_a_table_teaches_helps_on_new_prompts(table) -> None:
    plain = np.tile(TRAIN.scores.mean(axis=0), (len(TEST.scores), 1))
    found, best = log_loss(recalled(table), TEST.scores), log_loss(TEST.expected, TEST.scores)
    assert found - best < 0.8 * (log_loss(plain, TEST.scores) - best)


def test_after_a_rejection_it_asks_those_who_were_rejected_too(table) -> None:
    failed = TEST.scores[:, 0] == 0.0
    rejected = np.zeros(TEST.scores.shape, np.bool_)
    rejected[:, 0] = True
    forgetful, mindful = recalled(table)[failed][:, 1:], recalled(table, rejected)[failed][:, 1:]
    truth = TEST.scores[failed][:, 1:]
    assert log_loss(mindful, truth) < log_loss(forgetful, truth) - 0.05
    doubtful = recalled(table, rejected, noise=0.45)[failed][:, 1:]
    assert mindful.mean() < doubtful.mean() < forgetful.mean()


def test_a_table_larger_than_the_memory_is_sampled() -> None:
    expected = np.full(TRAIN.scores.shape, 0.5, np.float32)
    gone = np.where(np.random.default_rng(1).random(TRAIN.scores.shape) < 0.3, np.nan, TRAIN.scores)
    rng = np.random.default_rng(0)
    memory = OutcomeMemory.of_table(MODELS, TRAIN.embedding, TRAIN.marks, gone, expected, rng, capacity=100)
    assert len(memory) == 100
    assert np.isfinite(recalled(memory)).all()


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.floats(0.0, 1.0), st.floats(0.0, 1.0)), max_size=20),
    st.integers(0, 15),
    st.floats(0.0, 0.49),
)
def test_whatever_it_is_told_it_answers_with_probabilities(outcomes, bits, noise) -> None:
    memory = untrained(capacity=4)
    refs = ["a/one", "a/two", "b/three", "never/seen"]
    for key, model, score, expected in outcomes:
        remember(memory, str(key), towards(1.0, key), score, refs[min(model, 2)], expected)
    rejected = ((bits >> np.arange(4)) & 1).astype(np.bool_)[None]
    asked = np.stack([towards(1.0, 2.0), np.zeros(DIMENSIONS, np.float32)])
    found = memory.recall(
        asked, np.tile(NO_MARKS, (2, 1)), refs, np.full((2, 4), 0.4, np.float32), np.repeat(rejected, 2, axis=0), noise
    )
    assert ((found.success >= 0.0) & (found.success <= 1.0)).all()
    assert (found.evidence >= 0.0).all()
    assert found.far[1]


def test_many_threads_may_tell_it_at_once() -> None:
    memory = untrained(capacity=64)

    def tell(number: int) -> None:
        for step in range(40):
            remember(memory, f"{number}-{step}", towards(1.0, number), 1.0, f"made/{number}")
            ask(memory, towards(1.0), f"made/{number}")

    threads = [threading.Thread(target=tell, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(memory) == 64
    assert set(memory.models) == {f"made/{number}" for number in range(4)}
    total = memory.to_arrays()[0]["known"].sum()
    assert total == 64.0  # one outcome in each row: none is lost, torn or counted twice


def test_it_survives_a_file_also_once_it_is_full(table) -> None:
    np.testing.assert_allclose(recalled(OutcomeMemory.from_arrays(*table.to_arrays())), recalled(table), atol=1e-5)
    memory = untrained(capacity=3)
    for number in range(5):
        remember(memory, f"k{number}", towards(*np.eye(6)[number]), 0.0)
    again = OutcomeMemory.from_arrays(*memory.to_arrays())
    remember(again, "k5", towards(*np.eye(6)[5]), 0.0)  # pushes out k2, the oldest
    assert [bool(ask(again, towards(*np.eye(6)[number])).far[0]) for number in range(6)] == [True] * 3 + [False] * 3


def test_damaged_files_are_refused(table) -> None:
    arrays, header = table.to_arrays()
    with pytest.raises(PolicyError, match="again"):
        OutcomeMemory.from_arrays(arrays | {"known": np.zeros((2, 2), np.float32)}, header)
    with pytest.raises(PolicyError, match="vectors"):
        OutcomeMemory.from_arrays({n: a for n, a in arrays.items() if n != "vectors"}, header)
    with pytest.raises(ValueError, match="capacity"):
        untrained(capacity=0)
