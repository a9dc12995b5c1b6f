"""P(success) of each model for a request: what its family of tasks says, corrected by a small ensemble that reads it.

A *family* is a group of training rows with the same task name. A request comes without one, so a multinomial logistic
classifier on the embedding and the text marks says how likely each family is. The *prior* of a model is the mean of its
success in the families, weighed by these probabilities. An ensemble of small networks (`policy.py`) adds to the prior's
logit, and the mean of the members is calibrated (Platt 1999) on rows that no member saw.

A request is *far* where its features are less similar to those of every training prompt than nearly all of these are to
each other, or less typical of every family (Gaussian, with variances of its own for each family and feature) than
nearly all of them are of theirs. Then nothing but the overall means is known, and strategies should abstain. A model
that the training did not know is judged by `new_model.py`.

All of it is immutable numpy; `success_training.py` makes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from monkey_coder.errors import PolicyError
from monkey_coder.ports import BoolArray, FloatArray, IntArray
from monkey_coder.quantum.array_parts import Arrays, check_shapes, put_together, take_apart
from monkey_coder.quantum.new_model import NewModelPrior
from monkey_coder.quantum.policy import EncodedModels, Policy
from monkey_coder.quantum.policy_file import PolicyHeader
from monkey_coder.quantum.text_marks import MARKS

EMBEDDING_SCALE: Final = 8.0
"""The classifier and the ensemble read unit embeddings times this, so that they weigh as much as the marks."""

LEAST_SUCCESS: Final = 0.02
"""Probabilities are kept this far from 0 and 1: no family is so clear that one outcome could not surprise."""

NO_FEATURES: Final = 1
"""Length of the model features that the ensemble is given, and does not read."""

FAR_EVIDENCE: Final = 2.0
"""Outcomes that an estimate is worth where the request is far, or training did not know the model."""


def logit(probability: NDArray[np.floating], least: float = LEAST_SUCCESS) -> FloatArray:
    """Log odds of probabilities that are first cut to ``least .. 1 - least``."""
    cut = np.clip(probability, least, 1.0 - least)
    return np.asarray(np.log(cut / (1.0 - cut)), dtype=np.float32)


def sigmoid(value: NDArray[np.floating]) -> FloatArray:
    """Inverse of `logit`; never overflows."""
    return np.asarray(0.5 + 0.5 * np.tanh(0.5 * value), dtype=np.float32)


@dataclass(frozen=True, eq=False)
class SuccessEstimate:
    """What is expected of M models on B requests.

    Attributes:
        success: (B, M) calibrated P(success), 0..1.
        logits: (B, M) its log odds, cut as by `logit`.
        prior: (B, M) what the families alone say, 0..1.
        evidence: (B, M) outcomes that `success` is worth, above 0; sets the width of its interval.
        far: (B,) unlike anything seen in training; `success` then holds overall means, and strategies should abstain.
        deviations: (B, P) logits of all P models known to training, each less its mean over the training rows; what
            `new_model.NewModelPrior` reads.
    """

    success: FloatArray
    logits: FloatArray
    prior: FloatArray
    evidence: FloatArray
    far: BoolArray
    deviations: FloatArray

    def __len__(self) -> int:
        return len(self.success)

    def take(self, rows: Sequence[int] | IntArray) -> SuccessEstimate:
        """The same models with some of the requests."""
        return SuccessEstimate(
            self.success[rows],
            self.logits[rows],
            self.prior[rows],
            self.evidence[rows],
            self.far[rows],
            self.deviations[rows],
        )


@dataclass(frozen=True, eq=False)
class SuccessModel:
    """What training learned about P(success) of P models in G families; embeddings have D dimensions.

    Attributes:
        models: P model refs.
        families: G names of families.
        mark_mean: (MARKS,) mean of each text mark in training.
        mark_scale: (MARKS,) one over its deviation; 0 for a mark that never varied.
        family_weight: (D + MARKS, G) weights of the classifier.
        family_bias: (G,) its biases.
        family_success: (G, P) shrunk mean success in each family, 0..1.
        family_evidence: (G, P) how many outcomes are behind it.
        mean: (P,) mean success over all families, 0..1.
        references: (R, D + MARKS) features of training prompts, scaled to unit length.
        least_similarity: Cosine similarity to the nearest reference below which a request is far.
        family_centre: (G, D + MARKS) mean features of each family.
        family_precision: (G, D + MARKS) one over their variances.
        most_surprise: Twice the negative log density (`surprise`) under the best family, beyond which it is far.
        network: The ensemble, whose state is what `inputs` returns and whose slots are the P models.
        slope: Platt's slope, on log odds.
        offset: Platt's offset.
        centre: (P,) mean calibrated logit of each model over the training rows.
        new_models: How models unknown to training are judged.
    """

    models: tuple[str, ...]
    families: tuple[str, ...]
    mark_mean: FloatArray
    mark_scale: FloatArray
    family_weight: FloatArray
    family_bias: FloatArray
    family_success: FloatArray
    family_evidence: FloatArray
    mean: FloatArray
    references: FloatArray
    least_similarity: float
    family_centre: FloatArray
    family_precision: FloatArray
    most_surprise: float
    network: Policy
    slope: float
    offset: float
    centre: FloatArray
    new_models: NewModelPrior

    def bind(self, refs: Sequence[str]) -> BoundSuccessModel:
        """Prepare for the models of a table.

        Args:
            refs: M model refs, such as `ModelTable.refs`; they may name models unknown to training, and lack others.
        """
        slot = {ref: place for place, ref in enumerate(self.models)}
        slots = np.array([slot.get(ref, -1) for ref in refs], dtype=np.int64)
        every = self.network.encode_models(self.models, np.zeros((len(self.models), NO_FEATURES), np.float32))
        return BoundSuccessModel(self, slots, every)

    def features(self, embedding: FloatArray, marks: FloatArray) -> FloatArray:
        """(B, D + MARKS) what the classifier reads: scaled embedding, and standardised marks cut to -3..3."""
        return read_features(embedding, marks, self.mark_mean, self.mark_scale)

    def family_probability(self, features: FloatArray) -> FloatArray:
        """(B, G) P(family) of what `features` returned."""
        return softmax(features @ self.family_weight + self.family_bias)

    def is_far(self, features: FloatArray) -> BoolArray:
        """(B,) whether what `features` returned is unlike anything seen in training."""
        nearest = (unit(features) @ self.references.T).max(axis=1, initial=-1.0)
        strange = surprise(features, self.family_centre, self.family_precision) > self.most_surprise
        return np.asarray(strange | (nearest < self.least_similarity))

    def __post_init__(self) -> None:
        models, families, size = len(self.models), len(self.families), self.family_weight.shape[0]
        check_shapes(
            self,
            mark_mean=(MARKS,),
            mark_scale=(MARKS,),
            family_weight=(size, families),
            family_bias=(families,),
            family_success=(families, models),
            family_evidence=(families, models),
            mean=(models,),
            references=(len(self.references), size),
            family_centre=(families, size),
            family_precision=(families, size),
            centre=(models,),
        )

    @property
    def dimensions(self) -> int:
        """Length D of the embeddings."""
        return len(self.family_weight) - MARKS

    def to_arrays(self) -> tuple[Arrays, dict[str, Any]]:
        """Return arrays by name, and JSON values: all that `from_arrays` needs."""
        arrays, header = take_apart(self, but=frozenset({"network", "new_models"}))
        new_arrays, header["new_models"] = self.new_models.to_arrays()
        header["network"] = self.network.header.to_json()
        arrays |= {f"new_models.{name}": array for name, array in new_arrays.items()}
        arrays |= {f"network.{name}": array for name, array in self.network.weights.items()}
        return arrays, header

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], header: Mapping[str, Any]) -> Self:
        """Rebuild what `to_arrays` took apart.

        Raises:
            PolicyError: Something is missing, not finite, or does not fit.
        """
        try:
            about = PolicyHeader.from_json(header["network"])
            new_header = header["new_models"]
        except (KeyError, TypeError, ValueError) as error:
            raise PolicyError(f"the success model's description of its network is damaged: {error}") from error
        return put_together(
            cls,
            arrays,
            header,
            network=Policy(about, _under("network.", arrays)),
            new_models=NewModelPrior.from_arrays(_under("new_models.", arrays), new_header),
        )


@dataclass(frozen=True, eq=False)
class BoundSuccessModel:
    """A `SuccessModel` for the models of one table; immutable, may be used from any thread.

    Attributes:
        model: What was learned.
        slots: (M,) place of each table model in `model.models`, -1 where training did not know it.
        encoded: The ensemble's side of all P known models.
    """

    model: SuccessModel
    slots: IntArray
    encoded: EncodedModels

    @property
    def known(self) -> BoolArray:
        """(M,) whether training knew the model."""
        return self.slots >= 0

    def prior(self, state: FloatArray, embedding: FloatArray, table_success: FloatArray) -> FloatArray:
        """(B, M) the `prior` of `estimate` alone, in a fraction of its time; arguments as there."""
        model = self.model
        features = model.features(embedding, state[:, model.dimensions : model.dimensions + MARKS])
        prior: FloatArray = model.family_probability(features) @ model.family_success
        prior[model.is_far(features)] = model.mean
        return np.where(self.known, prior[:, self.slots], table_success)

    def estimate(self, state: FloatArray, embedding: FloatArray, table_success: FloatArray) -> SuccessEstimate:
        """Judge every model of the table for every request.

        Args:
            state: (B, S) encoded requests, of which the text marks are read.
            embedding: (B, D) unit embeddings.
            table_success: (B, M) the table's P(success), 0..1: believed of models that training did not know.
        """
        model = self.model
        features = model.features(embedding, state[:, model.dimensions : model.dimensions + MARKS])
        family = model.family_probability(features)
        member_logits = self._member_logits(features, family)
        chance = sigmoid(member_logits)
        logits = model.slope * logit(chance.mean(axis=0), 1e-4) + np.float32(model.offset)
        far = model.is_far(features)
        logits[far] = logit(model.mean)
        prior = family @ model.family_success
        prior[far] = model.mean
        evidence = estimate_evidence(family @ model.family_evidence, chance)
        evidence[far] = FAR_EVIDENCE
        deviations = logits - model.centre
        deviations[far] = 0.0
        return self._of_table(sigmoid(logits), prior, evidence, far, deviations, table_success)

    def _member_logits(self, features: FloatArray, family: FloatArray) -> FloatArray:
        """(K, B, P) what each member of the ensemble says."""
        prior = family @ self.model.family_success
        observation = {
            "state": np.concatenate([features, family], axis=1),
            "candidates": np.ones((len(features), len(self.model.models)), np.bool_),
            "base": logit(prior),
        }
        return self.model.network.member_values(observation, self.encoded)

    def _of_table(
        self,
        success: FloatArray,
        prior: FloatArray,
        evidence: FloatArray,
        far: BoolArray,
        deviations: FloatArray,
        table_success: FloatArray,
    ) -> SuccessEstimate:
        """Pick the table's models out of all known ones, and judge the others."""
        success, prior, evidence = (array[:, self.slots] for array in (success, prior, evidence))
        new = ~self.known
        if new.any():
            declared = table_success[:, new]
            success[:, new] = self.model.new_models.success(declared, deviations)
            prior[:, new] = declared
            evidence[:, new] = FAR_EVIDENCE
        return SuccessEstimate(success, logit(success), prior, evidence, far, deviations)


def read_features(
    embedding: FloatArray, marks: FloatArray, mark_mean: FloatArray, mark_scale: FloatArray
) -> FloatArray:
    """(B, D + MARKS) scaled embedding beside standardised marks, which are cut to -3..3."""
    out = np.empty((len(embedding), embedding.shape[1] + marks.shape[1]), np.float32)
    np.multiply(embedding, np.float32(EMBEDDING_SCALE), out=out[:, : embedding.shape[1]])
    np.clip((marks - mark_mean) * mark_scale, -3.0, 3.0, out=out[:, embedding.shape[1] :])
    return out


def unit(features: FloatArray) -> FloatArray:
    """The same directions with length 1; all zero stays all zero."""
    length = np.sqrt(np.square(features).sum(axis=1))[:, None]
    return np.asarray(np.divide(features, length, out=np.zeros_like(features), where=length > 1e-9))


def surprise(features: FloatArray, centre: FloatArray, precision: FloatArray) -> FloatArray:
    """(B,) twice the negative log density, but for a constant, of features (B, n) under the best of G Gaussians."""
    scaled = precision * centre
    constant = (scaled * centre).sum(axis=1) - np.log(precision).sum(axis=1)
    return np.asarray((np.square(features) @ precision.T - 2.0 * features @ scaled.T + constant).min(axis=1))


def softmax(values: FloatArray) -> FloatArray:
    """Probabilities along the last axis."""
    raised = np.exp(values - values.max(axis=-1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=-1, keepdims=True), dtype=np.float32)


def estimate_evidence(of_family: FloatArray, chance: FloatArray) -> FloatArray:
    """(B, P) outcomes that estimates are worth: those of the family, or fewer where the members (K, B, P) disagree."""
    if len(chance) < 2:
        return np.maximum(of_family, 1.0)
    mean, spread = chance.mean(axis=0), chance.var(axis=0, ddof=1)
    agreed = mean * (1.0 - mean) / np.maximum(spread, 1e-6)
    return np.asarray(np.clip(agreed, 1.0, np.maximum(of_family, 1.0)), dtype=np.float32)


def _under(prefix: str, arrays: Mapping[str, NDArray[Any]]) -> Arrays:
    """The arrays whose names begin with a prefix, by the rest of the name."""
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
