"""A trained policy as it is served: single attempts, episodes, and models it was not trained on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from colours import MODELS, colour_tasks

from monkey_coder.quantum.served_policy import ServedPolicy
from monkey_coder.quantum.state_encoder import encode_models
from monkey_coder.quantum.training_figures import as_batch
from monkey_coder.quantum.training_pipeline import TrainedPolicy


@pytest.fixture
def policy(trained_policy: TrainedPolicy) -> ServedPolicy:
    return ServedPolicy.bind(trained_policy.parts, MODELS.refs, encode_models(MODELS))


def batch_of(attempts_left: int, rejected: tuple[int, ...] = ()):
    data = colour_tasks(12, seed=4)
    failed = np.zeros(data.scores.shape, dtype=np.bool_)
    failed[:, list(rejected)] = True
    return as_batch(data, np.arange(12), np.full(12, 1.0, np.float32), failed, attempts_left)


def test_one_attempt_is_worth_its_success_less_its_price(policy: ServedPolicy) -> None:
    batch = batch_of(1)
    valued = policy.value(batch)
    price = batch.cost_weight[:, None] * policy.cost_usd(batch)
    assert valued.q == pytest.approx(valued.success - price, abs=1e-6)
    assert (valued.stop == 0.0).all()


def test_the_quick_way_for_one_attempt_agrees_with_the_belief(policy: ServedPolicy) -> None:
    alone = policy.value(batch_of(1))
    mixed = batch_of(1)
    mixed = replace(mixed, attempts_left=np.where(np.arange(len(mixed)) == 0, 3, 1))
    assert policy.value(mixed).q[1:] == pytest.approx(alone.q[1:], abs=1e-5)


def test_a_model_that_failed_is_not_valued_again_and_lowers_its_like(policy: ServedPolicy) -> None:
    before, after = policy.value(batch_of(3)), policy.value(batch_of(2, rejected=(3,)))
    assert (after.q[:, 3] == 0.0).all()
    assert (after.success[:, 3] < before.success[:, 3]).all()


def test_a_model_it_was_not_trained_on_is_judged_by_its_prior(trained_policy: TrainedPolicy) -> None:
    refs = ("made/unheard-of", *MODELS.refs[1:])
    table = replace(MODELS, refs=refs)
    policy = ServedPolicy.bind(trained_policy.parts, refs, encode_models(table))
    batch = replace(batch_of(1), table=table)
    high = policy.value(replace(batch, success=np.full_like(batch.success, 0.9)))
    low = policy.value(replace(batch, success=np.full_like(batch.success, 0.2)))
    assert (high.success[:, 0] > low.success[:, 0]).all()
    assert high.success[:, 1:] == pytest.approx(low.success[:, 1:])
