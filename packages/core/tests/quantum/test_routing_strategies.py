"""The strategies that need no learning: what they call themselves, how sure they are, and that asking is harmless."""

from __future__ import annotations

import numpy as np
import pytest
from builders import route_batch

from monkey_coder.quantum.routing_strategies import objective_strategies

BATCH = {"success": [[0.9, 0.8, 0.4]], "cost_usd": [[0.05, 0.01, 0.001]], "latency_s": [[8.0, 2.0, 1.0]]}


def test_the_four_objectives_are_there_under_their_names() -> None:
    assert [s.name for s in objective_strategies()] == ["task_optimized", "cost_efficient", "performance", "balanced"]


@pytest.mark.parametrize("strategy", objective_strategies(), ids=lambda s: s.name)
def test_each_scores_every_candidate_of_every_request(strategy) -> None:
    batch = route_batch(**{name: values * 3 for name, values in BATCH.items()}, cost_weight=1.0, latency_weight=0.01)
    scores = strategy.score(batch)
    assert scores.utility.shape == (3, 3)
    assert scores.confidence.shape == (3,)
    assert not scores.abstains.any()
    assert np.isfinite(scores.utility).all()


@pytest.mark.parametrize("strategy", objective_strategies(), ids=lambda s: s.name)
def test_asking_changes_nothing(strategy) -> None:
    batch = route_batch(**BATCH, cost_weight=1.0, latency_weight=0.01)
    before = {name: getattr(batch, name).copy() for name in ("success", "cost_usd", "latency_s", "cost_weight")}
    first, second = strategy.score(batch), strategy.score(batch)
    np.testing.assert_array_equal(first.utility, second.utility)
    for name, values in before.items():
        np.testing.assert_array_equal(getattr(batch, name), values)


@pytest.mark.parametrize("strategy", objective_strategies(), ids=lambda s: s.name)
def test_a_request_scores_the_same_alone_and_in_a_batch(strategy) -> None:
    batch = route_batch(
        [[0.9, 0.8, 0.4], [0.2, 0.9, 0.5]], [[0.05, 0.01, 0.001]] * 2, cost_weight=3.0, latency_weight=0.1
    )
    together = strategy.score(batch)
    for row in range(2):
        alone = strategy.score(batch.take([row]))
        np.testing.assert_array_equal(alone.utility[0], together.utility[row])
        assert alone.confidence[0] == together.confidence[row]


def test_they_disagree_where_their_objectives_do() -> None:
    batch = route_batch(**BATCH, cost_weight=2.0, latency_weight=0.001)
    firsts = {s.name: int(s.score(batch).utility[0].argmax()) for s in objective_strategies()}
    assert firsts["performance"] == 0
    assert firsts["cost_efficient"] == 1


def test_confidence_grows_with_the_outcomes_behind_the_priors() -> None:
    sure = [float(route_batch([[0.5]], evidence=n).prior_trust[0]) for n in (0.0, 20.0, 180.0)]
    assert sure == pytest.approx([0.0, 0.5, 0.9])


def test_confidence_looks_at_candidates_alone() -> None:
    batch = route_batch([[0.5, 0.5]], candidates=[[True, False]], evidence=20.0)
    batch.evidence[0, 1] = 1e9
    assert batch.prior_trust[0] == pytest.approx(0.5)
    nobody = route_batch([[0.5]], candidates=[[False]])
    assert nobody.prior_trust[0] == 0.0
