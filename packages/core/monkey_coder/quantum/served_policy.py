"""A trained policy as the web process serves it: estimate, belief, lookahead, and what the Q-network adds to it.

Numpy alone. A `TrainedParts` is bound to the models of one table, once per table, and then values whole batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from monkey_coder.ports import REJECTED, UNTRIED, FloatArray, IntArray, RouteBatch
from monkey_coder.quantum.belief import Belief, BoundBelief
from monkey_coder.quantum.cost_model import CostModel
from monkey_coder.quantum.particles import LookAhead, after, look_ahead
from monkey_coder.quantum.policy import EncodedModels, Policy
from monkey_coder.quantum.routing_value import adds, encode_models, observation
from monkey_coder.quantum.state_encoder import StateLayout
from monkey_coder.quantum.success_model import BoundSuccessModel, SuccessEstimate, SuccessModel


@dataclass(frozen=True, eq=False)
class TrainedParts:
    """What training leaves behind for serving; immutable.

    Attributes:
        success: P(success) before any attempt.
        belief: What failures of some models tell about the others.
        network: The Q-network, which adds to the lookahead; None: the lookahead alone.
        noise: Probability that a verdict of the verifier is wrong, as trained for.
        planned: Attempts of an episode, K, as trained for.
        version: Number of the policy.
        cost: What a request costs a model over what is usual; None: nothing was learned of it.
    """

    success: SuccessModel
    belief: Belief
    network: Policy | None
    noise: float
    planned: int
    version: int
    cost: CostModel | None = None


@dataclass(frozen=True, eq=False)
class Valuation:
    """What the policy thinks of a batch.

    Attributes:
        estimate: P(success) before any attempt.
        success: (B, M) expected score of each model's answer, the rejections so far counted in.
        stop: (B,) value of making no further attempt.
        q: (B, M) value of trying each model next and going on well, in successes; 0 for models that cannot be tried.
    """

    estimate: SuccessEstimate
    success: FloatArray
    stop: FloatArray
    q: FloatArray


@dataclass(frozen=True, eq=False)
class ServedPolicy:
    """A policy for the models of one table. Safe to use from any thread.

    Attributes:
        parts: What was trained.
        success: Bound to the table.
        belief: Bound to the table.
        encoded: The network's side of the models; None without a network.
    """

    parts: TrainedParts
    success: BoundSuccessModel
    belief: BoundBelief
    encoded: EncodedModels | None

    @classmethod
    def bind(cls, parts: TrainedParts, refs: Sequence[str], model_features: FloatArray) -> Self:
        """Prepare a policy for a table.

        Args:
            parts: What was trained.
            refs: M model refs; the policy need not know all of them.
            model_features: (M, F) the models encoded.
        """
        network = parts.network
        encoded = None if network is None else encode_models(network, refs, model_features)
        return cls(parts, parts.success.bind(refs), parts.belief.bind(refs), encoded)

    def value(self, batch: RouteBatch) -> Valuation:
        """Value every candidate of every request of a batch whose table this policy is bound to."""
        estimate = self.success.estimate(batch.state, batch.embedding, batch.success)
        cost = batch.cost_weight[:, None] * self.cost_usd(batch) + batch.latency_weight[:, None] * batch.latency_s
        weighted_cost = cost.astype(np.float32)
        rejected = batch.attempts == REJECTED
        if not rejected.any() and not (batch.attempts_left > 1).any():
            # One attempt at fresh tasks: nothing to plan, and no failure to learn from.
            q = np.where(batch.candidates, estimate.success - weighted_cost, np.float32(0.0))
            return Valuation(estimate, estimate.success, np.zeros(len(batch), np.float32), q)
        particles = self.belief.particles(estimate)
        if rejected.any():
            particles = after(particles, rejected, self.parts.noise)
        attempts_left = np.minimum(batch.attempts_left, self.parts.planned)
        look = look_ahead(
            particles,
            open_models=batch.candidates & (batch.attempts == UNTRIED),
            rejected=rejected,
            weighted_cost=weighted_cost,
            attempts_left=attempts_left,
            noise=self.parts.noise,
            planned=self.parts.planned,
        )
        return Valuation(estimate, look.success, look.stop, self._q(batch, look, attempts_left))

    def cost_usd(self, batch: RouteBatch) -> FloatArray:
        """(B, M) expected cost of one attempt, corrected by what was learned of such requests."""
        if self.parts.cost is None or not batch.cost_weight.any():
            return batch.cost_usd
        layout = StateLayout(batch.embedding.shape[1])
        marks = batch.state[:, layout.marks : layout.task]
        return np.asarray(batch.cost_usd * self.parts.cost.factors(batch.embedding, marks, batch.table.refs))

    def _q(self, batch: RouteBatch, look: LookAhead, attempts_left: IntArray) -> FloatArray:
        q = look.value
        if self.parts.network is not None and self.encoded is not None and adds(attempts_left):
            observed = observation(look, batch.candidates, attempts_left)
            q = self.parts.network.q_values(observed, self.encoded)
        return np.asarray(np.where(batch.candidates, q, 0.0), dtype=np.float32)
