"""Fitting `success_model.py` in torch: family classifier, ensemble, calibration; with honest held-out estimates.

Every row of the training data is held out by one member of the ensemble, which never saw it, and by one fold of the
family classifier. What these say of it is what serving would have said: everything that is trained on top (belief,
value network) must be trained on `SuccessTraining.held_out`, never on fitted values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from monkey_coder.errors import TrainingDivergedError
from monkey_coder.ports import FloatArray, IntArray
from monkey_coder.quantum.family_training import choose_references, fit_families, fit_typical, name_families
from monkey_coder.quantum.neural_networks import Models, Observation, TwoTower, build_network
from monkey_coder.quantum.new_model import fit_logistic, learn_prior
from monkey_coder.quantum.policy import Policy
from monkey_coder.quantum.policy_file import NetworkConfig, NetworkShape, PolicyHeader
from monkey_coder.quantum.state_encoder import ENCODING_VERSION
from monkey_coder.quantum.success_model import (
    NO_FEATURES,
    SuccessEstimate,
    SuccessModel,
    estimate_evidence,
    logit,
    read_features,
    sigmoid,
    softmax,
    surprise,
)

_FIRST_VECTORS: Final = 0.25
_SMALL_TABLE: Final = 600
_SMALL_BATCH: Final = 32
_BATCH: Final = 128

Progress = Callable[[int, int, float], None]
"""Called after each epoch with the epoch (from 1), how many there may be, and the held-out loss in nats."""


@dataclass(frozen=True, eq=False)
class SuccessData:
    """N prompts with outcomes of P models.

    Attributes:
        embedding: (N, D) unit embeddings.
        marks: (N, MARKS) raw text marks.
        scores: (N, P) outcomes 0..1; NaN where there is none. Every model needs at least one.
        families: N names of families (task names).
        models: P model refs.
        weights: (N, P) how much each outcome counts, such as inverse propensities; None: all 1.
    """

    embedding: FloatArray
    marks: FloatArray
    scores: NDArray[np.floating]
    families: Sequence[str]
    models: Sequence[str]
    weights: FloatArray | None = None

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True, slots=True)
class SuccessOptions:
    """Knobs of the fit; the defaults served every table tried.

    Attributes:
        members: Networks in the ensemble, and folds, at least 2.
        hidden: Units of a member's hidden layer.
        width: Length of a model's vector.
        dropout: Share of inputs and of hidden units dropped, 0..1.
        epochs: Most passes over the rows.
        patience: Epochs without a better held-out loss of any member before it stops.
        learning_rate: Of AdamW.
        weight_decay: Of AdamW.
        prior_rows: Rows that the overall mean is worth in a family.
        least_family: Rows below which families are thrown together.
        family_penalty: Strength of the pull of the family classifier's weights to 0.
        most_references: Training prompts kept to tell what is far.
        far_share: Share of prompts like those of training that either test of farness may turn away, 0..1.
    """

    members: int = 6
    hidden: int = 48
    width: int = 6
    dropout: float = 0.4
    epochs: int = 80
    patience: int = 12
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2
    prior_rows: float = 10.0
    least_family: int = 5
    family_penalty: float = 1.0
    most_references: int = 512
    far_share: float = 0.01

    def __post_init__(self) -> None:
        for knob in ("members", "least_family"):
            if getattr(self, knob) < 2:
                raise ValueError(f"{knob} is {getattr(self, knob)}; it must be at least 2")
        for knob in ("hidden", "width", "epochs", "patience", "most_references"):
            if getattr(self, knob) < 1:
                raise ValueError(f"{knob} is {getattr(self, knob)}; it must be at least 1")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout is {self.dropout}; it must lie in 0..1, below 1")


@dataclass(frozen=True, eq=False)
class SuccessTraining:
    """What a fit gives.

    Attributes:
        model: What serving needs.
        held_out: (N, P) estimates of the training rows by what never saw them; no row is far.
        losses: Mean held-out loss in nats after each epoch.
    """

    model: SuccessModel
    held_out: SuccessEstimate
    losses: tuple[float, ...]


def train_success(
    data: SuccessData, options: SuccessOptions, rng: np.random.Generator, progress: Progress | None = None
) -> SuccessTraining:
    """Fit the success model.

    Args:
        data: At least 2 rows for each member.
        options: Knobs.
        rng: Source of all randomness: folds, initial weights, order, dropout.
        progress: Told after each epoch; may raise to stop.

    Raises:
        ValueError: Too few rows, or a model without an outcome.
        TrainingDivergedError: The loss is no longer finite.
    """
    outcomes = _Outcomes.of(data, options)
    folds = _folds(data.embedding, options.members, rng)
    shift, scale = _standard(data.marks)
    features = read_features(data.embedding, data.marks, shift, scale)
    count = len(outcomes.names)
    weight, bias = fit_families(features, outcomes.family, count, options.family_penalty)
    likely = np.empty((len(data), count), np.float32)
    for fold in range(options.members):
        part = folds == fold
        held_weight, held_bias = fit_families(features[~part], outcomes.family[~part], count, options.family_penalty)
        likely[part] = softmax(features[part] @ held_weight + held_bias)
    prior = outcomes.prior_without_itself(likely)
    seed = int(rng.integers(2**63 - 1))
    fit = _fit_ensemble(np.concatenate([features, likely], axis=1), prior, outcomes, folds, options, seed, progress)
    raw = logit(sigmoid(fit.held_out), 1e-4)
    slope, offset = _platt(raw, outcomes)
    logits = (slope * raw + offset).astype(np.float32)
    centre = logits.mean(axis=0)
    references, least_similarity = choose_references(
        features, outcomes.family, options.most_references, options.far_share, rng
    )
    typical = fit_typical(features, outcomes.family, count)
    surprises = np.empty(len(data), np.float32)
    for fold in range(options.members):
        part = folds == fold
        surprises[part] = surprise(features[part], *fit_typical(features[~part], outcomes.family[~part], count))
    model = SuccessModel(
        models=tuple(data.models),
        families=outcomes.names,
        mark_mean=shift,
        mark_scale=scale,
        family_weight=weight,
        family_bias=bias,
        family_success=outcomes.family_success,
        family_evidence=outcomes.family_evidence,
        mean=outcomes.mean,
        references=references,
        least_similarity=least_similarity,
        family_centre=typical[0],
        family_precision=typical[1],
        most_surprise=float(np.quantile(surprises, 1.0 - options.far_share)),
        network=_policy(fit.network, data.models),
        slope=slope,
        offset=offset,
        centre=centre,
        new_models=learn_prior(logits - centre, outcomes.known_scores()),
    )
    success = sigmoid(logits)
    held_out = SuccessEstimate(
        success=success,
        logits=logit(success),
        prior=prior,
        evidence=estimate_evidence(likely @ outcomes.family_evidence, success[None]),
        far=np.zeros(len(data), np.bool_),
        deviations=logits - centre,
    )
    return SuccessTraining(model, held_out, tuple(fit.losses))


@dataclass(frozen=True, eq=False)
class _Outcomes:
    """Scores and weights without gaps, and what they say about families.

    Attributes:
        scores: (N, P), 0 where there is no outcome.
        weights: (N, P), 0 where there is no outcome.
        family: (N,) index into `names`.
        names: G names.
        mean: (P,) overall mean.
        family_success: (G, P) shrunk means.
        family_evidence: (G, P) outcomes behind them, in effect (Kish 1965).
        without_itself: (N, P) shrunk mean of each row's own family without that row.
    """

    scores: FloatArray
    weights: FloatArray
    family: IntArray
    names: tuple[str, ...]
    mean: FloatArray
    family_success: FloatArray
    family_evidence: FloatArray
    without_itself: FloatArray

    @classmethod
    def of(cls, data: SuccessData, options: SuccessOptions) -> _Outcomes:
        known = ~np.isnan(data.scores)
        if not known.any(axis=0).all():
            without = [ref for ref, any_ in zip(data.models, known.any(axis=0), strict=True) if not any_]
            raise ValueError(f"leave out models without an outcome: {', '.join(without)}")
        if len(data) < 2 * options.members:
            raise ValueError(f"{len(data)} rows are too few for {options.members} members; give at least 2 for each")
        scores = np.where(known, data.scores, 0.0)
        weights = np.where(known, 1.0 if data.weights is None else data.weights, 0.0)
        names, family = name_families(data.families, options.least_family)
        one_hot = (family[:, None] == np.arange(len(names))).astype(np.float64)
        total, squares, sums = (one_hot.T @ part for part in (weights, weights**2, weights * scores))
        mean = sums.sum(axis=0) / total.sum(axis=0)

        def shrunk(s: NDArray[np.float64], w: NDArray[np.float64], w2: NDArray[np.float64]) -> NDArray[np.float64]:
            rows = _ratio(w**2, w2)
            return np.asarray((rows * _ratio(s, w) + options.prior_rows * mean) / (rows + options.prior_rows))

        left = shrunk(sums[family] - weights * scores, total[family] - weights, squares[family] - weights**2)
        return cls(
            scores=scores.astype(np.float32),
            weights=weights.astype(np.float32),
            family=family,
            names=names,
            mean=mean.astype(np.float32),
            family_success=shrunk(sums, total, squares).astype(np.float32),
            family_evidence=_ratio(total**2, squares).astype(np.float32),
            without_itself=left.astype(np.float32),
        )

    def prior_without_itself(self, likely: FloatArray) -> FloatArray:
        """(N, P) priors as serving computes them from (N, G) P(family), but each without its own outcomes."""
        rows = np.arange(len(self.family))
        own = likely[rows, self.family][:, None]
        return np.asarray(likely @ self.family_success + own * (self.without_itself - self.family_success[self.family]))

    def known_scores(self) -> FloatArray:
        """(N, P) scores, NaN where there is no outcome."""
        return np.where(self.weights > 0.0, self.scores, np.nan).astype(np.float32)


@dataclass(frozen=True, eq=False)
class _Fit:
    """A fitted ensemble; `held_out` (N, P) are logits by the member that did not see the row."""

    network: TwoTower
    held_out: FloatArray
    losses: list[float]


def _fit_ensemble(
    inputs: FloatArray,
    prior: FloatArray,
    outcomes: _Outcomes,
    folds: IntArray,
    options: SuccessOptions,
    seed: int,
    progress: Progress | None,
) -> _Fit:
    """Fit all members side by side, each without its fold and stopped where that fold is predicted best."""
    generator = torch.Generator().manual_seed(seed)
    shape = NetworkShape(state=inputs.shape[1], model=NO_FEATURES, slots=prior.shape[1])
    network = build_network(_config(options), shape, generator)
    with torch.no_grad():
        network.slot_vector.normal_(0.0, _FIRST_VECTORS, generator=generator)
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay, foreach=True
    )
    x, base = torch.from_numpy(inputs), torch.from_numpy(logit(prior))
    y, weights = torch.from_numpy(outcomes.scores), torch.from_numpy(outcomes.weights)
    held = torch.from_numpy(folds[None] == np.arange(options.members)[:, None]).float()[:, :, None]
    models = Models(torch.zeros(shape.slots, NO_FEATURES), torch.arange(shape.slots))
    best = torch.full((options.members,), torch.inf)
    kept = [parameter.detach().clone() for parameter in network.parameters()]
    batch = _SMALL_BATCH if len(x) <= _SMALL_TABLE else _BATCH
    losses: list[float] = []
    waited = 0
    for epoch in range(1, options.epochs + 1):
        order = torch.randperm(len(x), generator=generator)
        for rows in torch.split(order, batch):
            counts = weights[rows] * (1.0 - held[:, rows])
            logits = network(_observed(_thinned(x[rows], options.dropout, generator), base[rows]), models, generator)
            loss = _loss(logits, y[rows], counts).sum()
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
        with torch.no_grad():
            found = _loss(network(_observed(x, base), models), y, weights * held)
        if not bool(found.isfinite().all()):
            raise TrainingDivergedError("the success model's loss is no longer finite; lower the learning rate")
        better = found < best
        best = torch.where(better, found, best)
        for copy, parameter in zip(kept, network.parameters(), strict=True):
            copy[better] = parameter.detach()[better]
        losses.append(float(found.mean()))
        if progress is not None:
            progress(epoch, options.epochs, losses[-1])
        waited = 0 if bool(better.any()) else waited + 1
        if waited >= options.patience:
            break
    with torch.no_grad():
        for copy, parameter in zip(kept, network.parameters(), strict=True):
            parameter.copy_(copy)
        held_out = (network(_observed(x, base), models) * held).sum(dim=0).numpy()
    return _Fit(network, held_out, losses)


def _config(options: SuccessOptions) -> NetworkConfig:
    return NetworkConfig(
        name="per_model",
        state_hidden=(options.hidden,),
        width=options.width,
        failed_width=0,
        activation="relu",
        dropout=options.dropout,
        members=options.members,
    )


def _observed(inputs: Tensor, base: Tensor) -> Observation:
    return Observation(inputs, torch.ones_like(base, dtype=torch.bool), base=base)


def _thinned(inputs: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Drop a share of the inputs, and scale up the rest."""
    kept = torch.rand(inputs.shape, generator=generator) >= share
    return inputs * kept / (1.0 - share)


def _loss(logits: Tensor, scores: Tensor, counts: Tensor) -> Tensor:
    """(K,) mean cross-entropy in nats of each member's (K, N, P) logits, weighed by `counts`."""
    nats = nn.functional.binary_cross_entropy_with_logits(logits, scores.expand_as(logits), reduction="none")
    return (nats * counts).sum(dim=(1, 2)) / counts.sum(dim=(1, 2)).clamp(min=1e-9)


def _policy(network: TwoTower, models: Sequence[str]) -> Policy:
    header = PolicyHeader(network.config, network.shape, ENCODING_VERSION, tuple(models))
    return Policy(header, {name: array.numpy(force=True) for name, array in network.state_dict().items()})


def _platt(logits: FloatArray, outcomes: _Outcomes) -> tuple[float, float]:
    """Slope and offset that make held-out logits calibrated; with few outcomes they stay near 1 and 0."""
    known = outcomes.weights > 0.0
    x = np.stack([logits[known], np.ones(int(known.sum()))], axis=1)
    slope, offset = fit_logistic(
        x, outcomes.scores[known], np.array([1.0, 0.0]), np.array([10.0, 10.0]), outcomes.weights[known]
    )
    return float(np.clip(slope, 0.25, 4.0)), float(offset)


def _folds(embedding: FloatArray, count: int, rng: np.random.Generator) -> IntArray:
    """(N,) fold of each row, at random, but the same for rows of the same text."""
    _, text = np.unique(np.ascontiguousarray(embedding), axis=0, return_inverse=True)
    text = text.reshape(-1)
    fold_of = rng.permutation(int(text.max()) + 1) % count
    return np.asarray(fold_of[text], dtype=np.int64)


def _standard(marks: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean of each mark, and one over its deviation (0 where it never varies)."""
    deviation = marks.std(axis=0, dtype=np.float64)
    scale = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=deviation > 1e-6)
    return marks.mean(axis=0, dtype=np.float64).astype(np.float32), scale.astype(np.float32)


def _ratio(above: NDArray[np.float64], below: NDArray[np.float64]) -> NDArray[np.float64]:
    """Quotient, 0 where the divisor is 0 but for rounding."""
    return np.divide(above, below, out=np.zeros_like(above), where=below > 1e-9)
