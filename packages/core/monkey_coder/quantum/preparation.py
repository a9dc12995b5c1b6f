"""From requests to the batch that strategies look at: names, analysis, gates, weights, encoding."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from monkey_coder.catalog.named_models import require_known_models
from monkey_coder.core.complexity import analyse, estimate_tokens
from monkey_coder.errors import UnknownStrategyError
from monkey_coder.lean_values import lean
from monkey_coder.models import RouteRequest, TaskAnalysis
from monkey_coder.ports import ACCEPTED, REJECTED, UNANSWERED, UNTRIED, FloatArray, IntArray, RouteBatch, TextEmbedder
from monkey_coder.quantum.budget_pacing import paced_weights
from monkey_coder.quantum.gates import Gated, apply_gates
from monkey_coder.quantum.reward import reference_weights, references
from monkey_coder.quantum.snapshot import EngineSnapshot
from monkey_coder.quantum.state_encoder import RequestFacts, encode_states, task_and_context
from monkey_coder.quantum.text_marks import text_marks


@lean
class Prepared:
    """A batch that is ready to be scored, with what the answer will say about its making.

    Attributes:
        requests: B requests.
        analyses: B analyses of their prompts.
        gated: Which model failed which gate.
        batch: What strategies see.
    """

    requests: Sequence[RouteRequest]
    analyses: Sequence[TaskAnalysis]
    gated: Gated
    batch: RouteBatch

    def take(self, rows: Sequence[int]) -> Prepared:
        """The same for some of the requests."""
        return Prepared(
            [self.requests[row] for row in rows],
            [self.analyses[row] for row in rows],
            self.gated.take(rows),
            self.batch.take(rows),
        )


def check_names(request: RouteRequest, snapshot: EngineSnapshot) -> None:
    """Make sure that every model and strategy that a request names exists.

    Raises:
        UnknownModelError: A ref that is not in the catalog; the message says where it stands.
        UnknownStrategyError: A strategy that nothing is registered under.
    """
    require_known_models(request, snapshot.table)
    for name in request.quantum_config.strategies or ():
        if name not in snapshot.strategies:
            raise UnknownStrategyError(name, tuple(snapshot.strategies))


def prepare(requests: Sequence[RouteRequest], snapshot: EngineSnapshot, embedder: TextEmbedder) -> Prepared:
    """Make a batch of requests whose names have been checked.

    Args:
        requests: At least one.
        snapshot: The models.
        embedder: For the prompts.

    Returns:
        The batch; rows in the order of the requests.
    """
    table = snapshot.table
    analyses = [analyse(request.request) for request in requests]
    tokens = np.array(
        [estimate_tokens(r.request, a) for r, a in zip(requests, analyses, strict=True)], dtype=np.int64
    ).reshape(-1, 2)
    attempts, spent = _attempts(requests, snapshot)
    gated = apply_gates(requests, table, tokens[:, 0], tokens[:, 1], attempts < UNTRIED)
    candidates = gated.candidates
    cost_ref, latency_ref = references(gated.cost_usd, table.latency_s, candidates)
    preferences = [request.preferences for request in requests]
    cost_weight, latency_weight = reference_weights(preferences, cost_ref, latency_ref)
    cost_weight = paced_weights(preferences, cost_weight, snapshot.pace)
    prompts = [request.request.prompt for request in requests]
    task, context = task_and_context(analyses)
    facts = RequestFacts(
        embedding=embedder.embed(prompts),
        marks=text_marks(prompts),
        task=task,
        context=context,
        complexity=np.array([analysis.complexity for analysis in analyses], dtype=np.float32),
        tokens=tokens,
        attempts=attempts,
        spent_usd=spent,
        cost_weight=cost_weight,
        latency_weight=latency_weight,
        cost_ref=cost_ref,
        latency_ref=latency_ref,
        quality_floor=np.array([p.quality_floor or 0.0 for p in preferences], dtype=np.float32),
    )
    state = encode_states(facts, table)
    success, cost_usd = _expectations(snapshot, state, task, gated.cost_usd)
    batch = RouteBatch(
        table=table,
        state=state,
        embedding=facts.embedding,
        model_features=snapshot.model_features,
        task=task,
        complexity=facts.complexity,
        candidates=candidates,
        attempts=attempts,
        attempts_left=np.array([attempts_left(r, snapshot.max_attempts) for r in requests], dtype=np.int64),
        success=success,
        evidence=table.evidence.take(task, axis=0),
        cost_usd=cost_usd,
        latency_s=table.latency_s[None, :].repeat(len(requests), axis=0),
        cost_weight=cost_weight,
        latency_weight=latency_weight,
        quality_floor=facts.quality_floor,
        setback_logits=snapshot.setback_logits,
    )
    return Prepared(requests, analyses, gated, batch)


def _expectations(
    snapshot: EngineSnapshot, state: FloatArray, task: IntArray, cost_usd: NDArray[np.float64]
) -> tuple[FloatArray, FloatArray]:
    """(B, M) P(success) and (B, M) expected cost: as outcomes taught, or as the table says while there are none.

    A trained policy foretells costs itself, from the table's.
    """
    table = snapshot.table
    if snapshot.estimate is None:
        return table.success.take(task, axis=0), cost_usd.astype(np.float32)
    success, learned_usd = snapshot.estimate.of(table).expect(state, task, cost_usd)
    return success, learned_usd if snapshot.policy_version is None else cost_usd.astype(np.float32)


def attempts_left(request: RouteRequest, max_attempts: int) -> int:
    """How many attempts a caller may still make, this one included.

    A request that names an episode, or attempts, comes from a caller who verifies answers and comes back when one is
    rejected. Any other is taken as one attempt.
    """
    episode = request.episode
    if episode.episode_id is None and not episode.attempts:
        return 1
    return max(1, max_attempts - len(episode.attempts))


def _attempts(
    requests: Sequence[RouteRequest], snapshot: EngineSnapshot
) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
    """(B, M) how earlier attempts ended, and (B,) what they cost; a success outweighs failures, these errors."""
    attempts = np.zeros((len(requests), len(snapshot.table)), dtype=np.int8)
    spent = np.zeros(len(requests), dtype=np.float64)
    for row, request in enumerate(requests):
        for attempt in request.episode.attempts:
            column = snapshot.table.index[attempt.model]
            if attempt.success:
                attempts[row, column] = ACCEPTED
            elif attempts[row, column] != ACCEPTED and attempt.error_type is None:
                attempts[row, column] = REJECTED
            elif attempts[row, column] == UNTRIED:
                attempts[row, column] = UNANSWERED
            spent[row] += attempt.cost_usd or 0.0
    return attempts, spent
