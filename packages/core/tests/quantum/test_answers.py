"""The words and numbers of an answer; how they come about is shown with the manager."""

from __future__ import annotations

import pytest
from builders import CHEAP, DEAR, MIDDLE, Failing, Fixed, ask, engine

from monkey_coder.models import COLLAPSE_NAMES, RoutingDecision
from monkey_coder.quantum.answers import degradations, silent_results, was_asked
from monkey_coder.quantum.thread_manager import ThreadOutcome

OUTCOMES = [
    ThreadOutcome("late", "TIMEOUT"),
    ThreadOutcome("broken", "FAILED", seconds=0.001, error="ValueError: x"),
    ThreadOutcome("fine", "SUCCESS", seconds=0.0012345),
    ThreadOutcome("stopped", "CANCELLED"),
]


def decide(*strategies, **request) -> RoutingDecision:
    with engine(*strategies) as manager:
        return manager.route(ask(**request))


def test_only_what_a_request_asked_for_degrades_it() -> None:
    assert degradations(None, OUTCOMES) == ["deadline", "strategy"]
    assert degradations(["late", "fine"], OUTCOMES) == ["deadline"]
    assert degradations(["broken"], OUTCOMES) == ["strategy"]
    assert degradations(["fine", "stopped"], OUTCOMES) == []


def test_silence_is_reported_strategy_by_strategy() -> None:
    assert silent_results(["broken", "late"], OUTCOMES) == [
        {"strategy": "late", "status": "TIMEOUT", "model": None, "confidence": None, "execution_time_ms": None},
        {"strategy": "broken", "status": "FAILED", "model": None, "confidence": None, "execution_time_ms": 1.0},
    ]


def test_everybody_is_asked_unless_named() -> None:
    assert was_asked(None, "any")
    assert was_asked(("any",), "any")
    assert not was_asked(("other",), "any")


def test_alternatives_are_the_rest_of_the_ranking_best_first() -> None:
    decision = decide(Fixed("only", [0.2, 0.9, 0.5]))
    assert decision.ref == MIDDLE.ref
    assert [f"{a.provider}/{a.model}" for a in decision.alternatives] == [DEAR.ref, CHEAP.ref]
    assert [a.score for a in decision.alternatives] == pytest.approx([0.5, 0.2])


def test_expectations_are_those_of_the_model_they_stand_beside() -> None:
    decision = decide(Fixed("only", [0.2, 0.9, 0.5]), input_tokens=100_000, expected_output_tokens=0)
    chosen, strong = decision.expected, decision.alternatives[0].expected
    assert (chosen.success, chosen.cost_usd, chosen.latency_ms) == pytest.approx((0.6, 0.1, 2000.0))
    assert (strong.success, strong.cost_usd, strong.latency_ms) == pytest.approx((0.9, 1.0, 8000.0))
    assert chosen.success_low < 0.6 < chosen.success_high


def test_thread_results_say_what_each_strategy_wanted() -> None:
    decision = decide(
        Fixed("one", [0.9, 0.1, 0.1], confidence=0.7), Failing("two"), Fixed("three", [0.5] * 3, abstains=True)
    )
    results = {r.strategy: (r.status, r.model, r.confidence) for r in decision.thread_results}
    assert results == {
        "one": ("SUCCESS", CHEAP.ref, 0.7),
        "two": ("FAILED", None, None),
        "three": ("SUCCESS", None, None),
    }


def test_thread_results_tell_of_those_asked_alone() -> None:
    with engine(Fixed("one", [0.9, 0.1, 0.1]), Fixed("two", [0.9, 0.1, 0.1])) as manager:
        first, second = manager.decide([ask(options={"strategies": [name]}) for name in ("one", "two")])
    assert [r["strategy"] for r in first["thread_results"]] == ["one"]
    assert [r["strategy"] for r in second["thread_results"]] == ["two"]


OPINIONS = (
    Fixed("ann", [0.9, 0.5, 0.1], confidence=0.9),
    Fixed("ben", [0.5, 0.9, 0.1], confidence=0.5),
    Fixed("cat", [0.5, 0.9, 0.1], confidence=0.5),
)


@pytest.mark.parametrize(
    ("collapse", "said"),
    [
        ("best_score", f"{CHEAP.ref} is the choice of ann, the most confident strategy; 1 of 3 strategies"),
        ("consensus", f"a majority agrees on {MIDDLE.ref}; 2 of 3 strategies"),
        ("weighted", f"{MIDDLE.ref} has the highest weighted utility; 2 of 3 strategies"),
        ("combined", f"{MIDDLE.ref} has the best mean rank; 2 of 3 strategies"),
    ],
)
def test_each_collapse_says_truly_how_it_decided(collapse, said) -> None:
    decision = decide(*OPINIONS, options={"collapse_strategy": collapse})
    assert decision.collapse_reasoning.startswith(said)
    assert decision.collapse_reasoning.startswith(decision.ref) or collapse == "consensus"


def test_first_success_names_who_answered_first() -> None:
    decision = decide(*OPINIONS, options={"collapse_strategy": "first_success"})
    wanted = {"ann": CHEAP.ref, "ben": MIDDLE.ref, "cat": MIDDLE.ref}[decision.strategy_used]
    assert decision.ref == wanted
    assert decision.collapse_reasoning == (
        f"{wanted} is the choice of {decision.strategy_used}, the first strategy to answer."
    )


def test_consensus_does_not_claim_a_majority_it_has_not() -> None:
    decision = decide(*OPINIONS[:2], options={"collapse_strategy": "consensus"})
    assert "majority agrees" not in decision.collapse_reasoning
    assert decision.ref in decision.collapse_reasoning


@pytest.mark.parametrize("collapse", COLLAPSE_NAMES)
def test_the_floor_is_named_when_it_decided(collapse) -> None:
    options = {"collapse_strategy": collapse}
    reached = decide(*OPINIONS, preferences={"quality_floor": 0.45}, options=options)
    assert reached.collapse_reasoning == (
        f"{MIDDLE.ref} is the cheapest of 2 candidates that surely reach the quality floor."
    )
    missed = decide(*OPINIONS, preferences={"quality_floor": 0.99}, options=options)
    assert missed.collapse_reasoning == f"no candidate surely reaches the quality floor; {DEAR.ref} comes closest."


def test_an_explored_choice_says_what_would_have_been_served() -> None:
    with engine(Fixed("only", [0.9, 0.1, 0.1]), epsilon=1.0) as manager:
        decision = manager.route(ask())
    assert decision.explored
    assert decision.ref != CHEAP.ref
    assert decision.collapse_reasoning.startswith(CHEAP.ref)
    assert decision.collapse_reasoning.endswith(f"; to learn, {decision.ref} is tried instead.")
    assert f"{decision.alternatives[0].provider}/{decision.alternatives[0].model}" == CHEAP.ref


def test_an_answer_repeats_what_the_request_fixed() -> None:
    decision = decide(
        Fixed("only", [0.9, 0.1, 0.1]),
        task_type="security",
        persona="architect",
        episode_id="my-episode",
        options={"cache": "bypass"},
    )
    assert (decision.context_type, decision.persona) == ("security", "architect")
    assert (decision.episode_id, decision.cache) == ("my-episode", "bypass")
    assert decision.decision_id != decision.episode_id


def test_versions_come_from_the_snapshot() -> None:
    with engine(Fixed("only", [0.9, 0.1, 0.1]), policy_version=7, config_version=3) as manager:
        decision = manager.route(ask())
    assert (decision.policy_version, decision.config_version, decision.experiment) == (7, 3, None)


@pytest.mark.parametrize(("most", "shown"), [(0, 0), (1, 1), (2, 2), (99, 2)])
def test_no_more_alternatives_than_configured(most, shown) -> None:
    with engine(Fixed("only", [0.9, 0.5, 0.1]), max_alternatives=most) as manager:
        assert len(manager.route(ask()).alternatives) == shown
