"""Fitting `success_model.py` in torch: family classifier, ensemble, calibration; with honest held-out estimates.

Every row of the training data is held out by one member of the ensemble, which never saw it, and by one fold of the
family classifier. What these say of it is what serving would have said: everything that is trained on top (belief,
value network) must be trained on `SuccessTraining.held_out`, never on fitted values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monkey_coder.ports import FloatArray
from monkey_coder.quantum.success_model import SuccessEstimate, SuccessModel

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
        most_references: Embeddings kept to tell what is far.
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
    most_references: int = 4096


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
    raise NotImplementedError
