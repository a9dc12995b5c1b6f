"""Deployments of one model share its calls as told, obey every rule, and leave propensities true."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from builders import Model, SetClock, ask, chosen, engine, in_contract, route_batch, table
from hypothesis import given
from hypothesis import strategies as st

from monkey_coder.catalog.table import ModelTable
from monkey_coder.ports import DecisionEvent, OutcomeEvent
from monkey_coder.quantum.decision_log import DecisionLog
from monkey_coder.quantum.decision_record import decode
from monkey_coder.quantum.explain import explain
from monkey_coder.quantum.exploration import Served
from monkey_coder.quantum.load_balancer import LoadBalancer, Outstanding
from monkey_coder.quantum.quantum_routing_manager import QuantumRoutingManager
from monkey_coder.quantum.reasons import number, why
from monkey_coder.quantum.replay import Replay

REFS = ("one/x", "two/x", "three/x", "other/y")


def models(weight: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0), latency: tuple[float, ...] = (2.0, 2.0, 2.0, 2.0)) -> Any:
    made = table(*(Model(ref, latency_s=seconds) for ref, seconds in zip(REFS, latency, strict=True)))
    return replace(made, deployment_of=("x", "x", "x", None), weight=np.array(weight))


def picked(rows: int, column: int, explored: float = 0.0) -> Served:
    """Every row chose one model, and would have explored the last one now and then."""
    distribution = np.zeros((rows, len(REFS)), dtype=np.float32)
    distribution[:, column] = 1.0 - explored
    distribution[:, -1] += explored
    return Served(np.full(rows, column), np.zeros(rows, dtype=np.bool_), distribution)


def spread(
    policy: Any,
    served: Served,
    of: ModelTable,
    *,
    candidates: Any = None,
    success: Any = (0.5, 0.5, 0.5, 0.5),
    high: Any = (0.6, 0.6, 0.6, 0.6),
    last: int = -1,
    outstanding: Outstanding | None = None,
    seed: int = 0,
) -> Served:
    shape = served.distribution.shape
    may = np.ones(shape, dtype=np.bool_) if candidates is None else np.broadcast_to(np.array(candidates), shape)
    balancer = LoadBalancer(policy, outstanding or Outstanding(SetClock()), np.random.default_rng(seed))
    return balancer.spread(
        served,
        of,
        may,
        may,
        np.broadcast_to(np.array(success, np.float32), shape),
        np.broadcast_to(np.array(high, np.float32), shape),
        np.full(len(served.column), last),
        served.column,
    )


def shares(served: Served) -> list[float]:
    return [float(x) for x in np.bincount(served.column, minlength=len(REFS)) / len(served.column)]


def test_calls_follow_the_weights() -> None:
    after = spread("weighted", picked(20_000, 0, explored=0.1), models(weight=(2.0, 1.0, 1.0, 9.0)))
    assert shares(after) == pytest.approx([0.5, 0.25, 0.25, 0.0], abs=0.02)
    np.testing.assert_allclose(after.distribution[0], [0.45, 0.225, 0.225, 0.1], atol=1e-6)


def test_quick_deployments_get_more() -> None:
    after = spread("latency", picked(20_000, 1), models(latency=(1.0, 2.0, 4.0, 1.0)))
    assert shares(after) == pytest.approx([4 / 7, 2 / 7, 1 / 7, 0.0], abs=0.02)


def test_a_model_without_other_deployments_is_left_alone() -> None:
    before = picked(50, 3)
    after = spread("weighted", before, models())
    np.testing.assert_array_equal(after.column, before.column)
    np.testing.assert_array_equal(after.distribution, before.distribution)


def test_the_least_busy_takes_the_call_and_a_batch_counts_itself() -> None:
    after = spread("least_outstanding", picked(8, 0), models(weight=(2.0, 1.0, 1.0, 1.0)))
    assert np.bincount(after.column, minlength=4).tolist() == [4, 2, 2, 0]
    np.testing.assert_array_equal(after.propensity, np.ones(8))


def decided(ids: list[str], ref: str, of: ModelTable, cache: str = "miss") -> list[DecisionEvent]:
    provider, _, name = ref.partition("/")
    batch = replace(route_batch([[0.5] * len(REFS)]), table=of)
    answers = ({"decision_id": each, "provider": provider, "model": name, "cache": cache} for each in ids)
    return [DecisionEvent(answer, batch, 0, np.zeros(0, np.float32), 0.0) for answer in answers]


def test_calls_are_under_way_until_an_outcome_comes_or_too_much_time_has_passed() -> None:
    clock, of = SetClock(), models()
    outstanding = Outstanding(clock, expiry_s=60.0, most=4)
    outstanding.on_decided(decided(["a", "b", "c"], "one/x", of))
    assert outstanding.counts(REFS).tolist() == [3, 0, 0, 0]
    ended = [OutcomeEvent("report", "one/x", 1.0, None, origin) for origin in ("b", "b", "unknown")]
    outstanding.on_outcomes(ended)
    assert outstanding.counts(REFS).tolist() == [2, 0, 0, 0]
    clock.now = 30.0
    outstanding.on_decided(decided(["d", "e", "f"], "two/x", of))  # the oldest makes room
    assert outstanding.counts(REFS).tolist() == [1, 3, 0, 0]
    after = spread("least_outstanding", picked(2, 0), of, outstanding=outstanding)
    assert after.column.tolist() == [2, 0]
    clock.now = 60.0
    assert outstanding.counts(REFS).tolist() == [0, 3, 0, 0]
    outstanding.on_decided(decided(["again"], "one/x", of, cache="local"))
    outstanding.on_decided(decided(["g"], "one/x", table()))  # no deployments: nothing to count
    assert outstanding.counts(REFS).tolist() == [0, 3, 0, 0]


def test_a_session_stays_where_its_prompt_is_cached() -> None:
    after = spread("weighted", picked(100, 0), models(), last=2)
    assert set(after.column.tolist()) == {2}
    np.testing.assert_array_equal(after.propensity, np.ones(100))
    gone = spread("weighted", picked(100, 0), models(), last=2, candidates=[True, True, False, True])
    assert set(gone.column.tolist()) == {0, 1}


def test_a_deployment_that_is_surely_worse_takes_no_call() -> None:
    after = spread("weighted", picked(200, 0), models(), success=(0.8, 0.75, 0.3, 0.9), high=(0.9, 0.85, 0.4, 0.99))
    assert set(after.column.tolist()) == {0, 1}


@given(
    policy=st.sampled_from(["weighted", "least_outstanding", "latency"]),
    data=st.data(),
    seed=st.integers(0, 1000),
)
def test_gates_hold_and_probability_is_kept(policy: Any, data: st.DataObject, seed: int) -> None:
    rows = data.draw(st.integers(1, 5))
    rng = np.random.default_rng(seed)
    may = rng.random((rows, 4)) < 0.6
    winner = np.array([int(rng.integers(4)) for _ in range(rows)])
    may[np.arange(rows), winner] = True
    distribution = np.where(may, rng.random((rows, 4)), 0.0).astype(np.float32)
    distribution /= distribution.sum(axis=1, keepdims=True)
    before = Served(winner, np.zeros(rows, dtype=np.bool_), distribution)
    success = rng.random((rows, 4))
    of = models(weight=tuple(rng.uniform(0.1, 3.0, 4)))
    last = int(rng.integers(-1, 4))
    after = spread(policy, before, of, candidates=may, success=success, high=success + 0.2, last=last, seed=seed)
    every = np.arange(rows)
    assert may[every, after.column].all()
    assert ((after.column == 3) == (winner == 3)).all()
    assert (after.propensity > 0.0).all()
    np.testing.assert_allclose(after.distribution.sum(axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(after.distribution[:, 3], distribution[:, 3], atol=1e-6)
    assert (after.distribution[~may] == 0.0).all()


# In the manager


X, Y, Z = Model("one/x", success=0.9), Model("two/x", success=0.9, regions=frozenset({"eu"})), Model("other/y", 0.3)


def deployed(*listeners: Any, epsilon: float = 0.0) -> Any:
    of = replace(table(X, Y, Z), deployment_of=("x", "x", None), weight=np.array([1.0, 3.0, 1.0]))
    return engine(models=of, listeners=listeners, epsilon=epsilon, seed=1)


def balanced(manager: QuantumRoutingManager, policy: Any = "weighted") -> QuantumRoutingManager:
    manager.balancer = LoadBalancer(policy, Outstanding(SetClock()), np.random.default_rng(2))
    return manager


def test_decisions_are_spread_with_their_probability_and_told_of() -> None:
    unwritten: list[Any] = []
    with deployed(DecisionLog(unwritten.append, lambda: 1.0)) as manager:
        answers = balanced(manager).decide([ask(episode_id=f"e{n}") for n in range(400)])
    went = [chosen(answer) for answer in answers]
    assert went.count("two/x") == pytest.approx(300, abs=35)
    assert went.count("other/y") == 0
    for answer in answers:
        other = {"one/x": "two/x", "two/x": "one/x"}[chosen(answer)]
        assert answer["propensity"] == {"one/x": 0.25, "two/x": 0.75}[chosen(answer)]
        assert not answer["explored"]
        assert chosen(answer["alternatives"][0]) == other
        assert ("another deployment" in answer["collapse_reasoning"]) == (chosen(answer) == "two/x")
        in_contract(answer)
    rows = [make() for make in unwritten]
    record = decode(rows[went.index("two/x")].payload)
    assert record.served == "two/x"
    assert record.distribution.tolist() == [0.25, 0.75, 0.0]
    assert any("two/x, another deployment of one/x, takes this call" in said for said in why(record))


def test_what_is_explored_is_another_model_and_no_deployment_of_the_same() -> None:
    unwritten: list[Any] = []
    with deployed(DecisionLog(unwritten.append, lambda: 1.0), epsilon=0.5) as manager:
        answers = balanced(manager).decide([ask(episode_id=f"e{n}") for n in range(400)])
        snapshot = manager.snapshot()
    place = next(n for n, answer in enumerate(answers) if answer["explored"] and chosen(answer) == "other/y")
    assert {chosen(answer) for answer in answers if answer["explored"]} == {"other/y"}
    for answer in answers:
        said = answer["collapse_reasoning"]
        assert ("to learn" in said) == answer["explored"]
        assert ("two/x, another deployment of one/x, takes this call" in said) == (chosen(answer) == "two/x")
    record = decode(unwritten[place]().payload)
    told = explain(record, Replay(record, snapshot))
    tried = float(record.distribution[2])
    assert 0.0 < tried < 0.6
    assert any(f"with probability {number(tried)} another candidate is tried" in said for said in told.why)


def test_rules_of_a_request_and_sessions_hold() -> None:
    with deployed() as manager:
        balanced(manager)
        in_eu = manager.decide([ask(requires={"regions": ["eu"]}, allowed_models=["one/x", "two/x"])] * 20)
        assert {chosen(answer) for answer in in_eu} == {"two/x"}
        (first,) = manager.decide([ask(session_id="s")])
        again = [manager.decide([ask(session_id="s")])[0] for _ in range(20)]
        assert {chosen(answer) for answer in again} == {chosen(first)}


def test_exploration_and_balancing_keep_a_distribution() -> None:
    unwritten: list[Any] = []
    with deployed(DecisionLog(unwritten.append, lambda: 1.0), epsilon=0.5) as manager:
        answers = balanced(manager, "least_outstanding").decide([ask() for _ in range(100)])
    for answer, make in zip(answers, unwritten, strict=True):
        record = decode(make().payload)
        assert record.distribution.sum() == pytest.approx(1.0, abs=1e-5)
        assert answer["propensity"] == pytest.approx(record.distribution[record.refs.index(chosen(answer))], abs=1e-5)
        assert answer["propensity"] > 0.0
