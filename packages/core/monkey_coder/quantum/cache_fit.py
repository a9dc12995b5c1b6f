"""Whether a decision that was made for one prompt may be given for another: every gate is asked anew."""

from __future__ import annotations

import numpy as np
import orjson

from monkey_coder.catalog.table import ModelTable
from monkey_coder.core.complexity import analyse, estimate_tokens
from monkey_coder.models import RouteRequest
from monkey_coder.quantum.cache_entry import CachedDecision, availability
from monkey_coder.quantum.gates import apply_gates


def fitted_to(entry: CachedDecision, request: RouteRequest, table: ModelTable) -> CachedDecision | None:
    """The decision as it is to be given for another prompt, or None when it must not be.

    It must not when the prompt is of another task type, when the model does not pass every gate, or when another model
    passes now that did not pass then, and so was never compared.

    Args:
        entry: A decision that stands, made for the same request but for its prompt.
        request: What is asked now; models that it names must be known.
        table: The models.
    """
    analysis = analyse(request.request)
    if analysis.task_type != entry.task or any(
        attempt.model not in table.index for attempt in request.episode.attempts
    ):
        return None
    attempts = request.episode.attempts
    accepted = {attempt.model for attempt in attempts if attempt.success}
    rejected = np.zeros((1, len(table)), dtype=np.bool_)
    rejected[0, [table.index[a.model] for a in attempts if a.model not in accepted]] = True
    tokens = np.array(estimate_tokens(request.request, analysis), dtype=np.int64)
    gated = apply_gates([request], table, tokens[:1], tokens[1:], rejected)
    out = {table.refs[column] for column in np.flatnonzero(gated.codes[0]).tolist()}
    before = {each["model"]: each for each in orjson.loads(entry.answer)["excluded"]}
    if entry.ref in out or not out.issuperset(before):
        return None
    told = [exclusion.model_dump() for exclusion in gated.exclusions(0, request)]
    unavailable = tuple(each["model"] for each in told if each["reason"] == "unavailable")
    other = entry.restricted(told, availability(table), unavailable)
    other.of_other, other.hits = True, 0
    return other
