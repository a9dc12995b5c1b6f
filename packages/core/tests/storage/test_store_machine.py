"""Random histories: every store does what a few lists and dictionaries do."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from monkey_coder.storage.port import BEGINNING, START, Appended, DecisionRow, OutcomeRow, Retention

DAY_S = 86_400.0
KEEP = Retention(max_decisions=12, max_decision_age_s=30 * DAY_S, max_outcomes=8, policies=2)

SMALL = st.integers(0, 3)
TIMES = st.sampled_from([0.0, 1.0, 2.5, 7.0])
PAYLOADS = st.binary(max_size=3)
OUTCOMES = st.builds(
    OutcomeRow,
    decision_id=st.sampled_from("ab"),
    model=st.sampled_from(["a/x", "b/y"]),
    occurred_at=TIMES,
    payload=PAYLOADS,
    outcome_id=st.sampled_from([None, None, "1", "2"]),
)


@dataclass
class Naive:
    """What is stored, in the plainest form."""

    decisions: dict[str, DecisionRow] = field(default_factory=dict)
    log: list[tuple[OutcomeRow, Appended, OutcomeRow | None]] = field(default_factory=list)
    gone: int = 0
    policies: dict[int, bytes] = field(default_factory=dict)
    last_policy: int = 0
    current: int | None = None
    documents: dict[str, list[tuple[int, bytes]]] = field(default_factory=dict)

    def by_time(self) -> list[DecisionRow]:
        return sorted(self.decisions.values(), key=lambda row: row.place)

    def counting(self) -> list[tuple[int, OutcomeRow, OutcomeRow | None]]:
        return [
            (place, row, replaced)
            for place, (row, result, replaced) in enumerate(self.log)
            if place >= self.gone and result != Appended.LATE
        ]

    def append(self, row: OutcomeRow) -> Appended:
        standing = [other for _, other, _ in self.counting() if other.identity == row.identity]
        result, replaced = Appended.NEW, None
        if standing:
            last = standing[-1]
            if row.outcome_id is not None or (row.occurred_at, row.payload) == (last.occurred_at, last.payload):
                return Appended.DUPLICATE
            result, replaced = Appended.REPLACED, last
            if row.occurred_at <= last.occurred_at:
                result, replaced = Appended.LATE, None
        self.log.append((row, result, replaced))
        return result

    def trim(self, cutoff: float, limit: int) -> int:
        ordered = self.by_time()
        aged = sum(row.time_s < cutoff for row in ordered)
        decisions = min(max(aged, len(ordered) - KEEP.max_decisions, 0), limit)
        for row in ordered[:decisions]:
            del self.decisions[row.id]
        outcomes = min(max(len(self.log) - self.gone - KEEP.max_outcomes, 0), limit)
        self.gone += outcomes
        return decisions + outcomes


def machine(make_opener) -> type[RuleBasedStateMachine]:
    class StoreMachine(RuleBasedStateMachine):
        @initialize()
        def open(self) -> None:
            opener = make_opener()
            self.stores = [opener(KEEP), opener(KEEP)]  # as two processes
            self.naive = Naive()
            self.base = time.time()
            self.position, self.read = START, 0

        @rule(who=SMALL, rows=st.lists(st.tuples(st.sampled_from("abcdefgh"), TIMES, PAYLOADS), max_size=4))
        def append_decisions(self, who, rows) -> None:
            decisions = [DecisionRow(name, self.base + at, payload) for name, at, payload in rows]
            self.stores[who % 2].append_decisions(decisions)
            for row in decisions:
                self.naive.decisions.setdefault(row.id, row)

        @rule(who=SMALL, rows=st.lists(OUTCOMES, max_size=5))
        def append_outcomes(self, who, rows) -> None:
            assert self.stores[who % 2].append_outcomes(rows) == [self.naive.append(row) for row in rows]

        @rule(who=SMALL, limit=st.integers(1, 6))
        def read_on(self, who, limit) -> None:
            expected = [(row, replaced) for place, row, replaced in self.naive.counting() if place >= self.read]
            got = self.stores[who % 2].read_outcomes(self.position, limit)
            assert [(outcome.row, outcome.replaces) for outcome in got] == expected[: len(got)]
            assert bool(got) == bool(expected)
            if got:
                places = [place for place, _, _ in self.naive.counting() if place >= self.read]
                self.read = places[len(got) - 1] + 1
                self.position = got[-1].position

        @rule(who=SMALL, blob=PAYLOADS)
        def put_policy(self, who, blob) -> None:
            naive = self.naive
            naive.last_policy += 1
            naive.policies[naive.last_policy] = blob
            kept = {*sorted(naive.policies)[-KEEP.policies :], naive.current}
            naive.policies = {number: blob for number, blob in naive.policies.items() if number in kept}
            assert self.stores[who % 2].put_policy(blob, b"card") == naive.last_policy

        @rule(who=SMALL, back=SMALL, right=st.booleans())
        def set_current(self, who, back, right) -> None:
            number = self.naive.last_policy - back
            wanted = number if number in self.naive.policies else None
            expected = self.naive.current if right else 99
            assert self.stores[who % 2].set_current_policy(wanted, expected) == right
            if right:
                self.naive.current = wanted

        @rule(who=SMALL, name=st.sampled_from("xy"), value=PAYLOADS, off=st.sampled_from([0, 0, 1, -1]), keep=SMALL)
        def put_document(self, who, name, value, off, keep) -> None:
            versions = self.naive.documents.get(name, [])
            expected = max(0, (versions[0][0] if versions else 0) + off)
            right = expected == (versions[0][0] if versions else 0)
            assert self.stores[who % 2].put_document("kind", name, value, expected, keep) == right
            if right:
                self.naive.documents[name] = [(expected + 1, value), *versions][: keep + 1]

        @rule(who=SMALL, ahead=st.sampled_from([-5.0, 0.5, 2.0]), limit=st.integers(1, 5))
        def trim(self, who, ahead, limit) -> None:
            cutoff = self.base + ahead
            removed = self.stores[who % 2].trim(cutoff + KEEP.max_decision_age_s, limit)
            assert removed == self.naive.trim(cutoff, limit)

        @invariant()
        def agree(self) -> None:
            if not hasattr(self, "naive"):
                return
            for store in self.stores:
                assert store.decisions(BEGINNING, 100) == self.naive.by_time()
                assert (
                    store.recent_decisions(self.base + 1.0, 3)
                    == [row for row in reversed(self.naive.by_time()) if row.time_s >= self.base + 1.0][:3]
                )
            store = self.stores[0]
            for name in "ab":
                kept = [row for row, _, _ in self.naive.log[self.naive.gone :] if row.decision_id == name]
                assert store.outcomes_of(name) == kept
                row = self.naive.decisions.get(name)
                assert store.decision(name) == (row and row.payload)
            assert [card.number for card in store.policies()] == sorted(self.naive.policies)
            assert store.current_policy() == self.naive.current
            newest = {name: found.value for name, found in store.documents("kind").items()}
            assert newest == {name: versions[0][1] for name, versions in self.naive.documents.items()}
            for name, versions in self.naive.documents.items():
                assert [(old.version, old.value) for old in store.document_history("kind", name)] == versions

    return StoreMachine


def test_any_history_leaves_what_it_should(make_opener) -> None:
    run_state_machine_as_test(machine(make_opener), settings=settings(max_examples=20, stateful_step_count=25))
