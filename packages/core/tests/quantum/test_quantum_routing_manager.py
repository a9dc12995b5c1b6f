"""Whole decisions: every caller gets its own answer, whatever it was batched with and whatever broke."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from builders import (
    CHEAP,
    DEAR,
    MIDDLE,
    SECRET,
    Fixed,
    HashEmbedder,
    Model,
    SetClock,
    ask,
    chosen,
    engine,
    in_contract,
    refs_of,
    table,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from monkey_coder.errors import (
    AllUnavailableError,
    NoEligibleModelError,
    UnknownModelError,
    UnknownStrategyError,
)
from monkey_coder.models import COLLAPSE_NAMES, RoutingDecision
from monkey_coder.ports import DecisionEvent, RouteBatch, Scores
from monkey_coder.quantum.identifiers import SignedIds
from monkey_coder.quantum.interval import wilson

REFS = (CHEAP.ref, MIDDLE.ref, DEAR.ref)


class ByPrompt:
    """Prefers a model and expects a success that depend on the state, so that mixed-up rows are noticed."""

    name = "by_prompt"

    def score(self, batch: RouteBatch) -> Scores:
        success = (1.0 + np.tanh(batch.embedding[:, : len(batch.table)])) / 2
        rows = len(batch)
        return Scores(
            success, success[:, 0] * 0.5 + 0.25, np.zeros(rows, dtype=np.bool_), success, np.full_like(success, 9.0)
        )


# Each caller its own answer

KINDS = {
    "plain": {},
    "best_score": {"options": {"collapse_strategy": "best_score"}},
    "consensus": {"options": {"collapse_strategy": "consensus"}},
    "combined": {"options": {"collapse_strategy": "combined"}},
    "other_deadline": {"options": {"timeout_ms": 999}},
    "one_thread": {"options": {"max_threads": 1}},
    "one_strategy": {"options": {"strategies": ["balanced"]}},
    "floor": {"preferences": {"quality_floor": 0.5}},
    "excluding": {"excluded_models": [CHEAP.ref]},
    "preferring": {"preferred_providers": ["big"]},
    "unknown_model": {"excluded_models": ["no/such"]},
    "unknown_strategy": {"options": {"strategies": ["nobody"]}},
    "impossible": {"input_tokens": 10**9},
}
ERRORS = {
    "unknown_model": UnknownModelError,
    "unknown_strategy": UnknownStrategyError,
    "impossible": NoEligibleModelError,
}


def essence(part: Any, number: Callable[[float], Any] = float) -> Any:
    """An answer without what differs from call to call, its numbers as `number` makes them."""
    if isinstance(part, dict):
        unlike = ("decision_id", "execution_time_ms", "thread_results")
        return {name: essence(value, number) for name, value in part.items() if name not in unlike}
    if isinstance(part, list):
        return [essence(value, number) for value in part]
    return number(part) if isinstance(part, float) else part


def nearly(value: float) -> Any:
    """Sums may round otherwise in another batch, by the last digit of an answer."""
    return pytest.approx(value, abs=2e-4)


@settings(max_examples=40)
@given(st.lists(st.sampled_from(sorted(KINDS)), max_size=8))
def test_mixed_batches_answer_everyone_as_if_alone_and_in_order(kinds: list[str]) -> None:
    requests = [ask(f"task {n}", episode_id=f"episode {n}", **KINDS[kind]) for n, kind in enumerate(kinds)]
    with engine(ByPrompt(), Fixed("balanced", [0.3, 0.5, 0.4], success=[0.4, 0.5, 0.6])) as manager:
        together = manager.decide(requests)
        assert len(together) == len(requests)
        for number, (kind, request, answer) in enumerate(zip(kinds, requests, together, strict=True)):
            if kind in ERRORS:
                assert isinstance(answer, ERRORS[kind])
                continue
            (alone,) = manager.decide([request])
            assert answer["episode_id"] == f"episode {number}"
            assert answer["degraded"] == []
            assert essence(answer) == essence(alone, nearly)
            in_contract(answer)


def test_nobody_asking_gets_no_answers() -> None:
    with engine() as manager:
        assert manager.decide([]) == []


def test_decision_ids_are_genuine_and_begin_an_episode_where_there_is_none() -> None:
    with engine() as manager:
        answers = manager.decide([ask() for _ in range(20)])
    elsewhere = SignedIds(SECRET, SetClock(), bytes)
    assert len({a["decision_id"] for a in answers}) == 20
    assert all(elsewhere.issued_at(a["decision_id"]) is not None for a in answers)
    assert all(a["episode_id"] for a in answers)


def test_route_gives_a_decision_or_raises_what_the_caller_must_see() -> None:
    with engine() as manager:
        assert isinstance(manager.route(ask()), RoutingDecision)
        with pytest.raises(UnknownModelError):
            manager.route(ask(excluded_models=["no/such"]))
        with pytest.raises(UnknownStrategyError):
            manager.route(ask(options={"strategies": ["nobody"]}))


def test_no_candidate_lists_every_exclusion() -> None:
    with engine() as manager, pytest.raises(NoEligibleModelError) as caught:
        manager.route(ask(input_tokens=10**9))
    assert not isinstance(caught.value, AllUnavailableError)
    assert [(e.model, e.reason) for e in caught.value.excluded] == [(ref, "context_window") for ref in REFS]


def test_all_unavailable_is_worth_another_try() -> None:
    models = table(Model("a/down", available=False), Model("b/blind", can=frozenset()))
    with engine(models=models) as manager, pytest.raises(AllUnavailableError) as caught:
        manager.route(ask(requires={"tools": True}))
    assert caught.value.retry_after_s
    assert {e.model: e.reason for e in caught.value.excluded} == {"a/down": "unavailable", "b/blind": "capability"}


# What decides


@pytest.mark.parametrize("collapse", COLLAPSE_NAMES)
def test_the_collapse_asked_for_decides(collapse: str) -> None:
    # The most confident wants the cheap one, most want the dear one, the middle one has the best mean utility;
    # mean ranks: (2 * 1.4) / 2.3, 1 and (2 * 0.9) / 2.3.
    strategies = [
        Fixed("ann", [1.0, 0.9, -1.0], confidence=0.9),
        Fixed("ben", [-3.0, 0.79, 0.8], confidence=0.7),
        Fixed("cat", [-3.0, 0.79, 0.8], confidence=0.7),
    ]
    expected = {"best_score": CHEAP.ref, "consensus": DEAR.ref, "weighted": MIDDLE.ref, "combined": DEAR.ref}
    with engine(*strategies) as manager:
        decision = manager.route(ask(options={"collapse_strategy": collapse}))
    assert decision.collapse_strategy == collapse
    first = {"ann": CHEAP.ref, "ben": DEAR.ref, "cat": DEAR.ref}
    assert decision.ref == expected.get(collapse, first[decision.strategy_used])


def test_the_configured_collapse_decides_when_none_is_asked_for() -> None:
    with engine(collapse="consensus") as manager:
        assert manager.route(ask()).collapse_strategy == "consensus"


def test_only_the_strategies_asked_for_decide() -> None:
    with engine(Fixed("ann", [0.9, 0.1, 0.1]), Fixed("ben", [0.1, 0.1, 0.9])) as manager:
        answers = manager.decide([ask(options={"strategies": [name]}) for name in ("ann", "ben")])
    assert [(chosen(a), a["strategy_used"]) for a in answers] == [(CHEAP.ref, "ann"), (DEAR.ref, "ben")]


def test_reliability_earned_shifts_the_weights() -> None:
    strategies = [Fixed("ann", [0.9, 0.1, 0.1]), Fixed("ben", [0.1, 0.1, 0.8])]
    with engine(*strategies) as manager:
        assert manager.route(ask()).ref == CHEAP.ref
    with engine(*strategies, reliability={"ann": 0.2}) as manager:
        assert manager.route(ask()).ref == DEAR.ref


def test_an_abstaining_strategy_has_no_say() -> None:
    garbage = Fixed("mute", [np.nan, 9.0, 9.0], confidence=1.0, abstains=True, success=[np.nan] * 3, evidence=np.inf)
    sure = Fixed("sure", [0.9, 0.1, 0.1], success=[0.7, 0.6, 0.5], evidence=30.0)
    with engine(garbage, sure) as manager:
        decision = manager.route(ask())
    assert decision.ref == CHEAP.ref
    assert decision.expected.success == pytest.approx(0.7)
    assert decision.degraded == ()


def test_calibrated_chances_replace_priors_and_are_weighed_by_trust() -> None:
    strategies = [
        Fixed("ann", [0.9, 0.1, 0.1], confidence=0.75, success=[0.8] * 3, evidence=100.0),
        Fixed("ben", [0.9, 0.1, 0.1], confidence=0.25, success=[0.4] * 3, evidence=20.0),
        Fixed("prior", [0.9, 0.1, 0.1]),
    ]
    with engine(*strategies) as manager:
        expected = manager.route(ask()).expected
    low, high = wilson(np.float32([0.7]), np.float32([80.0]))
    assert expected.success == pytest.approx(0.7)
    assert (expected.success_low, expected.success_high) == pytest.approx((low[0], high[0]), abs=1e-4)


def test_preferred_providers_win_when_it_is_close_and_only_then() -> None:
    with engine(Fixed("only", [0.50, 0.53, 0.1]), preferred_bonus=0.05) as manager:
        assert manager.route(ask()).ref == MIDDLE.ref
        assert manager.route(ask(preferred_providers=["tiny"])).ref == CHEAP.ref
        assert manager.route(ask(preferred_providers=["big"])).ref == MIDDLE.ref
        assert manager.route(ask(preferred_providers=["unheard of"])).ref == MIDDLE.ref
        neighbour, preferring = manager.decide([ask(), ask(preferred_providers=["tiny"])])
        assert (chosen(neighbour), chosen(preferring)) == (MIDDLE.ref, CHEAP.ref)


# Quality floor

FLOORED = {"success": [0.8, 0.9, 0.95], "evidence": 1000.0}  # lower ends 0.778, 0.883, 0.938


@pytest.mark.parametrize(
    ("floor", "order"),
    [
        (0.7, [CHEAP.ref, MIDDLE.ref, DEAR.ref]),
        (0.85, [MIDDLE.ref, DEAR.ref, CHEAP.ref]),
        (0.92, [DEAR.ref, MIDDLE.ref, CHEAP.ref]),
        (1.0, [DEAR.ref, MIDDLE.ref, CHEAP.ref]),
    ],
)
@pytest.mark.parametrize("collapse", ["weighted", "best_score", "consensus", "combined"])
def test_with_a_floor_the_cheapest_that_surely_reaches_it_is_chosen(collapse, floor, order) -> None:
    with engine(Fixed("only", [0.9, 0.1, 0.5], **FLOORED)) as manager:
        decision = manager.route(ask(preferences={"quality_floor": floor}, options={"collapse_strategy": collapse}))
    assert refs_of(decision) == order


def test_without_evidence_no_floor_is_surely_reached() -> None:
    unsure = Fixed("only", [0.1, 0.2, 0.9], success=[0.8, 0.9, 0.95], evidence=1.0)
    with engine(unsure) as manager:
        decision = manager.route(ask(preferences={"quality_floor": 0.7}))
    assert decision.collapse_reasoning.startswith("no candidate surely reaches the quality floor")


def test_exploring_never_goes_below_the_floor() -> None:
    with engine(Fixed("only", [0.9, 0.1, 0.5], **FLOORED), epsilon=1.0) as manager:
        answers = manager.decide([ask(preferences={"quality_floor": 0.85}) for _ in range(200)])
        assert {chosen(a) for a in answers} == {DEAR.ref}
        unreachable = manager.decide([ask(preferences={"quality_floor": 1.0}) for _ in range(50)])
        assert {(chosen(a), a["explored"], a["propensity"]) for a in unreachable} == {(DEAR.ref, False, 1.0)}


# Gates bind everything

some_refs = st.lists(st.sampled_from(REFS), max_size=2)


@settings(max_examples=60)
@given(
    st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                "allowed_models": some_refs,
                "excluded_models": some_refs,
                "input_tokens": st.sampled_from([10, 100_000, 126_000]),
                "expected_output_tokens": st.sampled_from([10, 3_000]),
                "preferences": st.sampled_from([{"max_cost_usd": 0.01}, {"quality_floor": 0.5}, {"value_usd": 1e-200}]),
                "attempts": st.lists(
                    st.fixed_dictionaries({"model": st.sampled_from(REFS), "success": st.booleans()}), max_size=2
                ),
                "options": st.sampled_from([{"collapse_strategy": name} for name in COLLAPSE_NAMES]),
            },
        ),
        min_size=1,
        max_size=4,
    )
)
def test_chosen_alternatives_and_excluded_are_the_whole_catalog_once(fields) -> None:
    requests = [ask(**each) for each in fields]
    with engine(epsilon=0.5) as manager:
        answers = manager.decide(requests)
    for request, answer in zip(requests, answers, strict=True):
        if isinstance(answer, NoEligibleModelError):
            assert [e.model for e in answer.excluded] == list(REFS)
            continue
        decision = in_contract(answer)
        assert sorted(refs_of(decision)) == sorted(REFS)
        assert decision.ref not in request.request.excluded_models
        assert not request.request.allowed_models or decision.ref in request.request.allowed_models
        assert decision.degraded == ()


# Exploration


class Recorder:
    """A listener that keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[DecisionEvent] = []

    def on_decided(self, events: Sequence[DecisionEvent]) -> None:
        self.events.extend(events)


def test_models_are_served_as_often_as_the_propensities_say() -> None:
    recorder = Recorder()
    with engine(Fixed("only", [0.8, 0.75, 0.7]), epsilon=0.4, listeners=[recorder], seed=4) as manager:
        answers = [answer for _ in range(60) for answer in manager.decide([ask()] * 50)]
    distribution = recorder.events[0].distribution.astype(np.float64)
    counts = np.array([sum(chosen(a) == ref for a in answers) for ref in REFS])
    assert chisquare(counts, distribution / distribution.sum() * len(answers)).pvalue > 0.001
    for answer in answers:
        assert answer["propensity"] == pytest.approx(distribution[REFS.index(chosen(answer))], abs=1e-6)
        assert answer["explored"] == (chosen(answer) != CHEAP.ref)


def test_requests_that_opt_out_are_never_explored_even_beside_those_that_do_not() -> None:
    with engine(Fixed("only", [0.8, 0.75, 0.7]), epsilon=1.0) as manager:
        answers = manager.decide([ask(options={"explore": bool(n % 2)}) for n in range(100)])
    assert not any(a["explored"] for a in answers[::2])
    assert all(a["explored"] for a in answers[1::2])


def test_exploration_is_set_per_task_type() -> None:
    with engine(Fixed("only", [0.8, 0.75, 0.7]), epsilon={"debugging": 1.0}) as manager:
        curious, careful = manager.decide([ask(task_type="debugging"), ask(task_type="security")])
    assert (curious["explored"], careful["explored"]) == (True, False)


def test_a_seed_decides_everything() -> None:
    def run() -> list[tuple[str, float, bool]]:
        with engine(epsilon=0.5, seed=12) as manager:
            answers = manager.decide([ask(f"task {n}") for n in range(60)])
        return [(chosen(a), a["propensity"], a["explored"]) for a in answers]

    first = run()
    assert first == run()
    assert {explored for _, _, explored in first} == {True, False}


# Listeners and callers


def test_listeners_hear_of_each_decision_once_and_never_of_its_text() -> None:
    recorder = Recorder()
    with engine(ByPrompt(), listeners=[recorder], epsilon=0.5) as manager:
        requests = [ask(f"quite secret {n}", options={"collapse_strategy": COLLAPSE_NAMES[n % 5]}) for n in range(10)]
        answers = manager.decide(requests)
    by_id = {event.answer["decision_id"]: event for event in recorder.events}
    assert len(recorder.events) == len(by_id) == 10
    embedder = HashEmbedder()
    for request, answer in zip(requests, answers, strict=True):
        event = by_id[answer["decision_id"]]
        np.testing.assert_array_equal(event.batch.embedding[event.row], embedder.embed([request.request.prompt])[0])
        assert event.distribution.sum() == pytest.approx(1.0)
        assert event.distribution[REFS.index(chosen(answer))] == pytest.approx(answer["propensity"], abs=1e-5)
        assert event.duration_s >= 0.0
        assert "secret" not in repr(event.answer)


def test_callers_in_several_threads_get_their_own_answers() -> None:
    wrong: list[Any] = []
    with engine(ByPrompt(), epsilon=0.3) as manager:

        def call(caller: int) -> None:
            for turn in range(15):
                names = [f"{caller} {turn} {n}" for n in range(4)]
                answers = manager.decide([ask(name, episode_id=name) for name in names])
                if [a["episode_id"] for a in answers] != names or any(a["degraded"] for a in answers):
                    wrong.append(answers)

        callers = [threading.Thread(target=call, args=(n,)) for n in range(4)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
    assert wrong == []
