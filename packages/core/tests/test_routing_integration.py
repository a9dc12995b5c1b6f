"""Gary8D in process, with the real gates and formulas, and the engine behind its feature flag (T2.1.6)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Event

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monkey_coder.catalog.table import CAPABILITIES, ModelTable
from monkey_coder.core.routing import AdvancedRouter
from monkey_coder.errors import (
    AllUnavailableError,
    NoEligibleModelError,
    OverloadedError,
    PolicyError,
    UnknownModelError,
    UnknownStrategyError,
)
from monkey_coder.models import (
    CONTEXT_TYPES,
    PERSONAS,
    TASK_TYPES,
    Attempt,
    Episode,
    ExecuteRequest,
    Preferences,
    Requirements,
    RouteRequest,
    SourceFile,
)
from monkey_coder.quantum.gates import apply_gates
from monkey_coder.quantum.interval import wilson
from monkey_coder.quantum.reward import worth

REFS = ("acme/tiny", "acme/medium", "acme/large", "bolt/small", "bolt/strong")
SUCCESS = (0.55, 0.72, 0.90, 0.60, 0.88)
USD_PER_MTOK = (0.1, 1.0, 15.0, 0.2, 10.0)


def make_table(**changes: object) -> ModelTable:
    count = len(REFS)
    usd = np.array(USD_PER_MTOK) / 1e6
    table = ModelTable(
        refs=REFS,
        input_usd=usd,
        output_usd=4 * usd,
        request_usd=np.zeros(count),
        context_window=np.array([8_000, 128_000, 200_000, 32_000, 1_000_000]),
        max_output=np.full(count, 8_000),
        capabilities=np.array([[True, ref == "acme/large", True, False] for ref in REFS]).reshape(
            count, len(CAPABILITIES)
        ),
        regions=tuple(frozenset({"eu"} if ref.startswith("bolt") else {"us"}) for ref in REFS),
        success=np.tile(np.array(SUCCESS, dtype=np.float32), (len(TASK_TYPES), 1)),
        evidence=np.full((len(TASK_TYPES), count), 50.0, dtype=np.float32),
        latency_s=np.full(count, 2.0, dtype=np.float32),
        available=np.ones(count, dtype=np.bool_),
    )
    return replace(table, **changes)


TABLE = make_table()
SPENT = Attempt(model="acme/tiny", success=True, cost_usd=0.008)
QUALITY = Preferences(quality=1.0, cost=0.0, latency=0.0)
THRIFT = Preferences(quality=0.01, cost=0.98, latency=0.01)


def make_router(table: ModelTable = TABLE, **options: object) -> AdvancedRouter:
    return AdvancedRouter(table, apply_gates, worth, wilson, **options)


def ask(prompt: str = "Fix the crash", *, preferences: Preferences | None = None, attempts=(), **task: object):
    return RouteRequest(
        request=ExecuteRequest(prompt=prompt, **task),
        preferences=preferences or Preferences(),
        episode=Episode(attempts=tuple(attempts)),
    )


class TestChoice:
    def test_money_no_object_buys_the_best_and_thrift_the_cheapest(self) -> None:
        router = make_router()
        assert router.route_request(ask(preferences=QUALITY)).ref == "acme/large"
        assert router.route_request(ask(preferences=THRIFT)).ref == "acme/tiny"

    def test_a_task_alone_is_a_request(self) -> None:
        task = ExecuteRequest(prompt="Fix the crash")
        assert make_router().route_request(task).ref == make_router().route_request(RouteRequest(request=task)).ref

    def test_a_task_worth_much_gets_a_stronger_model(self) -> None:
        router = make_router()
        cheap = router.route_request(ask(preferences=Preferences(value_usd=0.001)))
        dear = router.route_request(ask(preferences=Preferences(value_usd=100.0)))
        assert dear.expected.success > cheap.expected.success
        assert dear.expected.cost_usd > cheap.expected.cost_usd

    def test_harder_prompts_never_get_weaker_models(self) -> None:
        router = make_router()
        easy = router.route_request(ask("Fix typo in the README", task_type="debugging"))
        hard = router.route_request(ask("Fix the race condition in our distributed consensus", task_type="debugging"))
        assert hard.complexity.score > easy.complexity.score
        assert hard.expected.success >= easy.expected.success

    def test_a_preferred_provider_wins_among_near_equals(self) -> None:
        usd = np.array([1.0, 1.0, 1.0, 1.0, 1.1]) / 1e6
        table = make_table(input_usd=usd, output_usd=usd, success=np.full((len(TASK_TYPES), 5), 0.8, np.float32))
        router = make_router(table)
        assert router.route_request(ask()).provider == "acme"
        assert router.route_request(ask(preferred_providers=("bolt",))).ref == "bolt/small"

    def test_a_quality_floor_needs_the_lower_bound(self) -> None:
        decision = make_router().route_request(ask(preferences=Preferences(quality=0.01, cost=0.99, quality_floor=0.7)))
        assert decision.ref == "bolt/strong"
        assert decision.expected.success_low >= 0.7

    def test_a_floor_out_of_reach_is_told(self) -> None:
        decision = make_router().route_request(ask(preferences=Preferences(quality_floor=0.99)))
        assert "quality floor of 0.99" in decision.collapse_reasoning

    def test_persona_and_context_follow_the_prompt(self) -> None:
        decision = make_router().route_request(ask("/security look at this login"))
        assert (decision.persona, decision.context_type) == ("security_analyst", "security")


class TestFallbacks:
    def test_every_other_candidate_is_an_alternative(self) -> None:
        decision = make_router().route_request(ask())
        chain = [decision.ref, *(f"{a.provider}/{a.model}" for a in decision.alternatives)]
        assert sorted(chain) == sorted(REFS)

    @pytest.mark.parametrize("failed", REFS)
    @pytest.mark.parametrize("preferences", [Preferences(), QUALITY, THRIFT])
    def test_after_a_failure_comes_a_stronger_model_or_another_provider(self, failed: str, preferences) -> None:
        attempts = [Attempt(model=failed, success=False, cost_usd=0.01)]
        decision = make_router().route_request(ask(preferences=preferences, attempts=attempts))
        assert decision.ref != failed
        stronger = decision.expected.success > SUCCESS[REFS.index(failed)]
        assert stronger or decision.provider != failed.partition("/")[0]
        assert [(e.model, e.reason) for e in decision.excluded] == [(failed, "already_tried")]

    def test_the_chain_foretells_what_is_said_after_the_failure(self) -> None:
        router = make_router()
        first = router.route_request(ask())
        second = router.route_request(ask(attempts=[Attempt(model=first.ref, success=False)]))
        assert second.ref == f"{first.alternatives[0].provider}/{first.alternatives[0].model}"

    def test_an_outage_says_nothing_about_the_task(self) -> None:
        router = make_router()

        def need(error_type):
            attempts = [Attempt(model="acme/large", success=False, error_type=error_type)]
            return router.route_request(ask(attempts=attempts)).collapse_reasoning

        assert "failed attempt" in need(None)
        assert "failed attempt" not in need("rate_limited")


class TestGates:
    @pytest.mark.parametrize(
        ("request_", "reason"),
        [
            (ask(files=(SourceFile(path="a", chars=2_000_000),)), "context_window"),
            (ask(requires=Requirements(vision=True)), "capability"),
            (ask(requires=Requirements(regions=("eu",))), "region"),
            (ask(excluded_models=("acme/tiny",)), "excluded_model"),
            (ask(allowed_models=("acme/tiny",)), "allowed_models"),
            (ask(preferences=Preferences(max_cost_usd=0.01), attempts=[SPENT]), "budget"),
        ],
    )
    def test_bind_the_whole_chain_and_say_why(self, request_: RouteRequest, reason: str) -> None:
        decision = make_router().route_request(request_)
        excluded = {e.model for e in decision.excluded}
        assert reason in {e.reason for e in decision.excluded}
        assert not excluded & {decision.ref, *(f"{a.provider}/{a.model}" for a in decision.alternatives)}

    def test_no_candidate_is_an_error_that_lists_all(self) -> None:
        with pytest.raises(NoEligibleModelError) as caught:
            make_router().route_request(ask(requires=Requirements(regions=("mars",))))
        assert [e.model for e in caught.value.excluded] == list(REFS)
        assert not isinstance(caught.value, AllUnavailableError)

    def test_all_unavailable_is_another_error(self) -> None:
        with pytest.raises(AllUnavailableError):
            make_router(make_table(available=np.zeros(5, dtype=np.bool_))).route_request(ask())

    @pytest.mark.parametrize(
        ("request_", "place"),
        [
            (ask(excluded_models=("acme/tiny", "acme/tinny")), r"excluded_models\[1\].*did you mean acme/tiny"),
            (ask(allowed_models=("no/such",)), r"allowed_models\[0\]"),
            (ask(attempts=[Attempt(model="no/such", success=False)]), r"episode.attempts\[0\]"),
        ],
    )
    def test_an_unknown_model_is_named_with_its_place(self, request_: RouteRequest, place: str) -> None:
        with pytest.raises(UnknownModelError, match=place):
            make_router().route_request(request_)


class TestAnswer:
    def test_says_who_decided_and_why(self) -> None:
        decision = make_router(make_ids=lambda count: ["d-1"] * count, config_version=7).route_request(ask())
        assert (decision.strategy_used, decision.collapse_strategy, decision.propensity) == ("gary8d", "gary8d", 1.0)
        assert (decision.decision_id, decision.episode_id, decision.config_version) == ("d-1", "d-1", 7)
        assert decision.ref in decision.collapse_reasoning
        assert decision.complexity.level in decision.collapse_reasoning
        assert decision.degraded == ()

    def test_keeps_the_callers_episode(self) -> None:
        request = ask().model_copy(update={"episode": Episode(episode_id="mine")})
        assert make_router().route_request(request).episode_id == "mine"

    def test_confidence_varies_with_the_evidence(self) -> None:
        def confidence(outcomes: float, prompt: str = "Fix the crash", **task: object) -> float:
            table = make_table(evidence=np.full((len(TASK_TYPES), 5), outcomes, np.float32))
            return make_router(table).route_request(ask(prompt, preferences=QUALITY, **task)).confidence

        assert confidence(5000.0) > confidence(50.0) > confidence(1.0)
        assert confidence(50.0, task_type="debugging") > confidence(50.0)
        assert confidence(50.0) > confidence(50.0, "hmm")

    @settings(max_examples=60, deadline=None)
    @given(
        prompt=st.text(min_size=1, max_size=200),
        weights=st.tuples(st.floats(0.01, 1e3), st.floats(0, 1e3), st.floats(0, 1e3)),
        failed=st.sets(st.sampled_from(REFS), max_size=4),
        providers=st.sets(st.sampled_from(["acme", "bolt", "unheard-of"])),
    )
    def test_is_complete_and_repeatable_for_any_prompt_and_preferences(
        self, prompt, weights, failed, providers
    ) -> None:
        quality, cost, latency = weights
        request = ask(
            prompt,
            preferences=Preferences(quality=quality, cost=cost, latency=latency),
            attempts=[Attempt(model=ref, success=False) for ref in sorted(failed)],
            preferred_providers=tuple(sorted(providers)),
        )
        router = make_router(clock=lambda: 0.0, make_ids=lambda count: ["id"] * count)
        decision = router.route_request(request)
        assert decision == router.route_request(request)
        chain = {decision.ref, *(f"{a.provider}/{a.model}" for a in decision.alternatives)}
        assert chain == set(REFS) - failed
        assert decision.persona in PERSONAS
        assert decision.context_type in CONTEXT_TYPES
        assert decision.expected.success_low <= decision.expected.success <= decision.expected.success_high


class FakeEngine:
    """An engine whose behaviour a test chooses."""

    def __init__(self, answer=None, error: Exception | None = None, gate: Event | None = None) -> None:
        self.answer, self.error, self.gate, self.asked = answer, error, gate, []

    def route(self, request: RouteRequest):
        self.asked.append(request)
        if self.gate is not None:
            self.gate.wait(60.0)
        if self.error is not None:
            raise self.error
        return self.answer


@pytest.fixture
def pool():
    with ThreadPoolExecutor(1) as executor:
        yield executor


class TestFeatureFlag:
    def test_off_the_engine_is_never_asked(self, pool) -> None:
        engine = FakeEngine(error=RuntimeError("must not be asked"))
        decision = make_router(engine=engine, executor=pool).route_request(ask())
        assert decision.strategy_used == "gary8d"
        assert engine.asked == []

    def test_on_the_engine_decides(self, pool) -> None:
        answer = make_router().route_request(ask()).model_copy(update={"strategy_used": "dqn"})
        engine = FakeEngine(answer)
        router = make_router(engine=engine, executor=pool, quantum_enabled=True, timeout_s=60.0)
        assert router.route_request(ExecuteRequest(prompt="Fix the crash")) is answer
        assert engine.asked == [ask()]

    @pytest.mark.parametrize("error", [ZeroDivisionError("bug"), PolicyError("damaged"), TimeoutError()])
    def test_when_the_engine_fails_the_heuristic_answers_and_says_so(self, pool, error, caplog) -> None:
        router = make_router(engine=FakeEngine(error=error), executor=pool, quantum_enabled=True, timeout_s=60.0)
        decision = router.route_request(ask())
        assert decision.ref == make_router().route_request(ask()).ref
        assert decision.degraded == ("quantum",)
        assert type(error).__name__ in caplog.text

    def test_when_the_engine_is_late_the_heuristic_answers_and_says_so(self, pool) -> None:
        gate = Event()
        router = make_router(engine=FakeEngine(gate=gate), executor=pool, quantum_enabled=True, timeout_s=0.02)
        first, second = router.route_request(ask()), router.route_request(ask())
        gate.set()
        assert first.degraded == second.degraded == ("quantum",)
        assert first.execution_time_ms >= 20.0  # the caller waited, and is told

    def test_a_closed_executor_is_a_failed_engine(self) -> None:
        pool = ThreadPoolExecutor(1)
        pool.shutdown()
        router = make_router(engine=FakeEngine(), executor=pool, quantum_enabled=True)
        assert router.route_request(ask()).degraded == ("quantum",)

    @pytest.mark.parametrize(
        "error",
        [
            NoEligibleModelError(()),
            AllUnavailableError(()),
            UnknownModelError("request.allowed_models[0]", "a/b"),
            UnknownStrategyError("x", ("dqn",)),
            OverloadedError(),
        ],
    )
    def test_what_the_caller_must_know_passes_through(self, pool, error) -> None:
        router = make_router(engine=FakeEngine(error=error), executor=pool, quantum_enabled=True, timeout_s=60.0)
        with pytest.raises(type(error)) as caught:
            router.route_request(ask())
        assert caught.value is error

    @pytest.mark.parametrize("missing", ["engine", "executor"])
    def test_the_flag_needs_an_engine_and_its_executor(self, pool, missing) -> None:
        parts = {"engine": FakeEngine(), "executor": pool}
        del parts[missing]
        with pytest.raises(ValueError, match="needs an engine and an executor"):
            make_router(**parts, quantum_enabled=True)
