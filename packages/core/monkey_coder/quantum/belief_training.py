"""Fitting `belief.py`: latent classes by expectation maximisation, and a difficulty factor by marginal likelihood."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monkey_coder.ports import FloatArray
from monkey_coder.quantum.belief import Belief, Particles
from monkey_coder.quantum.success_model import SuccessEstimate


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
    raise NotImplementedError
