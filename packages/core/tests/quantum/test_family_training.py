"""Families of prompts: which there are, how they are told, and what is far from all of them."""

from __future__ import annotations

import numpy as np
from worlds import World

from monkey_coder.quantum.family_training import (
    OTHER_FAMILY,
    choose_references,
    fit_families,
    fit_typical,
    name_families,
)
from monkey_coder.quantum.success_model import softmax, surprise
from monkey_coder.quantum.success_training import SuccessOptions, train_success

CENTRES = 4.0 * np.eye(3, 6)


def rows(count: int, noise: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    family = rng.integers(0, 3, count)
    return (CENTRES[family] + noise * rng.standard_normal((count, 6))).astype(np.float32), family


def test_small_families_are_thrown_together() -> None:
    names, family = name_families(["b", "a", "b", "c", "b", "a"], 2)
    assert names == ("a", "b", OTHER_FAMILY)
    assert [names[f] for f in family] == ["b", "a", "b", OTHER_FAMILY, "b", "a"]
    assert name_families(["b", "a", "b", "a"], 2)[0] == ("a", "b")


def test_families_that_can_be_told_are_told() -> None:
    features, family = rows(600)
    weight, bias = fit_families(features, family, 3, 1.0)
    asked, truth = rows(600, seed=1)
    likely = softmax(asked @ weight + bias)
    assert (likely.argmax(axis=1) == truth).mean() > 0.95
    assert likely[np.arange(600), truth].mean() > 0.9


def test_a_single_family_needs_no_classifier() -> None:
    weight, bias = fit_families(np.ones((5, 3), np.float32), np.zeros(5, np.int64), 1, 1.0)
    assert not weight.any()
    assert not bias.any()


def test_surprise_is_the_density_of_the_best_family() -> None:
    features, family = rows(9000, noise=0.5)
    centre, precision = fit_typical(features, family, 3)
    np.testing.assert_allclose(centre, CENTRES, atol=0.05)
    np.testing.assert_allclose(precision, 1.0 / (0.25 * 1.05), rtol=0.1)
    asked = rows(50, seed=1)[0].astype(np.float64)
    by_hand = [((asked - c) ** 2 * p).sum(axis=1) - np.log(p).sum() for c, p in zip(centre, precision, strict=True)]
    found = surprise(asked.astype(np.float32), centre, precision)
    np.testing.assert_allclose(found, np.min(by_hand, axis=0), atol=1e-2)


def test_a_family_without_rows_is_not_more_typical_than_others() -> None:
    features, family = rows(300)
    centre, precision = fit_typical(features, np.where(family == 2, 0, family), 3)
    assert np.isfinite(centre).all()
    assert precision[2].max() <= 2.0 * precision[:2].max()


def test_references_cover_every_family_and_the_wanted_share_is_far() -> None:
    features, family = rows(2000)
    family[:5] = 3
    features[:5] -= 20.0
    references, least = choose_references(features, family, 100, 0.05, np.random.default_rng(1))
    assert references.shape == (100, 6)
    np.testing.assert_allclose(np.linalg.norm(references, axis=1), 1.0, atol=1e-5)
    rare = features[:5] / np.linalg.norm(features[:5], axis=1, keepdims=True)
    assert ((references @ rare.T).max(axis=1) > 0.999).sum() >= 5
    asked = rows(2000, seed=1)[0]
    far = (asked / np.linalg.norm(asked, axis=1, keepdims=True) @ references.T).max(axis=1) < least
    assert 0.02 < far.mean() < 0.1


def test_prompts_of_a_family_never_seen_are_far() -> None:
    world = World.make(seed=51, families=5)
    train, test = world.rows(900, seed=52), world.rows(900, seed=53)
    seen = train.family < 4
    data = train.data()
    data = type(data)(
        data.embedding[seen], data.marks[seen], data.scores[seen], np.asarray(data.families)[seen], data.models
    )
    model = train_success(data, SuccessOptions(members=2, epochs=1), np.random.default_rng(0)).model
    far = model.is_far(model.features(test.embedding, test.marks))
    assert far[test.family == 4].mean() > 0.9
    assert far[test.family < 4].mean() < 0.08
