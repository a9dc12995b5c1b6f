"""Sessions keep their model while that pays, and not a moment longer."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from builders import Failing, Fixed, Model, ask, chosen, engine, heuristic_decision, in_contract, table
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from monkey_coder.catalog.table import ModelTable
from monkey_coder.models import COLLAPSE_NAMES
from monkey_coder.quantum.quantum_routing_manager import QuantumRoutingManager
from monkey_coder.quantum.session_affinity import NO_SESSION, SessionMemory, saving, stay_or_switch

OLD, NEW, OTHER = Model("a/old"), Model("b/new"), Model("c/other")
REFS = (OLD.ref, NEW.ref, OTHER.ref)
TOKENS = 1000


def cached(*share: float) -> ModelTable:
    """Three models at 1 USD per million tokens, of which the cache charges the given shares."""
    plain = table(OLD, NEW, OTHER)
    return ModelTable(
        refs=plain.refs,
        input_usd=plain.input_usd,
        output_usd=plain.output_usd,
        request_usd=plain.request_usd,
        context_window=plain.context_window,
        max_output=plain.max_output,
        capabilities=plain.capabilities,
        regions=plain.regions,
        success=plain.success,
        evidence=plain.evidence,
        latency_s=plain.latency_s,
        available=plain.available,
        cached_input_usd=plain.input_usd * np.array(share or (0.1, 0.1, 0.1)),
    )


def turn(manager: QuantumRoutingManager, session: str | None = "s", **request: Any) -> dict[str, Any]:
    """One request of a session whose value is 0.01 USD, with a thousand tokens: 0.09 successes are saved by staying.

    They cost 1 USD per million, of which the cache saves 90%; a USD is worth 100 successes.
    """
    request = {"preferences": {"value_usd": 0.01}, "input_tokens": TOKENS, "expected_output_tokens": 10} | request
    (answer,) = manager.decide([ask(session_id=session, **request)])
    assert isinstance(answer, dict), answer
    in_contract(answer)
    return answer


def begun(manager: QuantumRoutingManager, session: str = "s") -> None:
    """Put a session on the old model."""
    assert chosen(turn(manager, session, allowed_models=[OLD.ref])) == OLD.ref


@pytest.mark.parametrize("collapse", COLLAPSE_NAMES)
@pytest.mark.parametrize(("better_by", "served"), [(0.08, OLD.ref), (0.10, NEW.ref)])
def test_another_model_must_be_better_by_more_than_switching_costs(
    collapse: str, better_by: float, served: str
) -> None:
    with engine(Fixed("only", [0.5, 0.5 + better_by, 0.1]), models=cached()) as manager:
        begun(manager)
        answer = turn(manager, options={"collapse_strategy": collapse})
        assert chosen(answer) == served
        assert chosen(turn(manager, "another session")) == NEW.ref
        assert chosen(turn(manager, None)) == NEW.ref


def test_the_reason_names_both_models_and_is_said_only_when_it_is_the_reason() -> None:
    with engine(Fixed("only", [0.5, 0.55, 0.1]), models=cached()) as manager:
        first = turn(manager)
        assert "session" not in first["collapse_reasoning"]
        begun(manager)
        stayed = turn(manager)
        assert stayed["collapse_reasoning"] == (
            f"the session stays with {OLD.ref}: {NEW.ref} is not better by more than switching costs."
        )
        assert f"{stayed['alternatives'][0]['provider']}/{stayed['alternatives'][0]['model']}" == NEW.ref
        switched = turn(manager, input_tokens=10)  # next to nothing in the cache
        assert chosen(switched) == NEW.ref
        assert "session" not in switched["collapse_reasoning"]
        assert "session" not in turn(manager)["collapse_reasoning"]  # the winner has the place already


def test_longer_sessions_are_dearer_to_leave() -> None:
    with engine(Fixed("only", [0.5, 0.8, 0.1]), models=cached()) as manager:
        begun(manager)
        assert chosen(turn(manager, input_tokens=10_000)) == OLD.ref
        assert chosen(turn(manager, input_tokens=1_000)) == NEW.ref


def test_without_a_cheaper_cache_there_is_nothing_to_stay_for() -> None:
    with engine(Fixed("only", [0.5, 0.5001, 0.1]), models=cached(1.0, 0.1, 0.1)) as manager:
        begun(manager)
        assert chosen(turn(manager)) == NEW.ref


def test_it_yields_at_once_when_its_model_failed() -> None:
    with engine(Fixed("only", [0.5, 0.51, 0.1]), models=cached()) as manager:
        begun(manager)
        failed = [{"model": OLD.ref, "success": False, "error_type": "provider_error"}]
        assert chosen(turn(manager, attempts=failed)) == NEW.ref
        assert chosen(turn(manager)) == NEW.ref  # and it does not come back for nothing


@pytest.mark.parametrize(
    "gate",
    [
        {"excluded_models": [OLD.ref]},
        {"allowed_models": [NEW.ref, OTHER.ref]},
        {"attempts": [{"model": OLD.ref, "success": False}]},
    ],
)
def test_it_yields_at_once_to_a_gate(gate: dict[str, Any]) -> None:
    with engine(Fixed("only", [0.5, 0.51, 0.1]), models=cached()) as manager:
        begun(manager)
        assert chosen(turn(manager, **gate)) == NEW.ref


@pytest.mark.parametrize(("floor", "served"), [(0.55, OLD.ref), (0.75, NEW.ref)])
def test_it_stays_only_where_the_quality_floor_is_reached(floor: float, served: str) -> None:
    sure = Fixed("only", [0.5, 0.51, 0.1], success=[0.7, 0.9, 0.1], evidence=10_000.0)
    with engine(sure, models=cached()) as manager:
        begun(manager)
        assert chosen(turn(manager, preferences={"value_usd": 0.01, "quality_floor": floor})) == served


def test_a_session_that_keeps_its_model_is_not_explored_and_others_are() -> None:
    with engine(Fixed("only", [0.5, 0.55, 0.5]), models=cached(), epsilon=1.0) as manager:
        begun(manager)
        for _ in range(20):  # staying against a better one
            answer = turn(manager)
            assert (chosen(answer), answer["explored"], answer["propensity"]) == (OLD.ref, False, 1.0)
        assert turn(manager, None)["explored"]
    with engine(Fixed("only", [0.9, 0.55, 0.5]), models=cached(), epsilon=1.0) as manager:
        begun(manager)
        for _ in range(20):  # and with the best: to explore would throw its cache away
            answer = turn(manager)
            assert (chosen(answer), answer["explored"], answer["propensity"]) == (OLD.ref, False, 1.0)


def test_what_exploration_served_is_the_model_that_the_session_used() -> None:
    with engine(Fixed("only", [0.5, 0.51, 0.1]), models=cached(), epsilon=1.0) as manager:
        explored = turn(manager)
        assert explored["explored"]
        assert chosen(explored) != NEW.ref
        assert manager.sessions.last("s") == chosen(explored)


def test_what_the_heuristic_served_is_the_model_that_the_session_used() -> None:
    models = cached()
    with engine(Failing(), models=models, heuristic=lambda _: heuristic_decision(models, 2)) as manager:
        turn(manager)
        assert manager.sessions.last("s") == OTHER.ref


def test_sessions_of_one_batch_are_told_apart() -> None:
    with engine(Fixed("only", [0.5, 0.55, 0.1]), models=cached()) as manager:
        begun(manager, "stays")
        parts = {"preferences": {"value_usd": 0.01}, "input_tokens": TOKENS, "expected_output_tokens": 10}
        answers = manager.decide([ask(session_id=session, **parts) for session in ("new", "stays", None, "stays")])
    assert [chosen(answer) for answer in answers] == [NEW.ref, OLD.ref, NEW.ref, OLD.ref]


def test_a_model_that_left_the_catalog_is_no_longer_kept() -> None:
    memory = SessionMemory()
    memory.use("s", "gone/model")
    memory.use("t", NEW.ref)
    assert memory.columns(["s", "t", None, "unheard of"], cached()).tolist() == [NO_SESSION, 1, NO_SESSION, NO_SESSION]


def test_the_memory_is_bounded_and_forgets_what_was_used_longest_ago() -> None:
    memory = SessionMemory(most=3)
    for session in ("a", "b", "c", "a", "d"):
        memory.use(session, OLD.ref)
    assert [memory.last(session) for session in "abcd"] == [OLD.ref, None, OLD.ref, OLD.ref]


def test_many_threads_may_use_one_memory() -> None:
    memory, wrong = SessionMemory(most=50), []

    def work(caller: int) -> None:
        for n in range(500):
            session = f"{caller} {n}"
            memory.use(session, session)
            if memory.last(session) not in (session, None):
                wrong.append(session)

    callers = [threading.Thread(target=work, args=(caller,)) for caller in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert wrong == []
    assert sum(memory.last(f"{c} {n}") is not None for c in range(8) for n in range(500)) == 50


def prices(batch_weight: float, models: ModelTable) -> Any:
    """The part of a batch that affinity looks at."""

    class Priced:
        table = models
        cost_weight = np.array([batch_weight], dtype=np.float32)

    return Priced()


@given(
    utility=arrays(np.float32, (1, 3), elements=st.floats(-2, 1, width=32)),
    acceptable=arrays(np.bool_, (1, 3)),
    winner=st.integers(0, 2),
    last=st.integers(-1, 2),
    tokens=st.integers(0, 10**6),
    weight=st.floats(0, 1e4),
)
def test_the_rule_holds_for_all_numbers(
    utility: Any, acceptable: Any, winner: int, last: int, tokens: int, weight: float
) -> None:
    batch, count = prices(weight, cached()), np.array([tokens])
    (column,), (stays,) = stay_or_switch(np.array([winner]), np.array([last]), utility, acceptable, count, batch)
    may = last not in (NO_SESSION, winner) and bool(acceptable[0, last])
    saved = float(np.float32(weight)) * tokens * 0.9e-6
    assert saving(np.array([max(last, 0)]), count, batch)[0] == pytest.approx(saved)
    gap = float(utility[0, winner]) - float(utility[0, last])
    assert column == (last if stays else winner)
    if not may:
        assert not stays
    elif abs(gap - saved) > 1e-6 * max(1.0, saved):  # nearer than that, rounding decides
        assert stays == (gap < saved)
