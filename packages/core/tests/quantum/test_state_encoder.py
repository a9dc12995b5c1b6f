"""Requests and models as vectors: finite for every input, and the same bytes whoever encodes them."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from builders import CHEAP, DEAR, MIDDLE, HashEmbedder, Model, route_request, table
from hypothesis import example, given, settings
from hypothesis import strategies as st

from monkey_coder.models import CONTEXT_TYPES, TASK_TYPES, RouteRequest
from monkey_coder.quantum.embedding import StaticEmbedder
from monkey_coder.quantum.preparation import prepare
from monkey_coder.quantum.snapshot import EngineSnapshot
from monkey_coder.quantum.state_encoder import MODEL_FEATURES, StateLayout, encode_models
from monkey_coder.quantum.text_marks import text_marks

SNAPSHOT = EngineSnapshot(table=table(), strategies={})
REFS = SNAPSHOT.table.refs
LAYOUT = StateLayout(HashEmbedder().dimensions)
ODD_PROMPTS = (
    "\0",
    "😀👩‍👩‍👧‍👦" * 20,
    "\u202e\u05d1\u05d0\u05d2 \u0645\u0631\u062d\u0628\u0627\u202c",
    "e\u0301\u0300" * 99,
    "a" * 200_000,
    "/dev/null",
    " ",
)

prompts = st.one_of(st.text(min_size=1, max_size=200), st.sampled_from(ODD_PROMPTS))
extremes = st.sampled_from([0.0, 1e-300, 1e-9, 0.3, 1e6])
whole_requests = st.builds(
    lambda prompt, task, preferences, attempts: route_request(
        prompt, **task, preferences=preferences, attempts=attempts
    ),
    prompts,
    st.fixed_dictionaries(
        {},
        optional={
            "task_type": st.sampled_from([None, *TASK_TYPES]),
            "files": st.lists(
                st.fixed_dictionaries({"path": st.just("f"), "chars": st.integers(0, 10**9)}), max_size=2
            ),
            "input_tokens": st.integers(0, 10**9),
            "expected_output_tokens": st.integers(0, 10**9),
            "excluded_models": st.lists(st.sampled_from(REFS), max_size=3),
        },
    ),
    st.one_of(
        st.fixed_dictionaries(
            {"quality": st.sampled_from([5e-324, 1e-9, 0.6, 1e6])},
            optional={
                "cost": extremes,
                "latency": extremes,
                "quality_floor": st.floats(0.0, 1.0),
                "max_cost_usd": st.floats(0.0, 1e9),
            },
        ),
        st.fixed_dictionaries({"value_usd": st.sampled_from([5e-324, 1e-30, 1.0, 1e9])}),
    ),
    st.lists(
        st.fixed_dictionaries(
            {"model": st.sampled_from(REFS), "success": st.booleans()}, optional={"cost_usd": st.floats(0.0, 1e9)}
        ),
        max_size=5,
    ),
)


def encode(*requests: RouteRequest, snapshot: EngineSnapshot = SNAPSHOT) -> np.ndarray:
    return prepare(requests, snapshot, HashEmbedder()).batch.state


@settings(max_examples=120)
@given(whole_requests)
def test_every_request_encodes_to_a_finite_vector_of_the_same_length(request_) -> None:
    state = encode(request_)
    assert state.shape == (1, LAYOUT.size)
    assert state.dtype == np.float32
    assert np.isfinite(state).all()


@settings(max_examples=60)
@given(st.lists(whole_requests, min_size=1, max_size=4))
def test_a_request_encodes_to_the_same_bytes_alone_in_a_batch_and_again(requests) -> None:
    together = encode(*requests)
    assert together.tobytes() == encode(*requests).tobytes()
    for row, request in enumerate(requests):
        assert encode(request).tobytes() == together[row].tobytes()


def states_with_real_embeddings(embedder: StaticEmbedder) -> str:
    """A digest of the states of the odd prompts; the other process runs this very function."""
    requests = [route_request(p, attempts=[{"model": REFS[1], "success": False, "cost_usd": 0.1}]) for p in ODD_PROMPTS]
    batch = prepare(requests, SNAPSHOT, embedder).batch
    return hashlib.sha256(batch.state.tobytes() + batch.model_features.tobytes()).hexdigest()


def test_another_process_encodes_to_the_same_bytes(static_embedder: StaticEmbedder) -> None:
    here = Path(__file__).parent
    program = (
        f"import sys; sys.path[:0] = [{str(here)!r}, {str(here.parent)!r}];"
        "from test_state_encoder import *; print(states_with_real_embeddings(StaticEmbedder.load()))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONHASHSEED": "7"},
    )
    assert run.stdout.strip() == states_with_real_embeddings(static_embedder)


@given(prompt=prompts)
@settings(max_examples=60)
@example(prompt=ODD_PROMPTS[4])
def test_the_parts_lie_where_the_layout_says(prompt) -> None:
    (state,) = encode(route_request(prompt, task_type="security", preferences={"quality_floor": 0.75}))
    one_hot = state[LAYOUT.task : LAYOUT.context]
    assert one_hot.sum() == 1.0
    assert one_hot[TASK_TYPES.index("security")] == 1.0
    context = state[LAYOUT.context : LAYOUT.complexity]
    assert context.sum() == 1.0
    assert context[CONTEXT_TYPES.index("security")] == 1.0
    np.testing.assert_array_equal(state[: LAYOUT.marks], HashEmbedder().embed([prompt])[0])
    np.testing.assert_array_equal(state[LAYOUT.marks : LAYOUT.task], text_marks([prompt])[0])
    assert 0.0 <= state[LAYOUT.complexity] <= 1.0
    assert state[LAYOUT.preferences + 2] == 0.75


def test_tokens_stand_on_a_logarithmic_scale() -> None:
    (state,) = encode(route_request(input_tokens=999, expected_output_tokens=0))
    assert state[LAYOUT.tokens : LAYOUT.attempts] == pytest.approx([0.5, 0.0])


def test_attempts_are_summed_up() -> None:
    # rejected: the cheap one (0.4) and the middle one (0.6); 0.999 USD spent
    (state,) = encode(
        route_request(
            attempts=[
                {"model": CHEAP.ref, "success": False, "cost_usd": 0.5},
                {"model": MIDDLE.ref, "success": False, "cost_usd": 0.499},
            ]
        )
    )
    assert state[LAYOUT.attempts : LAYOUT.preferences] == pytest.approx([0.5, 0.0, 0.5, 0.6, 0.5])


def test_a_success_after_a_failure_counts_as_accepted() -> None:
    (state,) = encode(
        route_request(
            attempts=[{"model": DEAR.ref, "success": False}, {"model": DEAR.ref, "success": True}], allowed_models=[]
        )
    )
    assert state[LAYOUT.attempts : LAYOUT.preferences] == pytest.approx([0.0, 1.0, 0.0, 0.0, 0.0])


def test_preferences_are_seen_relative_to_the_candidates() -> None:
    even = {"quality": 1.0, "cost": 1.0, "latency": 2.0}
    (cheap,) = encode(route_request(preferences=even, allowed_models=[CHEAP.ref]))
    (dear,) = encode(route_request(preferences=even, allowed_models=[DEAR.ref]))
    expected = [np.arcsinh(1.0), np.arcsinh(2.0), 0.0]
    assert cheap[LAYOUT.preferences :] == pytest.approx(expected)
    assert dear[LAYOUT.preferences :] == pytest.approx(expected)


def test_models_encode_to_finite_features_that_need_no_outcome() -> None:
    extreme = table(
        Model("a/free", input_usd=0.0, output_usd=0.0, evidence=0.0, latency_s=0.0),
        Model("a/dear", input_usd=1.0, output_usd=1.0, context_window=10**9, max_output=10**9, latency_s=3600.0),
    )
    features = encode_models(extreme)
    assert features.shape == (2, MODEL_FEATURES)
    assert features.dtype == np.float32
    assert np.isfinite(features).all()


def test_a_model_encodes_the_same_whatever_stands_beside_it() -> None:
    assert encode_models(table(CHEAP, DEAR))[1].tobytes() == encode_models(table(DEAR))[0].tobytes()


@pytest.mark.parametrize(
    "change",
    [
        {"input_usd": 2e-6},
        {"output_usd": 9e-6},
        {"request_usd": 0.01},
        {"context_window": 9_000},
        {"max_output": 900},
        {"can": frozenset({"tools"})},
        {"success": 0.51},
        {"evidence": 51.0},
        {"latency_s": 2.5},
        {"available": False},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_property_of_a_model_shows(change) -> None:
    assert not np.array_equal(encode_models(table(Model("a/m")))[0], encode_models(table(Model("a/m", **change)))[0])
