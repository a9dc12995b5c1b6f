"""From requests to the batch that strategies look at."""

from __future__ import annotations

import numpy as np
import pytest
from builders import CHEAP, DEAR, MIDDLE, Fixed, HashEmbedder, Model, route_request, table

from monkey_coder.core.complexity import estimate_tokens
from monkey_coder.errors import UnknownModelError, UnknownStrategyError
from monkey_coder.models import TASK_TYPES, RouteRequest
from monkey_coder.ports import ACCEPTED, REJECTED, UNANSWERED, UNTRIED
from monkey_coder.quantum.preparation import Prepared, check_names, prepare
from monkey_coder.quantum.snapshot import EngineSnapshot

SNAPSHOT = EngineSnapshot(table(), {"some": Fixed("some", [0.5] * 3), "other": Fixed("other", [0.5] * 3)})


def prepared(*requests: RouteRequest) -> Prepared:
    return prepare(requests, SNAPSHOT, HashEmbedder())


def test_known_names_pass() -> None:
    check_names(
        route_request(
            allowed_models=[CHEAP.ref],
            excluded_models=[DEAR.ref],
            attempts=[{"model": MIDDLE.ref, "success": False}],
            options={"strategies": ["some", "other"]},
        ),
        SNAPSHOT,
    )


@pytest.mark.parametrize(
    ("request_", "place"),
    [
        (route_request(allowed_models=[CHEAP.ref, "big/deer"]), "request.allowed_models[1]"),
        (route_request(excluded_models=["big/deer"]), "request.excluded_models[0]"),
        (
            route_request(
                attempts=[{"model": CHEAP.ref, "success": False}, {"model": "big/deer", "success": True}],
            ),
            "episode.attempts[1].model",
        ),
    ],
)
def test_an_unknown_model_is_named_with_its_place_and_what_may_be_meant(request_, place) -> None:
    with pytest.raises(UnknownModelError) as caught:
        check_names(request_, SNAPSHOT)
    assert caught.value.field == place
    assert "'big/deer' is not in the catalog; did you mean big/dear?" in str(caught.value)


def test_an_unknown_strategy_is_named_with_those_there_are() -> None:
    with pytest.raises(UnknownStrategyError, match="'nobody' is not one of some, other"):
        check_names(route_request(options={"strategies": ["some", "nobody"]}), SNAPSHOT)


def test_a_ref_is_matched_as_a_whole() -> None:
    with pytest.raises(UnknownModelError):
        check_names(route_request(excluded_models=["tiny/cheap "[:-1] + "er"]), SNAPSHOT)


def test_rows_stand_in_the_order_of_the_requests() -> None:
    ready = prepared(*(route_request(f"task {n}", task_type=task) for n, task in enumerate(TASK_TYPES)))
    assert ready.batch.task.tolist() == list(range(len(TASK_TYPES)))
    assert [a.task_type for a in ready.analyses] == list(TASK_TYPES)
    for row in range(len(TASK_TYPES)):
        np.testing.assert_array_equal(ready.batch.embedding[row], HashEmbedder().embed([f"task {row}"])[0])


def test_each_request_sees_the_priors_of_its_own_task_type() -> None:
    split = table(Model("a/debugger", success={"debugging": 0.9, "documentation": 0.2}))
    ready = prepare(
        [route_request(task_type="debugging"), route_request(task_type="documentation")],
        EngineSnapshot(split, {}),
        HashEmbedder(),
    )
    assert ready.batch.success[:, 0] == pytest.approx([0.9, 0.2])


def test_costs_are_tokens_times_prices() -> None:
    ready = prepared(route_request(input_tokens=1_000_000, expected_output_tokens=0, files=[]))
    assert ready.batch.cost_usd[0] == pytest.approx([0.1, 1.0, 10.0])
    ready = prepared(route_request(input_tokens=0, expected_output_tokens=1_000))
    assert ready.batch.cost_usd[0] == pytest.approx([0.0004, 0.004, 0.05])


def test_tokens_are_estimated_where_they_are_not_given() -> None:
    request = route_request("x" * 400, files=[{"path": "a.py", "chars": 4000}])
    ready = prepared(request)
    assert (ready.gated.input_tokens[0], ready.gated.output_tokens[0]) == estimate_tokens(
        request.request, ready.analyses[0]
    )
    assert ready.gated.input_tokens[0] == 1100


def test_attempts_are_marked_and_failed_ones_are_no_candidates() -> None:
    ready = prepared(
        route_request(
            attempts=[
                {"model": CHEAP.ref, "success": False, "cost_usd": 0.1},
                {"model": MIDDLE.ref, "success": True, "cost_usd": 0.2},
            ]
        ),
        route_request(),
    )
    assert ready.batch.attempts.tolist() == [[REJECTED, ACCEPTED, UNTRIED], [UNTRIED] * 3]
    assert ready.batch.candidates.tolist() == [[False, True, True], [True] * 3]


@pytest.mark.parametrize("order", [(True, False), (False, True)])
def test_a_success_outweighs_a_failure_of_the_same_model(order) -> None:
    ready = prepared(route_request(attempts=[{"model": CHEAP.ref, "success": success} for success in order]))
    assert ready.batch.attempts[0, 0] == ACCEPTED
    assert ready.batch.candidates[0, 0]


def test_weights_are_relative_to_each_requests_own_candidates() -> None:
    even = {"quality": 1.0, "cost": 1.0, "latency": 1.0}
    alone = {"preferences": even, "input_tokens": 100_000, "expected_output_tokens": 0}
    ready = prepared(route_request(**alone, excluded_models=[DEAR.ref]), route_request(**alone))
    assert ready.batch.cost_weight == pytest.approx([10.0, 1.0])
    assert ready.batch.latency_weight == pytest.approx([0.5, 0.125])


def test_a_missing_floor_is_none_at_all() -> None:
    ready = prepared(route_request(), route_request(preferences={"quality_floor": 0.7}))
    assert ready.batch.quality_floor == pytest.approx([0.0, 0.7])


def test_taking_rows_takes_all_that_belongs_to_them() -> None:
    whole = prepared(
        route_request("one"),
        route_request("two", excluded_models=[CHEAP.ref]),
        route_request("three", preferences={"quality_floor": 0.5}),
    )
    part = whole.take([2, 1])
    assert [r.request.prompt for r in part.requests] == ["three", "two"]
    assert part.batch.candidates.tolist() == [[True] * 3, [False, True, True]]
    assert part.gated.exclusions(1, part.requests[1])[0].model == CHEAP.ref
    assert part.batch.quality_floor == pytest.approx([0.5, 0.0])
    assert len(part.batch) == 2
    np.testing.assert_array_equal(part.batch.state, whole.batch.state[[2, 1]])


def test_models_that_nothing_fits_leave_a_row_without_candidates_and_finite() -> None:
    ready = prepared(route_request(input_tokens=10**9))
    assert not ready.batch.candidates.any()
    assert np.isfinite(ready.batch.state).all()


def test_a_model_without_an_answer_is_no_candidate_but_no_failure_either() -> None:
    said = [{"model": CHEAP.ref, "success": False, "error_type": "timeout"}]
    ready = prepared(route_request(attempts=said))
    assert ready.batch.attempts[0, 0] == UNANSWERED
    assert not ready.batch.candidates[0, 0]
    failed = prepared(route_request(attempts=[*said, {"model": CHEAP.ref, "success": False}]))
    assert failed.batch.attempts[0, 0] == REJECTED
