"""Hard rules: which models may be chosen for a request at all, and why the others may not.

Gates bind everything that comes after them: strategies, exploration, fallback chains and cache hits. They
are evaluated for a whole batch; the words for an exclusion are made only when somebody reads them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from monkey_coder.catalog.table import CAPABILITIES, ModelTable
from monkey_coder.lean_values import lean
from monkey_coder.models import Exclusion, ExclusionReason, RouteRequest
from monkey_coder.ports import BoolArray, IntArray

REASONS: Final[tuple[ExclusionReason, ...]] = (
    "allowed_models",
    "excluded_model",
    "already_tried",
    "capability",
    "region",
    "context_window",
    "max_output",
    "budget",
    "unavailable",
)
"""In the order in which they are looked at: the first that applies is the one reported."""

ROUNDING: Final = 1e-9
"""Share of a budget by which sums of money may miss it: 0.5 - 0.4 must leave enough for a cost of 0.1."""

_CODE: Final = {reason: code for code, reason in enumerate(REASONS, start=1)}
_CAPABILITY_COLUMN: Final = {name: column for column, name in enumerate(CAPABILITIES)}


@lean
class Gated:
    """The outcome of all gates for a batch.

    Attributes:
        table: The models, one a column.
        codes: (B, M) uint8; 0 passed every gate, else 1 + the index into `REASONS`.
        input_tokens: (B,) tokens of prompt and files.
        output_tokens: (B,) expected tokens of the answer.
        cost_usd: (B, M) expected cost of one attempt.
        budget_usd: (B,) what is left to spend; infinite where there is no budget.
    """

    table: ModelTable
    codes: NDArray[np.uint8]
    input_tokens: IntArray
    output_tokens: IntArray
    cost_usd: NDArray[np.float64]
    budget_usd: NDArray[np.float64]

    @property
    def candidates(self) -> BoolArray:
        """(B, M) whether a model passed every gate."""
        return np.equal(self.codes, 0)

    def take(self, rows: Sequence[int]) -> Gated:
        """The gates of some of the requests."""
        return Gated(
            self.table,
            self.codes[rows],
            self.input_tokens[rows],
            self.output_tokens[rows],
            self.cost_usd[rows],
            self.budget_usd[rows],
        )

    def only_unavailable(self, row: int) -> bool:
        """Whether models would fit this request, but all of those are unavailable."""
        codes = self.codes[row]
        return bool(not (codes == 0).any() and (codes == _CODE["unavailable"]).any())

    def exclusions(self, row: int, request: RouteRequest) -> tuple[Exclusion, ...]:
        """Put the exclusions of one request into words, in catalog order."""
        return tuple(
            Exclusion(model=self.table.refs[column], reason=reason, detail=self._detail(reason, row, column, request))
            for column in np.flatnonzero(self.codes[row]).tolist()
            for reason in [REASONS[self.codes[row, column] - 1]]
        )

    def _detail(self, reason: ExclusionReason, row: int, column: int, request: RouteRequest) -> str:
        table = self.table
        match reason:
            case "context_window":
                need = int(self.input_tokens[row] + self.output_tokens[row])
                return f"needs {need} tokens, has {int(table.context_window[column])}"
            case "max_output":
                return f"needs {int(self.output_tokens[row])} tokens of answer, has {int(table.max_output[column])}"
            case "capability":
                missing = [
                    n for n in needed_capabilities(request) if not table.capabilities[column, _CAPABILITY_COLUMN[n]]
                ]
                return f"lacks {', '.join(missing)}"
            case "region":
                wanted = ", ".join(request.request.requires.regions)
                return f"needs one of {wanted}; has {', '.join(sorted(table.regions[column])) or 'none'}"
            case "budget":
                left = self.budget_usd[row]
                return f"expected to cost {self.cost_usd[row, column]:.6f} USD, {left:.6f} USD are left"
            case "already_tried":
                return "an earlier attempt of this episode ended without success"
            case "allowed_models":
                return "not among request.allowed_models"
            case "excluded_model":
                return "named in request.excluded_models"
            case "unavailable":
                return "its provider is unavailable at the moment"


def needed_capabilities(request: RouteRequest) -> tuple[str, ...]:
    """Names of the capabilities that a request requires."""
    requires = request.request.requires
    return tuple(name for name in ("tools", "vision", "json_mode") if getattr(requires, name))


def apply_gates(
    requests: Sequence[RouteRequest],
    table: ModelTable,
    input_tokens: IntArray,
    output_tokens: IntArray,
    rejected: BoolArray,
) -> Gated:
    """Hold every model against every gate of every request.

    Model refs in the requests must be known to the table.

    Args:
        requests: The batch (B).
        table: The models (M).
        input_tokens: (B,) tokens of prompt and files.
        output_tokens: (B,) expected tokens of the answer.
        rejected: (B, M) models that an earlier attempt of the episode tried without success.

    Returns:
        Which model failed which gate first.
    """
    cost = (
        input_tokens[:, None] * table.input_usd + output_tokens[:, None] * table.output_usd + table.request_usd[None, :]
    )
    budgets = [_budget_left(request) for request in requests]
    budget = np.array(budgets, dtype=np.float64)
    codes = np.zeros(cost.shape, dtype=np.uint8)
    # From the last rule to the first, so that the first that applies is the one that stands.
    if not table.all_available:
        codes[:, ~table.available] = _CODE["unavailable"]
    if min(budgets, default=np.inf) < np.inf:
        codes[cost > budget[:, None]] = _CODE["budget"]
    needed = input_tokens + output_tokens
    if max(needed.tolist(), default=0) > table.least_limit:
        codes[output_tokens[:, None] > table.max_output] = _CODE["max_output"]
        codes[needed[:, None] > table.context_window] = _CODE["context_window"]
    for row, request in enumerate(requests):
        requires = request.request.requires
        if requires.tools or requires.vision or requires.json_mode or requires.regions:
            _apply_requirements(codes[row], request, table)
    codes[rejected] = _CODE["already_tried"]
    for row, request in enumerate(requests):
        if request.request.excluded_models or request.request.allowed_models:
            _apply_lists(codes[row], request, table)
    return Gated(table, codes, input_tokens, output_tokens, cost, budget)


def _budget_left(request: RouteRequest) -> float:
    budget = request.preferences.max_cost_usd
    if budget is None:
        return np.inf
    spent = sum(attempt.cost_usd or 0.0 for attempt in request.episode.attempts)
    return max(0.0, budget * (1.0 + ROUNDING) - spent)


def _apply_requirements(codes: NDArray[np.uint8], request: RouteRequest, table: ModelTable) -> None:
    requires = request.request.requires
    if requires.regions:
        wanted = frozenset(requires.regions)
        codes[[not (tags & wanted) for tags in table.regions]] = _CODE["region"]
    for name in needed_capabilities(request):
        codes[~table.capabilities[:, _CAPABILITY_COLUMN[name]]] = _CODE["capability"]


def _apply_lists(codes: NDArray[np.uint8], request: RouteRequest, table: ModelTable) -> None:
    task = request.request
    if task.excluded_models:
        codes[[table.index[ref] for ref in task.excluded_models]] = _CODE["excluded_model"]
    if task.allowed_models:
        allowed = np.zeros(len(table), dtype=np.bool_)
        allowed[[table.index[ref] for ref in task.allowed_models]] = True
        codes[~allowed] = _CODE["allowed_models"]
