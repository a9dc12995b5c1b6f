"""The replay memory: what goes in comes out, whole, in order, in proportion, and after a restart too."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monkey_coder.quantum.experience_buffer import (
    DEFAULT_CAPACITY,
    ArraySpec,
    ExperienceBuffer,
    Prioritisation,
    Steps,
    Transitions,
    n_step,
)

SCHEMA = {"state": ArraySpec((3,)), "candidates": ArraySpec((2,), "bool"), "attempts": ArraySpec((2,), "int8")}


def observed(numbers: np.ndarray) -> dict[str, np.ndarray]:
    """Observations that carry their number in every entry, so that mixed rows show."""
    return {
        "state": np.repeat(numbers[:, None], 3, axis=1).astype(np.float32),
        "candidates": np.stack([numbers % 2 == 0, numbers % 2 == 1], axis=1),
        "attempts": np.repeat(numbers[:, None] % 100, 2, axis=1).astype(np.int8),
    }


def numbered(start: int, stop: int) -> Transitions:
    numbers = np.arange(start, stop)
    count = len(numbers)
    return Transitions(
        observation=observed(numbers),
        action=numbers,
        reward=numbers.astype(np.float32),
        next_observation=observed(numbers + 1),
        terminated=numbers % 3 == 0,
        truncated=numbers % 5 == 0,
        discount=np.full(count, 0.5, np.float32),
        weight=np.ones(count, np.float32),
    )


def numbers_in(buffer: ExperienceBuffer, draws: int = 2_000) -> set[int]:
    return set(buffer.sample(draws, np.random.default_rng(0)).action.tolist())


def assert_whole(batch: Transitions) -> None:
    """Every array of a row carries the number of that row."""
    for name, array in observed(batch.action).items():
        np.testing.assert_array_equal(batch.observation[name], array)
    for name, array in observed(batch.action + 1).items():
        np.testing.assert_array_equal(batch.next_observation[name], array)
    np.testing.assert_array_equal(batch.reward, batch.action)
    np.testing.assert_array_equal(batch.terminated, batch.action % 3 == 0)
    np.testing.assert_array_equal(batch.truncated, batch.action % 5 == 0)


@pytest.fixture(params=[None, Prioritisation()], ids=["uniform", "prioritised"])
def priority(request) -> Prioritisation | None:
    return request.param


def test_holds_two_thousand_unless_told_otherwise() -> None:
    assert ExperienceBuffer(SCHEMA).capacity == DEFAULT_CAPACITY == 2_000


@given(st.integers(1, 12), st.lists(st.integers(0, 30), max_size=8), st.booleans())
def test_keeps_the_newest_rows_whole(capacity, sizes, prioritised) -> None:
    buffer = ExperienceBuffer(SCHEMA, capacity, Prioritisation() if prioritised else None)
    plain: list[int] = []
    for size in sizes:
        buffer.add(numbered(len(plain), len(plain) + size))
        plain += range(len(plain), len(plain) + size)
    assert len(buffer) == len(plain[-capacity:])
    assert buffer.added == len(plain)
    if plain:
        batch = buffer.sample(200, np.random.default_rng(1))
        assert_whole(batch)
        assert set(batch.action.tolist()) <= set(plain[-capacity:])
        np.testing.assert_array_equal(batch.serial, batch.action)


def test_every_row_is_drawn(priority) -> None:
    buffer = ExperienceBuffer(SCHEMA, 10, priority)
    buffer.add(numbered(0, 25))
    assert numbers_in(buffer) == set(range(15, 25))


def test_same_seed_same_sample(priority) -> None:
    buffer = ExperienceBuffer(SCHEMA, 50, priority)
    buffer.add(numbered(0, 50))
    first, second = (buffer.sample(20, np.random.default_rng(7)) for _ in range(2))
    np.testing.assert_array_equal(first.serial, second.serial)


def test_a_sample_does_not_change_when_its_rows_are_overwritten(priority) -> None:
    buffer = ExperienceBuffer(SCHEMA, 4, priority)
    buffer.add(numbered(0, 4))
    batch = buffer.sample(8, np.random.default_rng(0))
    buffer.add(numbered(4, 8))
    assert_whole(batch)


def test_draws_by_priority() -> None:
    buffer = ExperienceBuffer(SCHEMA, 3, Prioritisation(alpha=0.5, floor=1e-9))
    buffer.add(numbered(0, 3))
    buffer.update_priorities(np.arange(3), np.array([1.0, -4.0, 9.0]))
    drawn = buffer.sample(60_000, np.random.default_rng(0)).action
    np.testing.assert_allclose(np.bincount(drawn) / len(drawn), np.array([1, 2, 3]) / 6, atol=0.002)


def test_importance_weights_undo_the_bias_of_priorities() -> None:
    buffer = ExperienceBuffer(SCHEMA, 4, Prioritisation(alpha=1.0))
    buffer.add(numbered(0, 4))
    buffer.update_priorities(np.arange(4), np.array([0.1, 1.0, 5.0, 10.0]))
    full = buffer.sample(50_000, np.random.default_rng(0), beta=1.0)
    assert full.weight.max() == 1.0
    assert np.average(full.reward, weights=full.weight) == pytest.approx(1.5, abs=0.05)  # the plain mean of 0, 1, 2, 3
    biased = buffer.sample(50_000, np.random.default_rng(0), beta=0.0)
    np.testing.assert_array_equal(biased.weight, 1.0)
    assert biased.reward.mean() > 2.4


def test_weights_of_rows_and_of_priorities_multiply() -> None:
    buffer = ExperienceBuffer(SCHEMA, 2, Prioritisation(alpha=1.0, floor=1e-9))
    buffer.add(replace(numbered(0, 2), weight=np.array([2.0, 10.0], np.float32)))
    buffer.update_priorities(np.arange(2), np.array([1.0, 4.0]))
    batch = buffer.sample(100, np.random.default_rng(0))
    assert set(batch.weight[batch.action == 0]) == {2.0}
    assert set(batch.weight[batch.action == 1]) == {2.5}


def test_new_rows_are_seen_first() -> None:
    buffer = ExperienceBuffer(SCHEMA, 100, Prioritisation(alpha=1.0))
    buffer.add(numbered(0, 99))
    buffer.update_priorities(np.arange(99), np.full(99, 1e-3))
    buffer.update_priorities(np.array([5]), np.array([50.0]))
    buffer.add(numbered(99, 100))
    drawn = buffer.sample(1_000, np.random.default_rng(0)).action
    assert (drawn == 99).mean() == pytest.approx(0.5, abs=0.05)


def test_late_priorities_do_not_touch_rows_that_took_the_place() -> None:
    buffer = ExperienceBuffer(SCHEMA, 2, Prioritisation(alpha=1.0))
    buffer.add(numbered(0, 2))
    old = buffer.sample(10, np.random.default_rng(0))
    buffer.add(numbered(2, 4))
    buffer.update_priorities(old.serial, np.full(10, 1_000.0) * (old.serial == 0))
    drawn = buffer.sample(10_000, np.random.default_rng(0)).action
    assert (drawn == 2).mean() == pytest.approx(0.5, abs=0.02)


def test_refuses_errors_that_are_not_finite() -> None:
    buffer = ExperienceBuffer(SCHEMA, 2, Prioritisation())
    buffer.add(numbered(0, 2))
    with pytest.raises(ValueError, match="diverged"):
        buffer.update_priorities(np.array([0]), np.array([np.nan]))


def test_uniform_buffers_ignore_priorities() -> None:
    buffer = ExperienceBuffer(SCHEMA, 2)
    buffer.add(numbered(0, 2))
    buffer.update_priorities(np.array([0]), np.array([1e9]))
    drawn = buffer.sample(10_000, np.random.default_rng(0)).action
    assert drawn.mean() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"observation": {"state": np.zeros((2, 3))}}, "observation has"),
        ({"next_observation": observed(np.arange(3))}, "next_observation"),
        ({"reward": np.zeros(3, np.float32)}, "reward has shape"),
    ],
)
def test_refuses_rows_that_do_not_fit_and_keeps_the_old(change, says) -> None:
    buffer = ExperienceBuffer(SCHEMA, 4)
    buffer.add(numbered(0, 2))
    with pytest.raises(ValueError, match=says):
        buffer.add(replace(numbered(2, 4), **change))
    assert numbers_in(buffer) == {0, 1}


def test_refuses_to_draw_nothing_or_from_nothing() -> None:
    buffer = ExperienceBuffer(SCHEMA, 4)
    with pytest.raises(ValueError, match="empty"):
        buffer.sample(1, np.random.default_rng(0))
    buffer.add(numbered(0, 1))
    with pytest.raises(ValueError, match="at least one"):
        buffer.sample(0, np.random.default_rng(0))


@pytest.mark.parametrize("knobs", [{"alpha": 1.5}, {"alpha": -0.1}, {"floor": 0.0}])
def test_refuses_senseless_priorities(knobs) -> None:
    with pytest.raises(ValueError, match=next(iter(knobs))):
        Prioritisation(**knobs)


def test_refuses_a_capacity_of_nothing() -> None:
    with pytest.raises(ValueError, match="capacity"):
        ExperienceBuffer(SCHEMA, 0)


@given(st.integers(1, 9), st.integers(0, 25), st.booleans())
@settings(max_examples=25)
def test_a_restart_changes_nothing(tmp_path_factory, capacity, count, prioritised) -> None:
    path = tmp_path_factory.mktemp("replay") / "replay.npz"
    buffer = ExperienceBuffer(SCHEMA, capacity, Prioritisation(0.7, 0.01) if prioritised else None)
    buffer.add(numbered(0, count))
    buffer.update_priorities(np.arange(count), np.random.default_rng(3).exponential(size=count))
    buffer.save(path)
    again = ExperienceBuffer.load(path)
    assert (len(again), again.added, again.capacity, again.schema) == (len(buffer), count, capacity, SCHEMA)
    assert again.priority == buffer.priority
    for each in (buffer, again):  # what comes after must be the same, too
        each.add(numbered(count, count + 3))
    first, second = (each.sample(50, np.random.default_rng(0), 0.5) for each in (buffer, again))
    assert_whole(second)
    np.testing.assert_array_equal(first.serial, second.serial)
    np.testing.assert_array_equal(first.weight, second.weight)


def test_a_damaged_file_is_named(tmp_path, priority) -> None:
    buffer, path = ExperienceBuffer(SCHEMA, 100, priority), tmp_path / "replay.npz"
    buffer.add(numbered(0, 100))
    buffer.save(path)
    whole = path.read_bytes()
    middle = whole.find(b"now.state.npy") + 300
    for damaged in (b"", b"nonsense", whole[: len(whole) // 2], whole[:middle] + b"\xff" * 40 + whole[middle + 40 :]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"replay\.npz is not a replay file"):
            ExperienceBuffer.load(path)


def test_a_missing_file_is_said_to_be_missing(tmp_path) -> None:
    with pytest.raises(FileNotFoundError):
        ExperienceBuffer.load(tmp_path / "none.npz")


def test_a_pickle_is_not_opened(tmp_path) -> None:
    path = tmp_path / "replay.npz"
    np.savez(path, **{"about.1": np.array([{"capacity": 1}], dtype=object)}, allow_pickle=True)
    with pytest.raises(ValueError, match="not a replay file"):
        ExperienceBuffer.load(path)


def test_a_writer_and_a_sampler_share_it(priority) -> None:
    buffer = ExperienceBuffer(SCHEMA, 64, priority)
    buffer.add(numbered(0, 64))
    failures: list[BaseException] = []

    def write() -> None:
        for start in range(64, 64 + 400 * 7, 7):
            buffer.add(numbered(start, start + 7))

    def sample() -> None:
        rng = np.random.default_rng(0)
        try:
            for _ in range(400):
                batch = buffer.sample(32, rng)
                assert_whole(batch)
                buffer.update_priorities(batch.serial, rng.random(32))
        except BaseException as error:  # noqa: BLE001 (a thread cannot raise into the test)
            failures.append(error)

    threads = [threading.Thread(target=write), threading.Thread(target=sample)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert buffer.added == 64 + 400 * 7


def episodes(rewards: list[list[float]], ends: list[str]) -> Steps:
    """Episodes whose observations are numbered on from 0; each ends terminated, truncated or open."""
    flat = np.array([reward for episode in rewards for reward in episode], np.float32)
    number = np.repeat(np.arange(len(rewards)), [len(episode) for episode in rewards])
    last = np.cumsum([len(episode) for episode in rewards]) - 1
    terminated, truncated = np.zeros(len(flat), bool), np.zeros(len(flat), bool)
    terminated[[at for at, end in zip(last, ends, strict=True) if end == "terminated"]] = True
    truncated[[at for at, end in zip(last, ends, strict=True) if end == "truncated"]] = True
    return Steps(
        observation={"state": np.arange(len(flat))[:, None]},
        action=np.arange(len(flat)),
        reward=flat,
        next_observation={"state": np.arange(len(flat))[:, None] + 1},
        terminated=terminated,
        truncated=truncated,
        episode=number,
    )


def test_n_step_by_hand() -> None:
    rows = n_step(episodes([[1, 2, 4], [8, 16]], ["terminated", "truncated"]), 2, 0.5)
    np.testing.assert_allclose(rows.reward, [2.0, 4.0, 4.0, 16.0, 16.0])
    np.testing.assert_allclose(rows.discount, [0.25, 0.25, 0.5, 0.25, 0.5])
    np.testing.assert_array_equal(rows.next_observation["state"][:, 0], [2, 3, 3, 5, 5])
    np.testing.assert_array_equal(rows.terminated, [False, True, True, False, False])
    np.testing.assert_array_equal(rows.truncated, [False, False, False, True, True])
    np.testing.assert_array_equal(rows.observation["state"][:, 0], range(5))


def test_an_episode_cut_off_in_the_recording_does_not_leak_into_the_next() -> None:
    rows = n_step(episodes([[1], [100]], ["open", "terminated"]), 3, 1.0)
    np.testing.assert_array_equal(rows.reward, [1, 100])
    assert rows.next_observation["state"][0, 0] == 1
    assert not rows.terminated[0]


def test_weights_belong_to_the_first_step() -> None:
    steps = replace(episodes([[1, 1]], ["terminated"]), weight=np.array([3.0, 5.0], np.float32))
    np.testing.assert_array_equal(n_step(steps, 2, 1.0).weight, [3.0, 5.0])


@given(
    st.lists(
        st.tuples(
            st.lists(st.floats(-2, 2, width=32), min_size=1, max_size=6),
            st.sampled_from(["terminated", "truncated", "open"]),
        ),
        max_size=5,
    ),
    st.integers(1, 8),
    st.floats(0.0, 1.0),
)
def test_n_step_agrees_with_walking_each_episode(cases, n, discount) -> None:
    rows = n_step(episodes([rewards for rewards, _ in cases], [end for _, end in cases]), n, discount)
    at = 0
    for rewards, end in cases:
        for start in range(len(rewards)):
            seen = rewards[start : start + n]
            to_the_end = start + len(seen) == len(rewards)
            assert rows.reward[at] == pytest.approx(sum(r * discount**k for k, r in enumerate(seen)), abs=1e-5)
            assert rows.discount[at] == pytest.approx(discount ** len(seen), abs=1e-6)
            assert rows.next_observation["state"][at, 0] == at + len(seen)
            assert rows.terminated[at] == (to_the_end and end == "terminated")
            assert rows.truncated[at] == (to_the_end and end == "truncated")
            at += 1
    assert len(rows) == at


@pytest.mark.parametrize(("n", "discount"), [(0, 1.0), (1, 1.1), (1, -0.1)])
def test_n_step_refuses_what_makes_no_sense(n, discount) -> None:
    with pytest.raises(ValueError, match=r"(n|discount) is"):
        n_step(episodes([[1.0]], ["terminated"]), n, discount)
