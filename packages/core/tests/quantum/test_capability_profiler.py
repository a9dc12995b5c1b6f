"""Profiles: what outcomes teach, how it fades, what of it can be taken back, and how much one reporter may move."""

from __future__ import annotations

import math
from itertools import count

import numpy as np
import pytest
from builders import CHEAP, DEAR, MIDDLE, Model, table
from hypothesis import given
from hypothesis import strategies as st

from monkey_coder.catalog.table import ModelTable
from monkey_coder.models import TASK_TYPES
from monkey_coder.quantum.capability_profiler import Observation, ProfileOptions, Profiles

BASE = table()
DEBUGGING, SECURITY = TASK_TYPES.index("debugging"), TASK_TYPES.index("security")


IDENTITIES = count()


def told(
    profiles: Profiles, ref: str, success: float, times: int = 1, reporter: str = "anonymous", **more: float
) -> None:
    """Debugging outcomes of one model, each of its own decision."""
    for _ in range(times):
        seen = Observation(ref, "debugging", success=success, reporter=reporter, **more)
        profiles.learn(str(next(IDENTITIES)), seen)


def chance(profiles: Profiles, ref: str, task: int = DEBUGGING, base: ModelTable = BASE) -> float:
    return float(profiles.table(base).success[task, base.index[ref]])


def test_without_outcomes_the_catalog_stands() -> None:
    learned = Profiles().table(BASE)
    np.testing.assert_array_equal(learned.success, BASE.success)
    np.testing.assert_array_equal(learned.evidence, BASE.evidence)
    np.testing.assert_array_equal(learned.latency_s, BASE.latency_s)


def test_outcomes_move_a_chance_towards_what_was_seen_and_the_more_the_further() -> None:
    seen = []
    for times in (1, 5, 20, 100):
        profiles = Profiles()
        told(profiles, DEAR.ref, 0.0, times)
        seen.append(chance(profiles, DEAR.ref))
        assert chance(profiles, CHEAP.ref) == pytest.approx(0.4)
    assert DEAR.success > seen[0] > seen[1] > seen[2] > seen[3] > 0.0
    assert seen[3] < 0.2


def test_one_outcome_is_worth_one_against_the_prior() -> None:
    profiles = Profiles(ProfileOptions(prior_cap=9.0))
    told(profiles, MIDDLE.ref, 1.0)
    assert chance(profiles, MIDDLE.ref) == pytest.approx((9.0 * 0.6 + 1.0) / 10.0)
    assert profiles.table(BASE).evidence[DEBUGGING, 1] == pytest.approx(10.0)


def test_a_regression_after_a_thousand_successes_is_noticed_within_fifty_outcomes() -> None:
    profiles = Profiles()
    told(profiles, DEAR.ref, 1.0, 1000)
    assert chance(profiles, DEAR.ref) > 0.95
    told(profiles, DEAR.ref, 0.0, 50)
    assert chance(profiles, DEAR.ref) < 0.5


def test_failures_of_a_model_without_traffic_fade_with_the_outcomes_of_others() -> None:
    profiles = Profiles()
    told(profiles, DEAR.ref, 0.0, 600)
    assert chance(profiles, DEAR.ref) < 0.2
    told(profiles, MIDDLE.ref, 0.6, 450)
    assert chance(profiles, DEAR.ref) > chance(profiles, MIDDLE.ref)


def test_other_task_types_hear_a_little() -> None:
    profiles = Profiles()
    told(profiles, DEAR.ref, 0.0, 100)
    elsewhere = chance(profiles, DEAR.ref, SECURITY)
    assert 0.4 < elsewhere < 0.75
    assert profiles.table(BASE).evidence[SECURITY, 2] == BASE.evidence[SECURITY, 2]


def test_latency_and_length_are_learned_and_one_wild_report_hardly_counts() -> None:
    profiles = Profiles()
    told(profiles, MIDDLE.ref, 1.0, 60, latency_s=6.0, output_tokens=500)
    learned = profiles.table(BASE)
    assert learned.latency_s[1] == pytest.approx(6.0, rel=0.15)
    assert learned.latency_s[0] == CHEAP.latency_s
    (debugging,) = [told for told in profiles.profile(BASE, MIDDLE.ref) if told.task == "debugging"]
    assert debugging.output_tokens == pytest.approx(500, rel=1e-6)
    told(profiles, MIDDLE.ref, 1.0, latency_s=86_400.0, output_tokens=10_000_000)
    assert profiles.table(BASE).latency_s[1] < 7.0
    assert profiles.profile(BASE, MIDDLE.ref)[DEBUGGING].output_tokens < 600


def test_a_profile_says_prior_and_interval() -> None:
    profiles = Profiles()
    told(profiles, CHEAP.ref, 1.0, 10)
    for row, one in enumerate(profiles.profile(BASE, CHEAP.ref)):
        assert one.task == TASK_TYPES[row]
        assert one.prior == pytest.approx(0.4)
        assert 0.0 <= one.low <= one.success <= one.high <= 1.0
        assert one.output_tokens is None
    with pytest.raises(KeyError):
        profiles.profile(BASE, "no/such")


OUTCOMES = st.lists(
    st.builds(
        Observation,
        model=st.sampled_from(BASE.refs),
        task=st.sampled_from(["debugging", "security"]),
        success=st.none() | st.floats(0.0, 1.0),
        latency_s=st.none() | st.floats(0.01, 100.0),
        output_tokens=st.none() | st.integers(1, 10_000),
        reporter=st.sampled_from(["a", "b", "c"]),
    ),
    max_size=40,
)


@given(OUTCOMES, OUTCOMES)
def test_unlearning_everything_leaves_the_catalog(first: list[Observation], second: list[Observation]) -> None:
    profiles = Profiles()
    for number, seen in enumerate([*first, *second]):
        profiles.learn(str(number), seen)
    for number in range(len(first) + len(second)):
        profiles.unlearn(str(number))
    learned = profiles.table(BASE)
    np.testing.assert_allclose(learned.success, BASE.success, atol=1e-4)
    np.testing.assert_allclose(learned.latency_s, BASE.latency_s, rtol=1e-3)


@given(OUTCOMES)
def test_whatever_is_reported_chances_stay_chances(seen: list[Observation]) -> None:
    profiles = Profiles()
    for number, one in enumerate(seen):
        profiles.learn(str(number), one)
    learned = profiles.table(BASE)
    assert ((learned.success >= 0.0) & (learned.success <= 1.0)).all()
    assert (learned.evidence > 0.0).all()
    assert np.isfinite(learned.latency_s).all()


def test_a_corrected_report_counts_once() -> None:
    corrected, plain = Profiles(), Profiles()
    corrected.learn("one", Observation(DEAR.ref, "debugging", success=0.0, latency_s=50.0))
    corrected.learn("one", Observation(DEAR.ref, "debugging", success=1.0))
    plain.learn("one", Observation(DEAR.ref, "debugging", success=1.0))
    np.testing.assert_allclose(corrected.table(BASE).success, plain.table(BASE).success, atol=1e-6)
    np.testing.assert_allclose(corrected.table(BASE).latency_s, BASE.latency_s)


def test_what_is_no_longer_remembered_cannot_be_taken_back() -> None:
    profiles = Profiles(ProfileOptions(remembered=1))
    profiles.learn("old", Observation(DEAR.ref, "debugging", success=0.0))
    profiles.learn("new", Observation(MIDDLE.ref, "debugging", success=1.0))
    before = profiles.table(BASE).success
    profiles.unlearn("old")
    np.testing.assert_array_equal(profiles.table(BASE).success, before)


# One reporter among several


@given(
    honest=st.lists(st.tuples(st.sampled_from(["debugging", "security"]), st.booleans()), max_size=60),
    bystander=st.lists(st.booleans(), max_size=20),
    lies=st.integers(1, 300),
    spread=st.booleans(),
)
def test_a_key_that_reports_only_failures_moves_a_profile_by_at_most_its_share(
    honest: list[tuple[str, bool]], bystander: list[bool], lies: int, spread: bool
) -> None:
    def learned(poisoned: bool) -> ModelTable:
        profiles = Profiles()
        for name, seen in (("honest", honest), ("bystander", [("debugging", good) for good in bystander])):
            profiles.learn(f"{name} joins", Observation(CHEAP.ref, "general", success=0.4, reporter=name))
            for number, (task, good) in enumerate(seen):
                profiles.learn(f"{name} {number}", Observation(DEAR.ref, task, success=float(good), reporter=name))
        for number in range(lies if poisoned else 0):
            task = TASK_TYPES[number % len(TASK_TYPES)] if spread else "debugging"
            profiles.learn(f"lie {number}", Observation(DEAR.ref, task, success=0.0, reporter="liar"))
        return profiles.table(BASE)

    clean, poisoned = learned(False), learned(True)
    np.testing.assert_allclose(poisoned.success[:, :2], clean.success[:, :2], atol=1e-6)
    assert np.abs(poisoned.success[:, 2] - clean.success[:, 2]).max() <= 0.5 + 1e-6


def test_without_another_reporter_there_is_no_cap() -> None:
    alone, among = Profiles(), Profiles()
    told(among, MIDDLE.ref, 1.0, reporter="bystander")
    for profiles in (alone, among):
        told(profiles, DEAR.ref, 0.0, 300, reporter="liar")
    assert chance(alone, DEAR.ref) < 0.2
    assert chance(among, DEAR.ref) == pytest.approx(DEAR.success / 2.0, abs=0.01)
    uncapped = Profiles(ProfileOptions(share=1.0))
    told(uncapped, MIDDLE.ref, 1.0, reporter="bystander")
    told(uncapped, DEAR.ref, 0.0, 300, reporter="liar")
    assert chance(uncapped, DEAR.ref) < 0.2


@given(
    honest=st.lists(
        st.tuples(st.sampled_from(BASE.refs), st.sampled_from(["debugging", "security"]), st.booleans()),
        min_size=1,
        max_size=80,
    ),
    lies=st.integers(1, 300),
    spread=st.booleans(),
)
def test_being_the_second_reporter_moves_no_other_model(
    honest: list[tuple[str, str, bool]], lies: int, spread: bool
) -> None:
    profiles = Profiles()
    for number, (ref, task, good) in enumerate(honest):
        seen = Observation(ref, task, float(good), latency_s=3.0, output_tokens=500, reporter="honest")
        profiles.learn(f"honest {number}", seen)
    before = profiles.table(BASE)
    for number in range(lies):
        task = TASK_TYPES[number % len(TASK_TYPES)] if spread else "debugging"
        profiles.learn(f"lie {number}", Observation(DEAR.ref, task, 0.0, latency_s=90.0, reporter="liar"))
    after = profiles.table(BASE)
    np.testing.assert_allclose(after.success[:, :2], before.success[:, :2], atol=1e-6)
    np.testing.assert_allclose(after.latency_s[:2], before.latency_s[:2], rtol=1e-6)
    assert (after.success[:, 2] >= 0.5 * before.success[:, 2] - 1e-6).all()


def test_what_was_said_before_there_was_another_reporter_can_be_taken_back() -> None:
    profiles = Profiles()
    for number in range(100):
        profiles.learn(str(number), Observation(DEAR.ref, "debugging", 0.0, latency_s=9.0, reporter="first"))
    told(profiles, CHEAP.ref, 1.0, reporter="second")
    assert chance(profiles, DEAR.ref) < 0.2
    for number in range(100):
        profiles.unlearn(str(number))
    assert chance(profiles, DEAR.ref) == pytest.approx(DEAR.success, abs=1e-6)
    told(profiles, DEAR.ref, 0.0, 300, reporter="first")  # by now there are two
    assert chance(profiles, DEAR.ref) == pytest.approx(DEAR.success / 2.0, abs=0.01)


def test_a_reporter_cannot_make_what_others_said_be_forgotten() -> None:
    profiles = Profiles()
    told(profiles, DEAR.ref, 0.0, 50, reporter="honest")
    told(profiles, CHEAP.ref, 1.0, reporter="liar")
    before = chance(profiles, DEAR.ref)
    told(profiles, CHEAP.ref, 1.0, 2000, reporter="liar")
    assert chance(profiles, DEAR.ref) == pytest.approx(before, abs=1e-6)


def test_models_may_come_and_go() -> None:
    profiles = Profiles()
    told(profiles, DEAR.ref, 0.0, 20)
    new = Model("new/one", success=0.7)
    told(profiles, new.ref, 1.0, 20)
    later = table(new, DEAR)
    assert chance(profiles, new.ref, base=later) > 0.8
    assert chance(profiles, DEAR.ref, base=later) == pytest.approx(chance(profiles, DEAR.ref), abs=1e-6)


@pytest.mark.parametrize(
    "wrong", [{"share": 0.4}, {"share": 1.1}, {"own_fade": 0.0}, {"silent_fade": 1.2}, {"own_fade": math.nan}]
)
def test_options_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        ProfileOptions(**wrong)
