"""The hard rules: whatever a request asks for, nothing unfit passes, and every exclusion tells the truth."""

from __future__ import annotations

import numpy as np
import pytest
from builders import Model, route_request, table
from hypothesis import given, settings
from hypothesis import strategies as st

from monkey_coder.catalog.table import CAPABILITIES
from monkey_coder.models import RouteRequest
from monkey_coder.quantum.gates import Gated, apply_gates, needed_capabilities

REFS = ("a/one", "a/two", "b/one/with/slashes", "c/three")
REGIONS = ("eu", "us", "no-training")

models = st.tuples(
    *(
        st.builds(
            Model,
            ref=st.just(ref),
            input_usd=st.sampled_from([0.0, 1e-6, 1e-5]),
            output_usd=st.sampled_from([0.0, 4e-6, 5e-5]),
            request_usd=st.sampled_from([0.0, 0.01]),
            context_window=st.sampled_from([1_000, 8_000, 200_000]),
            max_output=st.sampled_from([500, 4_000, 64_000]),
            can=st.frozensets(st.sampled_from(CAPABILITIES)),
            regions=st.frozensets(st.sampled_from(REGIONS)),
            available=st.booleans(),
        )
        for ref in REFS
    )
)
attempt = st.fixed_dictionaries(
    {"model": st.sampled_from(REFS), "success": st.booleans()},
    optional={
        "cost_usd": st.sampled_from([None, 0.0, 0.02, 3.0]),
        "error_type": st.sampled_from([None, "timeout", "other"]),
    },
)
some_refs = st.lists(st.sampled_from(REFS), max_size=3)
requests = st.builds(
    lambda task, preferences, attempts: route_request(**task, preferences=preferences, attempts=attempts),
    st.fixed_dictionaries(
        {},
        optional={
            "prompt": st.text(min_size=1, max_size=20),
            "allowed_models": some_refs,
            "excluded_models": some_refs,
            "requires": st.fixed_dictionaries(
                {},
                optional={
                    "tools": st.booleans(),
                    "vision": st.booleans(),
                    "json_mode": st.booleans(),
                    "regions": st.lists(st.sampled_from([*REGIONS, "mars"]), max_size=2),
                },
            ),
        },
    ),
    st.fixed_dictionaries({}, optional={"max_cost_usd": st.sampled_from([None, 0.0, 0.005, 0.05, 10.0])}),
    st.lists(attempt, max_size=3),
)
sizes = st.tuples(st.sampled_from([0, 10, 900, 150_000, 10**9]), st.sampled_from([0, 100, 600, 5_000]))


def gate(batch: list[tuple[RouteRequest, tuple[int, int]]], given_models: tuple[Model, ...]) -> Gated:
    known = table(*given_models)
    rejected = np.array(
        [[any(a.model == ref and not a.success for a in r.episode.attempts) for ref in REFS] for r, _ in batch]
    )
    tokens = np.array([size for _, size in batch], dtype=np.int64)
    return apply_gates([r for r, _ in batch], known, tokens[:, 0], tokens[:, 1], rejected)


def broken_rules(request: RouteRequest, model: Model, tokens: tuple[int, int]) -> set[str]:
    """The rules of a gate, said once more, one model at a time and without arrays."""
    task, needs = request.request, request.request.requires
    read, written = tokens
    cost = read * model.input_usd + written * model.output_usd + model.request_usd
    spent = sum(a.cost_usd or 0.0 for a in request.episode.attempts)
    budget = request.preferences.max_cost_usd
    rules = {
        "allowed_models": bool(task.allowed_models) and model.ref not in task.allowed_models,
        "excluded_model": model.ref in task.excluded_models,
        "already_tried": any(a.model == model.ref and not a.success for a in request.episode.attempts),
        "capability": any(getattr(needs, n) and n not in model.can for n in ("tools", "vision", "json_mode")),
        "region": bool(needs.regions) and not set(needs.regions) & model.regions,
        "context_window": read + written > model.context_window,
        "max_output": written > model.max_output,
        "budget": budget is not None and cost > max(0.0, budget - spent),
        "unavailable": not model.available,
    }
    return {reason for reason, broken in rules.items() if broken}


@settings(max_examples=150)
@given(st.lists(st.tuples(requests, sizes), min_size=1, max_size=4), models)
def test_a_model_passes_if_it_breaks_no_rule_and_else_the_reason_given_is_true(batch, known) -> None:
    gated = gate(batch, known)
    for row, (request, tokens) in enumerate(batch):
        reasons = {e.model: e.reason for e in gated.exclusions(row, request)}
        for column, model in enumerate(known):
            broken = broken_rules(request, model, tokens)
            assert bool(gated.candidates[row, column]) == (not broken) == (model.ref not in reasons)
            if broken:
                assert reasons[model.ref] in broken
        only_drained = [broken_rules(request, m, tokens) for m in known]
        assert gated.only_unavailable(row) == (all(only_drained) and {"unavailable"} in only_drained)


@settings(max_examples=40)
@given(st.lists(st.tuples(requests, sizes), min_size=2, max_size=5), models, st.data())
def test_a_request_is_gated_the_same_alone_and_in_a_batch(batch, known, data) -> None:
    row = data.draw(st.integers(0, len(batch) - 1))
    together, alone = gate(batch, known), gate([batch[row]], known)
    taken = together.take([row])
    for gated in (together.take([row]), alone):
        np.testing.assert_array_equal(gated.candidates, together.candidates[[row]])
        assert gated.exclusions(0, batch[row][0]) == together.exclusions(row, batch[row][0])
    np.testing.assert_array_equal(taken.budget_usd, alone.budget_usd)


def one(request: RouteRequest, model: Model, tokens: tuple[int, int] = (1000, 500)) -> str | None:
    """The detail of the exclusion of a single model, or None when it passes."""
    rejected = np.array([[any(not a.success for a in request.episode.attempts)]])
    gated = apply_gates([request], table(model), np.array(tokens[:1]), np.array(tokens[1:]), rejected)
    excluded = gated.exclusions(0, request)
    return excluded[0].detail if excluded else None


def test_details_name_the_numbers_that_decided() -> None:
    small = Model("a/small", context_window=1_200, max_output=100, can=frozenset({"tools"}), regions=frozenset({"us"}))
    plain = route_request()
    assert one(plain, small) == "needs 1500 tokens, has 1200"
    assert one(plain, small, (1, 101)) == "needs 101 tokens of answer, has 100"
    assert one(route_request(requires={"tools": True, "vision": True, "json_mode": True}), small) == (
        "lacks vision, json_mode"
    )
    assert one(route_request(requires={"regions": ["eu", "ch"]}), small) == "needs one of eu, ch; has us"
    assert "has none" in str(one(route_request(requires={"regions": ["eu"]}), Model("a/nowhere")))
    dear = Model("a/dear", input_usd=1e-3, output_usd=0.0)
    assert one(route_request(preferences={"max_cost_usd": 0.25}), dear) == (
        "expected to cost 1.000000 USD, 0.250000 USD are left"
    )


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_what_is_left_of_a_budget_pays_for_what_costs_exactly_that(scale: float) -> None:
    model = Model("a/tenth", input_usd=1e-4 * scale, output_usd=0.0)  # 0.1 for the thousand tokens of `one`
    spent = [{"model": "b/other", "success": True, "cost_usd": 0.4 * scale}]
    assert (0.5 - 0.4) < 0.1  # which is what a computer makes of it
    assert one(route_request(preferences={"max_cost_usd": 0.5 * scale}, attempts=spent), model) is None
    assert one(route_request(preferences={"max_cost_usd": 0.499999 * scale}, attempts=spent), model) is not None


def test_fitting_exactly_is_fitting() -> None:
    exact = Model("a/exact", context_window=1_500, max_output=500, input_usd=1e-3, output_usd=0.0)
    assert one(route_request(preferences={"max_cost_usd": 1.0}), exact) is None
    assert one(route_request(preferences={"max_cost_usd": 0.9999999}), exact) is not None


def test_what_attempts_have_spent_is_off_the_budget_and_never_below_nothing() -> None:
    costly, free = Model("a/m", input_usd=1e-4, output_usd=0.0), Model("a/m", input_usd=0.0, output_usd=0.0)
    spent = [{"model": "a/other", "success": True, "cost_usd": 0.4}, {"model": "a/other", "success": True}]
    assert one(route_request(preferences={"max_cost_usd": 0.51}, attempts=spent), costly) is None
    assert one(route_request(preferences={"max_cost_usd": 0.49}, attempts=spent), costly) is not None
    overdrawn = route_request(preferences={"max_cost_usd": 0.1}, attempts=spent)
    assert "0.000000 USD are left" in str(one(overdrawn, costly))
    assert one(overdrawn, free) is None


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (route_request(allowed_models=["a/two"], excluded_models=["a/one"]), "allowed_models"),
        (route_request(excluded_models=["a/one"], attempts=[{"model": "a/one", "success": False}]), "excluded_model"),
        (
            route_request(requires={"vision": True}, attempts=[{"model": "a/one", "success": False}]),
            "already_tried",
        ),
    ],
)
def test_what_the_caller_said_is_named_before_what_the_model_lacks(request_, reason) -> None:
    lame = tuple(Model(ref, can=frozenset(), context_window=1, available=False) for ref in REFS)
    gated = gate([(request_, (10, 10))], lame)
    assert gated.exclusions(0, request_)[0].reason == reason


def test_needed_capabilities_are_those_asked_for() -> None:
    assert needed_capabilities(route_request()) == ()
    assert needed_capabilities(route_request(requires={"vision": True, "json_mode": True})) == ("vision", "json_mode")
