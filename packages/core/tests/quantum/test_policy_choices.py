"""What would have been served on logged decisions is what the live engine serves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from builders import CHEAP, DEAR, MIDDLE, Model, ask, engine, table
from colours import MODELS, ColourEmbedder
from deciding import Recorder, recorded
from logged_world import WORTH, strategies_of
from reporting import changed

from monkey_coder.models import COLLAPSE_NAMES
from monkey_coder.quantum.decision_log import records_of
from monkey_coder.quantum.decision_record import DecisionRecord
from monkey_coder.quantum.policy_bundle import PolicyBundle
from monkey_coder.quantum.policy_choices import NOBODY, Chooser, in_columns
from monkey_coder.quantum.training_pipeline import TrainedPolicy

FAILED = {"model": "made/red", "success": False, "cost_usd": 0.02}
ASKED: list[dict[str, Any]] = [
    {},
    {"preferences": WORTH},
    {"preferences": {"quality_floor": 0.3}},
    {"preferences": {"quality_floor": 0.99}},
    {"preferred_providers": ["made"]},
    {"excluded_models": ["made/blue"]},
    {"episode_id": "an episode", "attempts": [FAILED], "preferences": WORTH},
    *(
        {"options": {"collapse_strategy": name}, "preferences": WORTH}
        for name in COLLAPSE_NAMES
        if name != "first_success"
    ),
]


def decided(bundle: PolicyBundle | None) -> list[DecisionRecord]:
    """Decisions of a live engine with all kinds of requests, some of them explored."""
    recorder = Recorder()
    asked = [
        ask(f"make it {colour}, number 0 {place}", **request)
        for place, request in enumerate(ASKED)
        for colour in ("red", "blue", "green")
    ]
    with engine(
        *strategies_of(bundle), models=MODELS, epsilon=0.3, embedder=ColourEmbedder(), listeners=[recorder]
    ) as manager:
        manager.decide(asked)
    return records_of(recorder.events, 0.0)


@pytest.mark.parametrize("learned", [False, True])
def test_it_chooses_what_the_engine_put_first(learned: bool, trained_policy: TrainedPolicy) -> None:
    bundle = None
    if learned:
        bundle = PolicyBundle(trained_policy.parts, trained_policy.memory, trained_policy.reliability, {})
    records = decided(bundle)
    chosen = Chooser.of(MODELS, bundle).choose(records)
    assert [MODELS.refs[column] for column in chosen] == [record.refs[record.winner] for record in records]
    assert len(set(chosen.tolist())) > (2 if learned else 0)


def test_another_policy_may_choose_otherwise(trained_policy: TrainedPolicy) -> None:
    bundle = PolicyBundle(trained_policy.parts, trained_policy.memory, trained_policy.reliability, {})
    records = decided(None)
    assert (Chooser.of(MODELS, bundle).choose(records) != Chooser.of(MODELS, None).choose(records)).any()


def test_models_come_and_go() -> None:
    (record,), _ = recorded(*strategies_of(None), requests=[ask()], models=table(CHEAP, MIDDLE, DEAR))
    today = table(DEAR, Model("new/one", success=1.0, request_usd=0.0), CHEAP)
    (chosen,) = Chooser.of(today, None).choose([record])
    assert today.refs[chosen] in (DEAR.ref, CHEAP.ref)  # the new one was no candidate then
    (nobody,) = Chooser.of(table(Model("new/one"), Model("new/two")), None).choose([record])
    assert nobody == NOBODY


def test_what_the_heuristic_decided_is_not_chosen_again() -> None:
    (record,), snapshot = recorded(*strategies_of(None), requests=[ask()])
    odd = changed(record, collapse_strategy="gary8d")
    assert Chooser.of(snapshot.table, None).choose([odd, record]).tolist()[0] == NOBODY
    assert Chooser.of(snapshot.table, None).choose([odd, record]).tolist()[1] != NOBODY


def test_nothing_was_eligible() -> None:
    (record,), snapshot = recorded(*strategies_of(None), requests=[ask()])
    marks = record.marks.copy()
    marks[record.layout.marks["exclusions"]] = 1
    assert Chooser.of(snapshot.table, None).choose([replace(record, marks=marks)]).tolist() == [NOBODY]


def test_values_are_laid_under_their_columns() -> None:
    rows = [(("a", "b"), np.array([1.0, 2.0])), (("c", "a"), np.array([3.0, 4.0]))]
    assert in_columns(rows, ("b", "a", "d"), 9.0).tolist() == [[2.0, 1.0, 9.0], [9.0, 4.0, 9.0]]
