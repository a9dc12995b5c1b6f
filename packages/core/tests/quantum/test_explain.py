"""Explanations are true: every number and every reason in them can be checked against the decision."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from builders import CHEAP, DEAR, MIDDLE, Failing, Fixed, HashEmbedder, Model, ask, engine, table
from deciding import MADE_AT, Moody, Recorder, explained, recorded
from hypothesis import given, settings
from hypothesis import strategies as st

from monkey_coder.models import COLLAPSE_NAMES
from monkey_coder.quantum.decision_log import records_of
from monkey_coder.quantum.decision_record import DecisionRecord
from monkey_coder.quantum.decision_views import decision_view
from monkey_coder.quantum.explain import PRECEDENTS, explain
from monkey_coder.quantum.explanation import Explanation, Precedent
from monkey_coder.quantum.flip_points import vary
from monkey_coder.quantum.replay import Replay
from monkey_coder.quantum.routing_strategies import objective_strategies
from monkey_coder.quantum.snapshot import EngineSnapshot

REFS = (CHEAP.ref, MIDDLE.ref, DEAR.ref)
ALIKE = table(
    *(Model(ref, success=0.5, input_usd=1e-6 * (place + 1), output_usd=0.0) for place, ref in enumerate(REFS))
)
"""Models whose order depends on the strategies alone, and on cost only between equals."""


def reasons(told: Explanation) -> str:
    assert told.instead is not None
    return " ".join(told.instead.reasons)


# Why not that one, for each collapse, with numbers that can be worked out by hand


def test_weighted_names_the_gap_and_each_strategys_part_in_it() -> None:
    ann, ben = Fixed("ann", [0.9, 0.5, 0.0], confidence=0.6), Fixed("ben", [0.2, 0.4, 0.0], confidence=0.2)
    told = explained(ask(options={"collapse_strategy": "weighted"}), ann, ben, models=ALIKE, instead=MIDDLE.ref)
    # (3 * 0.9 + 0.2) / 4 = 0.725 and (3 * 0.5 + 0.4) / 4 = 0.475
    assert told.winner == CHEAP.ref
    assert f"Its weighted utility is 0.475, lower by 0.25 than the 0.725 of {CHEAP.ref}." in reasons(told)
    assert "ann (75% of the vote) -0.4, ben (25% of the vote) +0.2" in reasons(told)


@pytest.mark.parametrize("collapse", ["best_score", "first_success"])
def test_a_single_decider_is_named_with_its_own_numbers(collapse: str) -> None:
    ann, ben = Fixed("ann", [0.9, 0.5, 0.0], confidence=0.6), Fixed("ben", [0.2, 0.4, 0.0], confidence=0.2)
    options = {"collapse_strategy": collapse, "max_threads": 1}
    told = explained(ask(options=options), ann, ben, models=ALIKE, instead=MIDDLE.ref)
    said = f"ann decided alone. Its utility by ann is 0.5, lower by 0.4 than the 0.9 of {CHEAP.ref}."
    assert said in reasons(told)


def test_consensus_counts_votes_and_looks_at_utility_only_between_equals() -> None:
    ann, ben = Fixed("ann", [0.9, 0.5, 0.0]), Fixed("ben", [0.8, 0.4, 0.0])
    cat, dan = Fixed("cat", [0.1, 0.6, 0.0]), Fixed("dan", [0.1, 0.2, 0.0])
    options = {"collapse_strategy": "consensus"}
    told = explained(ask(options=options), ann, ben, cat, models=ALIKE, instead=MIDDLE.ref)
    assert reasons(told).startswith(f"1 of 3 strategies put it first, 2 put {CHEAP.ref} first. In successes")
    tied = explained(ask(options=options), ann, ben, cat, dan, models=ALIKE, instead=MIDDLE.ref)
    assert reasons(tied).startswith(
        f"2 of 4 strategies put it first, 2 put {CHEAP.ref} first. "
        f"Its weighted utility is 0.425, lower by 0.05 than the 0.475 of {CHEAP.ref}."
    )


def test_combined_compares_mean_ranks() -> None:
    ann, ben = Fixed("ann", [0.9, 0.5, 0.7], confidence=0.6), Fixed("ben", [0.2, 0.4, 0.0], confidence=0.2)
    told = explained(ask(options={"collapse_strategy": "combined"}), ann, ben, models=ALIKE, instead=MIDDLE.ref)
    # (3 * 1 + 2) / 4 = 1.25 and (3 * 3 + 1) / 4 = 2.5
    assert f"Its mean rank among the strategies is 2.5, that of {CHEAP.ref} 1.25." in reasons(told)


def test_equals_are_told_apart_by_cost_and_that_is_said() -> None:
    told = explained(ask(), Fixed("only", [0.5, 0.5, 0.1]), models=ALIKE, instead=MIDDLE.ref)
    assert told.winner == CHEAP.ref
    assert f"the same as that of {CHEAP.ref}; of equals the cheaper goes first" in reasons(told)


@pytest.mark.parametrize(
    ("floor", "winner", "instead", "said"),
    [
        (0.9, MIDDLE.ref, CHEAP.ref, r"bound of its P\(success\), 0\.77\d+, does not reach the quality floor of 0\.9"),
        (0.7, CHEAP.ref, DEAR.ref, r"reaches the quality floor of 0\.7 too, but is expected to cost \S+ USD, \S+ more"),
        (0.99, DEAR.ref, CHEAP.ref, r"No candidate surely reaches .* 0\.99; .* 0\.77\d+, is further from it than"),
    ],
)
def test_a_floor_decides_by_lower_bounds_and_costs(floor: float, winner: str, instead: str, said: str) -> None:
    only = Fixed("only", [0.9, 0.1, 0.5], success=[0.8, 0.93, 0.95], evidence=1000.0)
    told = explained(ask(preferences={"quality_floor": floor}), only, instead=instead)
    assert told.winner == winner
    assert re.search(said, reasons(told))


def test_an_excluded_model_is_told_by_the_gate_that_stopped_it() -> None:
    told = explained(ask(input_tokens=10), Fixed("only", [0.1, 0.2, 0.9]), instead=DEAR.ref, models=table(
        CHEAP, MIDDLE, replace(DEAR, context_window=100)
    ))  # fmt: skip
    assert told.instead is not None
    assert told.instead.standing == "excluded"
    assert "the gate context_window: needs " in reasons(told)
    assert reasons(told).endswith(", has 100.")
    assert [e.model for e in told.excluded] == [DEAR.ref]
    shown = {model.model: model for model in told.models}
    assert (shown[DEAR.ref].rank, shown[DEAR.ref].utility, shown[DEAR.ref].opinions) == (None, None, ())


def test_what_was_served_and_what_was_not_there_are_said_as_such() -> None:
    only = Fixed("only", [0.9, 0.2, 0.1])
    served = explained(ask(), only, instead=CHEAP.ref)
    absent = explained(ask(), only, instead="nobody/knows")
    assert served.instead is not None
    assert served.instead.standing == "served"
    assert absent.instead is not None
    assert (absent.instead.standing, absent.instead.reasons) == (
        "unknown",
        ("It was not in the catalog when this was decided.",),
    )


def test_exploration_is_told_apart_from_the_choice() -> None:
    told = explained(ask(), Fixed("only", [0.9, 0.2, 0.1]), epsilon=1.0, instead=CHEAP.ref)
    assert told.winner == told.today == CHEAP.ref != told.served
    assert told.instead is not None
    assert told.instead.standing == "first"
    assert f"with probability 1 another candidate is tried, to learn, and this time that was {told.served}." in reasons(
        told
    )
    assert sum(model.probability for model in told.models) == pytest.approx(1.0)


def test_a_preferred_provider_is_part_of_the_reason() -> None:
    told = explained(ask(preferred_providers=["mid"]), Fixed("only", [0.50, 0.47, 0.1]), instead=CHEAP.ref)
    assert told.winner == MIDDLE.ref
    assert "preferred provider (-0.05)" in reasons(told)


def test_the_only_candidate_needs_no_runner_up() -> None:
    told = explained(ask(allowed_models=[DEAR.ref]), Fixed("only", [0.9, 0.2, 0.1]))
    assert told.why[-1] == "It is the only candidate."


NUMBER = r"[-+]?[\d.]+(?:e[-+]\d+)?"


@settings(max_examples=60)
@given(
    st.lists(st.lists(st.floats(-1, 1, width=16), min_size=3, max_size=3), min_size=1, max_size=3),
    st.sampled_from(COLLAPSE_NAMES),
    st.one_of(st.none(), st.floats(0.05, 0.95)),
    st.sampled_from(REFS),
)
def test_differences_in_reasons_are_the_differences_between_the_numbers_shown(
    opinions: list[list[float]], collapse: str, floor: float | None, instead: str
) -> None:
    strategies = [Fixed(f"s{place}", utility) for place, utility in enumerate(opinions)]
    request = ask(preferences={"quality_floor": floor}, options={"collapse_strategy": collapse, "max_threads": 1})
    told = explained(request, *strategies, Moody([0.4, 0.6, 0.8]), instead=instead)
    shown = {model.model: model for model in told.models}
    assert told.instead is not None
    assert told.today == told.winner == told.models[0].model
    if instead == told.winner:
        return
    mine, first = shown[instead], shown[told.winner]
    assert mine.rank is not None
    assert mine.rank > 1
    for way, gap, other in re.findall(
        rf"weighted utility is {NUMBER}, (lower|higher) by ({NUMBER}) than the ({NUMBER}) of", reasons(told)
    ):
        assert mine.utility is not None
        assert first.utility is not None
        assert float(gap) == pytest.approx(abs(mine.utility - first.utility), rel=1e-3, abs=1e-6)
        assert float(other) == pytest.approx(first.utility, rel=1e-3, abs=1e-6)
        assert (way == "lower") == (mine.utility < first.utility)
    (success, cost, latency, total) = (
        float(n)
        for n in re.search(
            rf"\(({NUMBER})\), {NUMBER} against {NUMBER} USD \(({NUMBER})\), {NUMBER} against {NUMBER} s "
            rf"\(({NUMBER})\); in all ({NUMBER})\.",
            reasons(told),
        ).groups()
    )
    assert success == pytest.approx(mine.expected.success - first.expected.success, rel=1e-3, abs=1e-6)
    assert (cost > 0) == (mine.expected.cost_usd < first.expected.cost_usd)
    assert total == pytest.approx(success + cost + latency, rel=1e-2, abs=1e-3)


# What is shown


def test_earlier_attempts_are_shown_as_they_ended() -> None:
    failed = {"model": CHEAP.ref, "success": False}
    silent = {"model": MIDDLE.ref, "success": False, "error_type": "timeout"}
    told = explained(ask(attempts=[failed, silent]), Fixed("one", [0.1, 0.2, 0.3]))
    ended = {view.model: view.attempt for view in told.models}
    assert ended == {CHEAP.ref: "rejected", MIDDLE.ref: "unanswered", DEAR.ref: None}


def test_every_strategys_opinion_on_every_candidate_is_shown() -> None:
    ann = Fixed("ann", [0.9, 0.5, 0.3], confidence=0.6)
    ben = Fixed("ben", [0.2, 0.4, 0.1], confidence=0.2, success=[0.3, 0.4, 0.5], evidence=10.0)
    mute, broken = Fixed("mute", [9.0] * 3, abstains=True), Failing("broken")
    (record,), _ = recorded(ann, ben, mute, broken, requests=[ask()], reliability={"ben": 0.5})
    view = decision_view(record)
    opinions = {model.model: {o.strategy: (o.utility, o.success) for o in model.opinions} for model in view.models}
    for place, ref in enumerate(REFS):
        assert opinions[ref].keys() == {"ann", "ben"}
        assert opinions[ref]["ann"] == (pytest.approx(ann.utility[place]), None)
        assert opinions[ref]["ben"] == (pytest.approx(ben.utility[place]), pytest.approx([0.3, 0.4, 0.5][place]))
    strategies = {strategy.strategy: strategy for strategy in view.strategies}
    assert [(s.status, s.voted) for s in strategies.values()] == [
        ("SUCCESS", True),
        ("SUCCESS", True),
        ("SUCCESS", False),
        ("FAILED", False),
    ]
    assert strategies["ann"].weight == pytest.approx(0.6 / 0.7)
    assert strategies["ben"].weight == pytest.approx(0.1 / 0.7)
    assert (strategies["ann"].model, strategies["mute"].model) == (CHEAP.ref, None)


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1))
def test_a_view_holds_what_the_answer_holds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    strategies = (*objective_strategies(), Moody(rng.uniform(0.1, 0.9, 3).tolist()))
    request = ask(f"task {seed}", options={"collapse_strategy": COLLAPSE_NAMES[seed % 5]})
    (record,), _ = recorded(*strategies, requests=[request], epsilon=0.3, seed=seed)
    view = decision_view(record)
    answer = view.decision
    assert view.made_at == MADE_AT
    assert view.preferences.model_dump() == request.preferences.model_dump()
    shown = {model.model: model for model in view.models}
    assert shown[answer.ref].probability == pytest.approx(answer.propensity, abs=1e-6)
    assert (view.winner == answer.ref) == (not answer.explored)
    for part, ref in [(answer, answer.ref), *((a, f"{a.provider}/{a.model}") for a in answer.alternatives)]:
        for name in ("success", "success_low", "success_high", "cost_usd"):
            assert getattr(shown[ref].expected, name) == pytest.approx(getattr(part.expected, name), abs=1e-4)
    for alternative in answer.alternatives:
        assert shown[f"{alternative.provider}/{alternative.model}"].utility == pytest.approx(
            alternative.score, abs=1e-4
        )
    assert [model.rank for model in view.models] == [1, 2, 3]


def test_an_infinite_opinion_does_not_break_the_answer() -> None:
    told = explained(ask(), Fixed("only", [np.inf, 0.2, -np.inf]))
    assert told.winner == CHEAP.ref
    assert Explanation.model_validate_json(told.model_dump_json()) == told


# What was learned since, and what is no longer there


def later(record: DecisionRecord, *strategies: Any, models: Any = None) -> Explanation:
    """Explain a record by an engine that has changed since."""
    with engine(*strategies, models=models) as manager:
        return explain(record, Replay(record, manager.snapshot()), MIDDLE.ref)


def record_of(*strategies: Any, **request: Any) -> DecisionRecord:
    (record,), _ = recorded(*strategies, requests=[ask(**request)])
    return record


def test_when_strategies_think_otherwise_today_that_is_said_and_flips_start_from_there() -> None:
    told = later(record_of(Fixed("only", [0.9, 0.5, 0.1])), Fixed("only", [0.1, 0.5, 0.9]))
    assert (told.winner, told.today) == (CHEAP.ref, DEAR.ref)
    assert any(DEAR.ref in note for note in told.notes)
    assert {axis.model for axis in told.flips if axis.quantity == "price"} == {DEAR.ref, MIDDLE.ref}
    assert reasons(told).startswith("Its weighted utility is 0.5, lower by 0.4 than the 0.9")  # as it was


@pytest.mark.parametrize(
    ("models", "said"),
    [
        (table(MIDDLE, CHEAP), f"the catalog no longer has {DEAR.ref}"),
        (table(MIDDLE), f"the catalog no longer has {CHEAP.ref}, {DEAR.ref}"),
    ],
)
def test_candidates_that_are_gone_leave_the_reasons_but_no_flip_points(models: Any, said: str) -> None:
    strategies = objective_strategies()
    told = later(record_of(*strategies), *strategies, models=models)
    assert (told.today, told.flips) == (None, ())
    assert told.notes == (f"there are no flip points: {said}",)
    assert told.why
    assert told.models


def test_a_catalog_in_another_order_and_with_new_models_changes_nothing() -> None:
    strategies = objective_strategies()
    record = record_of(*strategies, preferences={"value_usd": 0.5}, excluded_models=[MIDDLE.ref])
    before = later(record, *strategies)
    new = Model("new/wonder", success=1.0, input_usd=0.0, output_usd=0.0)
    after = later(record, *strategies, models=table(DEAR, new, CHEAP))  # the excluded one is gone
    assert after.today == before.today
    for one, other in zip(before.flips, after.flips, strict=True):
        assert (one.quantity, one.model) == (other.quantity, other.model)
        for a, b in ((one.lower, other.lower), (one.higher, other.higher)):
            assert (a and a.model) == (b and b.model)
            assert (a and a.at) == pytest.approx(b and b.at)


def test_strategies_that_are_gone_or_break_have_no_say() -> None:
    record = record_of(Fixed("ann", [0.9, 0.5, 0.1]), Fixed("ben", [0.1, 0.5, 0.8]))
    assert later(record, Fixed("ben", [0.1, 0.5, 0.8]), Fixed("new", [0.0, 9.0, 0.0])).today == DEAR.ref
    assert later(record, Failing("ann"), Fixed("ben", [0.1, 0.5, 0.8])).today == DEAR.ref
    assert later(record, Fixed("new", [0.1, 0.5, 0.9])).notes == (
        "there are no flip points: none of the strategies that decided exists any more",
    )
    mute = later(record, Failing("ann"), Fixed("ben", [0.0] * 3, abstains=True))
    assert (mute.today, mute.flips) == (None, ())
    assert "none of the strategies of today has an opinion" in mute.notes[0]


def test_a_request_in_another_encoding_is_not_shown_to_the_strategies() -> None:
    record = replace(record_of(Fixed("only", [0.9, 0.5, 0.1])), encoding_version=1)
    told = later(record, Failing("only"))
    assert "encoding 1" in told.notes[0]


def test_the_heuristics_decisions_are_explained_as_far_as_they_are_known() -> None:
    recorder = Recorder()
    with engine(Fixed("mute", [0.5] * 3, abstains=True), listeners=[recorder]) as manager:
        manager.decide([ask()])
        (record,) = records_of(recorder.events, MADE_AT)
        snapshot: EngineSnapshot = manager.snapshot()
    told = explain(record, Replay(record, snapshot), MIDDLE.ref)
    assert (told.served, told.winner) == (CHEAP.ref, CHEAP.ref)
    assert told.why == ("The heuristic always takes this one.",)
    assert (told.models, told.flips, told.today) == ((), (), None)
    assert told.instead is not None
    assert told.instead.standing == "unknown"
    assert "the heuristic decided" in told.notes[0]
    assert explain(record, Replay(record, snapshot), CHEAP.ref).instead.standing == "served"
    assert decision_view(record).winner == CHEAP.ref


def test_replaying_what_was_gives_what_was_decided() -> None:
    strategies = (*objective_strategies(), Moody([0.4, 0.6, 0.8]))
    requests = [
        ask(
            f"task {number}",
            preferences=[{}, {"value_usd": 0.01}, {"quality_floor": 0.4}][number % 3],
            options={"collapse_strategy": COLLAPSE_NAMES[number % 5], "max_threads": 1},
        )
        for number in range(30)
    ]
    records, snapshot = recorded(*strategies, requests=requests)
    for record in records:
        unchanged = vary(record, "quality_floor", -1, np.array([record.quality_floor] * 3))
        assert Replay(record, snapshot).winners(unchanged).tolist() == [record.winner] * 3


# Precedents


def test_precedents_are_asked_for_by_embedding_and_leave_the_decision_itself_out() -> None:
    record = record_of(Fixed("only", [0.9, 0.5, 0.1]))
    asked = []

    def find(embedding: Any, most: int) -> list[Precedent]:
        asked.append((embedding.tolist(), most))
        ids = [record.id, *(f"other {number}" for number in range(most))]
        return [Precedent(decision_id=i, similarity=0.9, model=CHEAP.ref, success=None) for i in ids[:most]]

    with engine(Fixed("only", [0.9, 0.5, 0.1])) as manager:
        told = explain(record, Replay(record, manager.snapshot()), None, find)
    assert asked == [(HashEmbedder().embed(["Fix the failing test"])[0].tolist(), PRECEDENTS + 1)]
    assert [p.decision_id for p in told.precedents] == [f"other {number}" for number in range(PRECEDENTS)]
