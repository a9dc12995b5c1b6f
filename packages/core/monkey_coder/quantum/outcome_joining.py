"""Outcomes joined with their decisions: many at once, each counted once, corrections and late reports told apart."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from monkey_coder.errors import StoreFormatError
from monkey_coder.ports import OutcomeEvent
from monkey_coder.quantum.decision_facts import DecisionFacts
from monkey_coder.quantum.live_learning import JoinedOutcome
from monkey_coder.quantum.outcome_record import DECIDED_MODEL, OutcomeRecord
from monkey_coder.quantum.recent_decisions import RecentDecisions
from monkey_coder.storage.port import DecisionLog, OutcomeRow

Facts = DecisionFacts | StoreFormatError
"""Of a decision, or why they cannot be read."""

_log = logging.getLogger(__name__)
_LOOKED_UP: Final = 500
"""Decisions read at once."""


@dataclass(slots=True)
class Arrived:
    """An outcome that was read from the stream.

    Attributes:
        row: As stored.
        record: What it says.
        tries: How often its decision was looked for in vain.
        due: When to look again.
    """

    row: OutcomeRow
    record: OutcomeRecord
    tries: int = 0
    due: float = 0.0


@dataclass(slots=True)  # not frozen, which would make it slow to build: there are thousands a second
class Joined:
    """An outcome that counts, with its decision; not to be changed.

    Attributes:
        outcome: As it is learned from.
        row: As stored.
        facts: Of the decision.
    """

    outcome: JoinedOutcome
    row: OutcomeRow
    facts: DecisionFacts

    @property
    def event(self) -> OutcomeEvent:
        """As listeners see it."""
        model, record = self.outcome.model, self.outcome.record
        return OutcomeEvent(self.row.key, model, record.score, record.cost_usd, self.facts.origin, record.received_at)


class OutcomeJoiner:
    """Joins outcomes with decisions of this process, or of the log. For one thread at a time.

    Args:
        log: Where decisions are.
        remembered: Latest outcomes by which repeated and replaced ones are recognised.
        outlooks: Whether anybody wants to know what was foreseen.

    Attributes:
        recent: The latest decisions of this process; a listener.
    """

    def __init__(self, log: DecisionLog, remembered: int, *, outlooks: bool) -> None:
        self.recent = RecentDecisions()
        self._log, self._remembered, self._outlooks = log, remembered, outlooks
        self._latest: OrderedDict[str, float] = OrderedDict()

    def look_up(self, ids: Iterable[str]) -> dict[str, Facts]:
        """The facts of decisions, as far as they can be read; of those that repeat another one, what was foreseen then.

        Raises:
            StoreUnavailableError: The store does not answer.
        """
        found = self._read(dict.fromkeys(ids))
        if self._outlooks:
            repeats = {
                name: facts.origin
                for name, facts in found.items()
                if isinstance(facts, DecisionFacts) and facts.outlook is None and facts.origin != name
            }
            origins = self._read(dict.fromkeys(repeats.values())) if repeats else {}
            for name, origin in repeats.items():
                facts, repeated = found[name], origins.get(origin)
                if isinstance(repeated, StoreFormatError):
                    _log.warning("a repeated decision is passed over: %s", repeated)
                elif isinstance(facts, DecisionFacts) and repeated is not None:
                    found[name] = replace(facts, outlook=repeated.outlook)
        return found

    def join(self, arrived: Sequence[Arrived], facts: Mapping[str, Facts]) -> list[Joined]:
        """Join outcomes, in order; those without facts, and those that do not count, are left out."""
        joined = []
        for one in arrived:
            row, record, decision = one.row, one.record, facts.get(one.row.decision_id)
            if isinstance(decision, StoreFormatError):
                _log.warning("an outcome is passed over: %s", decision)
            elif decision is not None:
                model = decision.served if row.model == DECIDED_MODEL else row.model
                # The reporter belongs to it: a key corrects its own reports, and cannot make another's be unlearned.
                named = row.outcome_id is not None
                identity = row.identity if named else f"{record.reporter} {row.decision_id} {model}"
                known = self._latest.get(identity)
                if known is None or row.occurred_at >= known:
                    self._latest[identity] = row.occurred_at
                    outcome = JoinedOutcome(
                        identity, model, record, decision.task, decision.outlook, further=known is not None
                    )
                    joined.append(Joined(outcome, row, decision))
        while len(self._latest) > self._remembered:
            self._latest.popitem(last=False)
        return joined

    def forget(self, joined: Iterable[Joined]) -> None:
        """Take outcomes back that could not be learned from, so that they count when they are joined again."""
        for one in joined:
            if not one.outcome.further:
                self._latest.pop(one.outcome.identity, None)

    def _read(self, ids: Mapping[str, None]) -> dict[str, Facts]:
        found: dict[str, Facts] = {}
        elsewhere: list[str] = []
        for name in ids:
            facts = self.recent.get(name)
            if facts is None:
                elsewhere.append(name)
            else:
                found[name] = facts
        for start in range(0, len(elsewhere), _LOOKED_UP):
            for name, payload in self._log.decision_payloads(elsewhere[start : start + _LOOKED_UP]).items():
                try:
                    found[name] = DecisionFacts.of_payload(payload)
                except StoreFormatError as error:
                    found[name] = error
        return found
