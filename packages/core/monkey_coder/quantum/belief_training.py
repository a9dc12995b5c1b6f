"""Fitting `belief.py`: latent classes by expectation maximisation, and a difficulty factor by marginal likelihood."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import qmc
from torch import Tensor, nn

from monkey_coder.ports import FloatArray
from monkey_coder.quantum.belief import Belief
from monkey_coder.quantum.particles import Particles
from monkey_coder.quantum.success_model import SuccessEstimate, logit

PASSING_SCORE: Final = 0.5
"""Least score that passes, as verifiers see it."""

_RANK: Final = 2
_EM_STEPS: Final = 60
_FACTOR_BATCH: Final = 256
_FIT_POINTS: Final = 7  # a power of 2
_SLOPES: Final = (0.0, 2.0)  # a row's prior leaves out its own outcome, which in a single family turns the slope around
_CHUNK: Final = 256


@dataclass(frozen=True, slots=True)
class BeliefOptions:
    """Knobs of the fit; the defaults served every table tried.

    Attributes:
        most_classes: Latent classes; fewer on small data (one for 8 rows, at least 4).
        factor_points: Points of the difficulty factor.
        class_rows: Rows at which the classes weigh as much as the factor.
        profile_rows: Rows that the overall mean is worth in a class.
        bandwidth: Of the kernel on logits.
        pseudo_rows: Rows that the overall mix of classes is worth.
        most_anchors: Training rows kept to weigh the classes of a request.
        factor_steps: Steps of the factor's fit.
        factor_pull: Strength of the pull of all models to one common loading.
    """

    most_classes: int = 40
    factor_points: int = 24
    class_rows: float = 500.0
    profile_rows: float = 2.0
    bandwidth: float = 0.3
    pseudo_rows: float = 5.0
    most_anchors: int = 1024
    factor_steps: int = 300
    factor_pull: float = 30.0


@dataclass(frozen=True, eq=False)
class BeliefTraining:
    """What a fit gives.

    Attributes:
        belief: What serving needs.
        held_out: Particles of the training rows (N), the kernel of each without the row itself.
    """

    belief: Belief
    held_out: Particles


def train_belief(
    models: Sequence[str],
    scores: NDArray[np.floating],
    held_out: SuccessEstimate,
    options: BeliefOptions,
    rng: np.random.Generator,
    weights: FloatArray | None = None,
) -> BeliefTraining:
    """Fit the belief.

    Args:
        models: P model refs, those of the success model.
        scores: (N, P) outcomes 0..1; NaN where there is none.
        held_out: Held-out estimates of the same rows and models (`SuccessTraining.held_out`).
        options: Knobs.
        rng: Source of all randomness.
        weights: (N, P) how much each outcome counts; None: all 1.

    Raises:
        ValueError: Shapes do not fit, or a model has no outcome.
    """
    known = ~np.isnan(scores)
    if scores.shape != held_out.success.shape or scores.shape[1] != len(models):
        raise ValueError(f"scores {scores.shape} do not fit {len(models)} models and estimates of {len(held_out)} rows")
    if not known.any(axis=0).all():
        raise ValueError("leave out models without an outcome")
    passes = np.where(known, scores >= PASSING_SCORE, 0.0).astype(np.float32)
    counts = np.where(known, 1.0 if weights is None else weights, 0.0).astype(np.float32)
    passed, failed = score_levels(scores, counts)
    prior = logit((held_out.prior - failed) / np.maximum(passed - failed, 0.05))
    mixture = fit_classes(passes, counts, options, rng)
    seen = float(known.sum()) / scores.shape[1]
    points = normal_points(options.factor_points, rng)
    factor = fit_factor(prior, passes, counts, options, rng)
    anchors = rng.permutation(len(scores))[: options.most_anchors]
    belief = Belief(
        models=tuple(models),
        class_profile=mixture.profile,
        class_weight=mixture.weight,
        anchors=held_out.logits[anchors],
        anchor_class=mixture.members[anchors],
        bandwidth=options.bandwidth,
        pseudo_rows=options.pseudo_rows * len(anchors) / len(scores),
        class_share=seen / (seen + options.class_rows),
        points=points,
        intercept=factor.intercept,
        slope=factor.slope,
        centre=prior.mean(axis=0),
        loading=factor.loading,
        passed_score=passed,
        failed_score=failed,
    )
    particles = belief.bind(models).particles(held_out)
    held_weights = particles.weights.copy()
    held_weights[:, : len(mixture.weight)] = belief.class_share * _without_itself(held_out.logits, mixture, options)
    return BeliefTraining(belief, replace(particles, weights=held_weights))


@dataclass(frozen=True, eq=False)
class Classes:
    """A fitted mixture of independent Bernoullis.

    Attributes:
        weight: (J,) share of each class; sums to 1.
        profile: (J, P) P(pass) of each model in it.
        members: (N, J) P(class) of each row, given its outcomes.
    """

    weight: FloatArray
    profile: FloatArray
    members: FloatArray


@dataclass(frozen=True, eq=False)
class Factor:
    """A fitted difficulty factor; see `belief.Belief`."""

    intercept: FloatArray
    slope: float
    loading: FloatArray


def score_levels(scores: NDArray[np.floating], counts: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(P,) mean score of passing and of failing answers; 1 and 0 where there are none."""
    filled = np.nan_to_num(scores)
    passing = counts * (filled >= PASSING_SCORE)
    failing = counts - passing
    passed = np.divide((passing * filled).sum(0), passing.sum(0), out=np.ones(len(counts[0])), where=passing.sum(0) > 0)
    failed = np.divide(
        (failing * filled).sum(0), failing.sum(0), out=np.zeros(len(counts[0])), where=failing.sum(0) > 0
    )
    return passed.astype(np.float32), failed.astype(np.float32)


def fit_classes(passes: FloatArray, counts: FloatArray, options: BeliefOptions, rng: np.random.Generator) -> Classes:
    """Fit latent classes by expectation maximisation (Dempster et al. 1977).

    Args:
        passes: (N, P) 1 where the model passed, else 0.
        counts: (N, P) how much each outcome counts; 0 where there is none.
        options: Knobs.
        rng: Picks the rows that classes start from.
    """
    seen = (counts > 0.0).astype(np.float64)
    counts = counts.astype(np.float64)
    mean = (counts * passes).sum(axis=0) / counts.sum(axis=0)
    wanted = min(options.most_classes, max(4, len(passes) // 8), len(passes))
    first = rng.permutation(len(passes))[:wanted]
    start = np.where(seen[first] > 0.0, passes[first], mean)
    profile = np.clip(0.7 * start + 0.3 * mean, 0.05, 0.95)
    weight = np.full(wanted, 1.0 / wanted)
    members = np.empty((len(passes), wanted))
    for _ in range(_EM_STEPS):
        evidence = (seen * passes) @ np.log(profile).T + (seen * (1.0 - passes)) @ np.log1p(-profile).T
        evidence += np.log(weight)
        members = np.exp(evidence - evidence.max(axis=1, keepdims=True))
        members /= members.sum(axis=1, keepdims=True)
        size = members.sum(axis=0) + 0.1
        weight = size / size.sum()
        passed = members.T @ (counts * passes) + options.profile_rows * mean
        profile = np.clip(passed / (members.T @ counts + options.profile_rows), 1e-3, 1.0 - 1e-3)
    return Classes(weight.astype(np.float32), profile.astype(np.float32), members.astype(np.float32))


def fit_factor(
    prior: FloatArray, passes: FloatArray, counts: FloatArray, options: BeliefOptions, rng: np.random.Generator
) -> Factor:
    """Fit the difficulty factor by marginal likelihood over fixed points, with Adam.

    Args:
        prior: (N, P) logits of what the families say.
        passes: (N, P) 1 where the model passed, else 0.
        counts: (N, P) how much each outcome counts; 0 where there is none.
        options: Knobs.
        rng: Source of all randomness.
    """
    generator = torch.Generator().manual_seed(int(rng.integers(2**63 - 1)))
    points = torch.from_numpy(normal_points(2**_FIT_POINTS, rng))
    z, y, n = torch.from_numpy(prior), torch.from_numpy(passes), torch.from_numpy(counts)
    rows, models = z.shape
    centre = z.mean(dim=0)
    intercept = (1.2 * centre).clone().requires_grad_()
    slope = torch.ones((), requires_grad=True)
    loading = torch.randn(_RANK, models, generator=generator) * 0.1
    loading[0] += 0.8
    loading.requires_grad_()
    optimiser = torch.optim.Adam([intercept, slope, loading], lr=0.03)
    pull = options.factor_pull / rows

    def loss(chosen: Tensor) -> Tensor:
        logits = (intercept + slope * (z[chosen] - centre))[:, None] + points @ loading
        target = y[chosen][:, None].expand_as(logits)
        nats = nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
        evidence = -(nats * n[chosen][:, None]).sum(dim=2)
        apart = (loading - loading.mean(dim=1, keepdim=True)).square().sum()
        size, shift = loading.square().sum(), (intercept - 1.2 * centre).square().sum()
        penalty = 0.5 * pull * (apart + 0.1 * size + shift)
        return penalty - torch.logsumexp(evidence, dim=1).mean()

    for step in range(options.factor_steps):
        if step == options.factor_steps * 2 // 3:
            optimiser.param_groups[0]["lr"] = 0.006
        optimiser.zero_grad()
        torch.autograd.backward(loss(torch.randperm(rows, generator=generator)[:_FACTOR_BATCH]))
        optimiser.step()
        with torch.no_grad():
            slope.clamp_(*_SLOPES)
    return Factor(intercept.detach().numpy(), float(slope.detach()), loading.detach().numpy())


def normal_points(count: int, rng: np.random.Generator) -> FloatArray:
    """(count, rank) evenly spread points of the standard normal distribution (Sobol 1967, scrambled)."""
    power = max(1, int(np.ceil(np.log2(count))))
    uniform = qmc.Sobol(_RANK, seed=rng).random_base2(power)[:count]
    points = ndtri(np.clip(uniform, 1e-3, 1.0 - 1e-3))
    return np.asarray(points - points.mean(axis=0), dtype=np.float32)


def _without_itself(logits: FloatArray, classes: Classes, options: BeliefOptions) -> FloatArray:
    """(N, J) P(class) of each training row, by the others."""
    out = np.empty_like(classes.members)
    scale = 0.5 / options.bandwidth**2 / logits.shape[1]
    squares = np.square(logits).sum(axis=1)
    for start in range(0, len(logits), _CHUNK):
        part = logits[start : start + _CHUNK]
        distance = squares[start : start + _CHUNK][:, None] + squares - 2.0 * part @ logits.T
        kernel = np.exp(-scale * np.maximum(distance, 0.0))
        kernel[np.arange(len(part)), start + np.arange(len(part))] = 0.0
        total = kernel.sum(axis=1, keepdims=True) + options.pseudo_rows
        out[start : start + _CHUNK] = (kernel @ classes.members + options.pseudo_rows * classes.weight) / total
    return out
