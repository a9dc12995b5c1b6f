"""Flip points are true: routed again just beyond them the other model is chosen, and just before them the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from builders import CHEAP, DEAR, MIDDLE, Fixed, Model, ask, engine, table
from deciding import Moody, Recorder, explained, recorded
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from monkey_coder.core.complexity import analyse, estimate_tokens
from monkey_coder.errors import NoEligibleModelError
from monkey_coder.models import COLLAPSE_NAMES, Preferences, RoutingDecision
from monkey_coder.quantum.decision_log import records_of
from monkey_coder.quantum.decision_record import DecisionRecord
from monkey_coder.quantum.explain import explain
from monkey_coder.quantum.explanation import Explanation, FlipAxis, FlipPoint
from monkey_coder.quantum.flip_points import MARGIN, Path, nearest_flips
from monkey_coder.quantum.replay import Replay
from monkey_coder.quantum.routing_strategies import configured_strategies, objective_strategies
from monkey_coder.quantum.served_policy import ServedPolicy
from monkey_coder.quantum.state_encoder import encode_models

if TYPE_CHECKING:
    from monkey_coder.quantum.training_pipeline import TrainedPolicy

chances = st.floats(0.05, 0.95).map(lambda x: round(x, 3))
weights = st.floats(0.05, 1.0).map(lambda x: round(x, 3))


@dataclass(frozen=True)
class Setting:
    """What is decided, and by whom."""

    models: tuple[Model, ...]
    strategies: tuple[Any, ...]
    preferences: Mapping[str, Any]
    collapse: str
    preferred: bool = False
    prompt: str = "Fix the failing test"
    episode: str | None = None
    embedder: Any = None

    def route(self, preferences: Mapping[str, Any] | None = None, models: tuple[Model, ...] | None = None) -> str:
        """The model that a real engine chooses; what is given replaces what is."""
        with engine(*self.strategies, models=table(*(models or self.models)), embedder=self.embedder) as manager:
            decision: RoutingDecision = manager.route(self.request(preferences or self.preferences))
            return decision.ref

    def explain(self, instead: str | None) -> Explanation:
        options = {"models": table(*self.models), "embedder": self.embedder}
        return explained(self.request(self.preferences), *self.strategies, instead=instead, **options)

    def request(self, preferences: Mapping[str, Any]) -> Any:
        # With one thread the strategies answer in their order, so that the first to answer is always the same.
        options = {"collapse_strategy": self.collapse, "max_threads": 1}
        providers = [self.models[0].ref.partition("/")[0]] if self.preferred else []
        return ask(
            self.prompt,
            preferences=preferences,
            options=options,
            preferred_providers=providers,
            episode_id=self.episode,
        )

    def at(self, axis: FlipAxis, value: float, flip: FlipPoint | None = None) -> str:
        """The model chosen with one quantity moved to a value, asked for as a caller would."""
        if axis.quantity == "quality_floor":
            return self.route({**self.preferences, "quality_floor": value if value > 0 else None})
        if axis.quantity == "cost_weight":
            if "value_usd" in self.preferences:
                return self.route({**self.preferences, "value_usd": 1.0 / value})
            cost = value * self.cost_per_weight()
            assert flip is None or value != flip.at or flip.cost == pytest.approx(cost, rel=1e-6)
            return self.route({**self.preferences, "cost": cost})
        return self.route(models=tuple(self.priced(m, axis, value) if m.ref == axis.model else m for m in self.models))

    def cost_per_weight(self) -> float:
        """preferences.cost for one success per USD: lambda = (cost / quality) / dearest."""
        wanted = Preferences.model_validate(self.preferences)
        costs = [self.cost_of(model) for model in self.models]
        affordable = [cost for cost in costs if wanted.max_cost_usd is None or cost <= wanted.max_cost_usd]
        return wanted.quality * max(affordable)

    def cost_of(self, model: Model) -> float:
        """Expected cost of the request: its tokens at the model's prices."""
        request = self.request({}).request
        prompt, answer = estimate_tokens(request, analyse(request))
        return prompt * model.input_usd + answer * model.output_usd + model.request_usd

    def priced(self, model: Model, axis: FlipAxis, value: float) -> Model:
        if axis.now == 0:
            return replace(model, request_usd=value)
        factor = value / axis.now
        return replace(
            model,
            input_usd=model.input_usd * factor,
            output_usd=model.output_usd * factor,
            request_usd=model.request_usd * factor,
        )


@st.composite
def some_settings(draw: st.DrawFn) -> Setting:
    count = draw(st.integers(2, 5))
    models = tuple(
        Model(
            f"p{place}/m",
            success=draw(chances),
            evidence=draw(st.sampled_from([3.0, 30.0, 300.0])),
            input_usd=price,
            output_usd=4 * price,
            latency_s=draw(st.sampled_from([1.0, 3.0, 9.0])),
        )
        for place in range(count)
        for price in [draw(st.sampled_from([0.0, 1e-7, 4e-7, 1e-6, 3e-6, 1e-5, 6e-5]))]
    )
    preferences: dict[str, Any] = draw(
        st.one_of(
            st.fixed_dictionaries({"quality": weights, "cost": st.one_of(st.just(0.0), weights), "latency": weights}),
            st.fixed_dictionaries({"value_usd": st.floats(1e-3, 1.0).map(lambda x: round(x, 4))}),
        )
    )
    floor = draw(st.one_of(st.none(), chances))
    budget = draw(st.one_of(st.none(), st.sampled_from([0.001, 0.01, 0.1])))
    return Setting(
        models,
        (*objective_strategies(), Moody(tuple(draw(chances) for _ in models))),
        preferences | {"quality_floor": floor, "max_cost_usd": budget},
        draw(st.sampled_from(COLLAPSE_NAMES)),
        draw(st.booleans()),
    )


def check_flips(setting: Setting, instead: str) -> int:
    """Route again on both sides of every flip point of a decision; returns how many there were."""
    told = setting.explain(instead)
    assert told.today == told.winner == told.served == setting.route()
    assert told.notes == ()
    assert [axis.quantity for axis in told.flips][:3] == ["cost_weight", "quality_floor", "price"]
    checked = 0
    for axis in told.flips:
        for flip, end, way in ((axis.lower, axis.lowest, -1), (axis.higher, axis.highest, 1)):
            if flip is None:
                if axis.quantity != "cost_weight":
                    assert end == axis.now or setting.at(axis, end) == told.winner
                continue
            assert 0 <= (flip.until - axis.now) * way < (flip.at - axis.now) * way
            assert axis.lowest <= flip.at <= axis.highest
            if axis.quantity == "cost_weight" and flip.cost is None and "value_usd" not in setting.preferences:
                continue  # beyond what preferences can say
            assert setting.at(axis, flip.until) == told.winner
            if flip.model is not None:
                assert setting.at(axis, flip.at, flip) == flip.model != told.winner
            else:
                with pytest.raises(NoEligibleModelError):
                    setting.at(axis, flip.at, flip)
            checked += 1
    return checked


@settings(max_examples=60)
@given(some_settings(), st.data())
def test_routing_again_on_either_side_of_every_flip_point_finds_what_it_says(setting: Setting, data: Any) -> None:
    budget = setting.preferences["max_cost_usd"]
    assume(budget is None or min(setting.cost_of(model) for model in setting.models) <= budget)
    check_flips(setting, data.draw(st.sampled_from([model.ref for model in setting.models])))


@pytest.mark.parametrize("collapse", COLLAPSE_NAMES)
@pytest.mark.parametrize("episode", [None, "an episode of several attempts"])
def test_flip_points_of_a_trained_policy_are_true(
    trained_policy: TrainedPolicy, collapse: str, episode: str | None
) -> None:
    from colours import CHANCES, MODELS, ColourEmbedder  # which needs what training needs

    models = tuple(Model(ref, success=0.4, request_usd=0.2 if ref == "made/dear" else 0.02) for ref in CHANCES["red"])
    # The policy keeps what it was told of the models, whatever they come to cost.
    policy = ServedPolicy.bind(trained_policy.parts, MODELS.refs, encode_models(MODELS))
    strategies = tuple(configured_strategies(policy, trained_policy.memory).values())
    checked = 0
    for number, value in enumerate((0.3, 1.0, 5.0)):
        prompt = f"make it {('red', 'blue', 'green')[number]}, number 9 9"
        setting = Setting(models, strategies, {"value_usd": value}, collapse, False, prompt, episode, ColourEmbedder())
        checked += check_flips(setting, "made/dear")
    assert checked


# By hand: one strategy, utility = P(success) - lambda * cost

TWO = (replace(CHEAP, success=0.4, latency_s=1.0), replace(DEAR, success=0.8, latency_s=1.0))
BALANCED = objective_strategies()[3]


def axis_of(told: Explanation, quantity: str, model: str | None = None) -> FlipAxis:
    (axis,) = [axis for axis in told.flips if axis.quantity == quantity and axis.model == model]
    return axis


def costs(told: Explanation) -> list[float]:
    by_model = {model.model: model.expected.cost_usd for model in told.models}
    return [by_model[CHEAP.ref], by_model[DEAR.ref]]


def test_the_cost_weight_flips_where_the_dear_one_is_no_longer_worth_its_price() -> None:
    told = explained(ask(preferences={"value_usd": 100.0}), BALANCED, models=table(*TWO))
    cheap, dear = costs(told)
    axis = axis_of(told, "cost_weight")
    assert (told.winner, axis.now, axis.lower) == (DEAR.ref, pytest.approx(0.01), None)
    assert axis.higher is not None
    assert (axis.higher.until + axis.higher.at) / 2 == pytest.approx(0.4 / (dear - cheap), rel=2e-4)
    assert axis.higher.model == CHEAP.ref
    assert axis.higher.value_usd == pytest.approx((dear - cheap) / 0.4, rel=1e-3)
    assert axis.higher.cost is None  # the caller does not speak in weights
    assert CHEAP.ref in axis.higher.sentence
    assert "preferences.value_usd" in axis.higher.sentence


def test_a_cost_weight_is_also_told_as_the_preference_to_ask_for() -> None:
    wants = {"quality": 0.5, "cost": 0.01, "latency": 0.0}
    told = explained(ask(preferences=wants), BALANCED, models=table(*TWO))
    cheap, dear = costs(told)
    flip = axis_of(told, "cost_weight").higher
    assert flip is not None
    # lambda = (cost / quality) / dear, and it flips at lambda = 0.4 / (dear - cheap)
    assert flip.cost == pytest.approx(0.5 * dear * 0.4 / (dear - cheap), rel=1e-3)


def test_prices_flip_where_the_difference_is_eaten_up() -> None:
    told = explained(ask(preferences={"value_usd": 1.0}), BALANCED, instead=CHEAP.ref, models=table(*TWO))
    cheap, dear = costs(told)
    own, others = axis_of(told, "price", DEAR.ref), axis_of(told, "price", CHEAP.ref)
    assert own.higher is not None
    assert own.higher.at == pytest.approx(0.4 + cheap, rel=1e-3)
    assert own.higher.factor == pytest.approx(own.higher.at / dear)
    assert own.higher.model == CHEAP.ref
    assert (own.lower, others.lower, others.higher) == (None, None, None)  # not even as a gift


def test_a_budget_bounds_prices() -> None:
    wants = {"value_usd": 100.0, "max_cost_usd": 1.0}
    told = explained(ask(preferences=wants, allowed_models=[DEAR.ref]), BALANCED, models=table(*TWO))
    flip = axis_of(told, "price", DEAR.ref).higher
    assert flip is not None
    assert flip.until < 1.0 < flip.at
    assert flip.at == pytest.approx(1.0, rel=1e-3)
    assert flip.model is None
    assert "no model would have been left" in flip.sentence


def test_a_model_beyond_the_budget_comes_in_when_it_gets_cheap_enough() -> None:
    wants = {"value_usd": 100.0, "max_cost_usd": 0.001}
    told = explained(ask(preferences=wants), BALANCED, instead=DEAR.ref, models=table(*TWO))
    assert told.instead is not None
    assert told.instead.standing == "excluded"
    flip = axis_of(told, "price", DEAR.ref).lower
    assert flip is not None
    assert (flip.model, flip.at) == (DEAR.ref, pytest.approx(0.001, rel=1e-3))


def test_no_price_brings_back_what_another_gate_excludes() -> None:
    told = explained(ask(excluded_models=[DEAR.ref]), BALANCED, instead=DEAR.ref, models=table(*TWO))
    axis = axis_of(told, "price", DEAR.ref)
    assert (axis.lower, axis.higher, axis.lowest, axis.highest) == (None, None, axis.now, axis.now)


def test_the_floor_flips_at_the_lower_bound() -> None:
    sure = Fixed("only", [0.1, 0.2, 0.9], success=[0.5, 0.6, 0.9], evidence=100.0)
    told = explained(ask(preferences={"quality_floor": 0.45}), sure)
    low = {model.model: model.expected.success_low for model in told.models}
    axis = axis_of(told, "quality_floor")
    assert told.winner == MIDDLE.ref
    assert axis.lower is not None
    assert axis.higher is not None
    assert (axis.lower.model, axis.lower.at) == (CHEAP.ref, pytest.approx(low[CHEAP.ref], abs=1e-3))
    assert (axis.higher.model, axis.higher.at) == (DEAR.ref, pytest.approx(low[MIDDLE.ref], abs=1e-3))


def test_free_models_have_no_cost_weight_to_speak_of_but_a_price_they_could_have() -> None:
    free = tuple(replace(model, input_usd=0.0, output_usd=0.0) for model in TWO)
    told = explained(ask(preferences={"value_usd": 1.0}), BALANCED, models=table(*free))
    axis, price = axis_of(told, "cost_weight"), axis_of(told, "price", DEAR.ref)
    assert (axis.lower, axis.higher) == (None, None)
    assert (price.now, price.lower) == (0.0, None)
    assert price.higher is not None
    assert price.higher.at == pytest.approx(0.4, rel=1e-3)
    assert price.higher.factor is None


def test_a_session_moves_the_flip_by_what_switching_costs() -> None:
    def decided_last_by(session: str | None) -> Explanation:
        recorder = Recorder()
        models = replace(table(*TWO), cached_input_usd=table(*TWO).input_usd / 10)
        with engine(BALANCED, models=models, listeners=[recorder]) as manager:
            for value in (1000.0, 0.2):  # the dear one first, and then hardly worth its price
                manager.decide([ask(preferences={"value_usd": value}, session_id=session, input_tokens=20_000)])
            record = records_of(recorder.events[-1:], 0.0)[0]
            return explain(record, Replay(record, manager.snapshot()))

    free, bound = (decided_last_by(session) for session in (None, "s"))
    assert (free.winner, bound.winner, bound.today) == (CHEAP.ref, DEAR.ref, DEAR.ref)
    flip = axis_of(bound, "cost_weight").higher
    assert flip is not None
    cheap, dear = costs(bound)
    saved = 20_000 * DEAR.input_usd * 0.9
    assert flip.at == pytest.approx(0.4 / (dear - cheap - saved), rel=2e-3)
    assert any("The session used" in sentence for sentence in bound.why)


# The search alone, over winners that are made up


def one_record() -> DecisionRecord:
    return recorded(Fixed("only", [0.5, 0.4, 0.3]), requests=[ask()])[0][0]


@settings(max_examples=60)
@given(st.floats(1e-3, 0.999), st.floats(1e-4, 1.0))
def test_the_nearest_of_all_changes_wider_than_a_step_is_found(edge: float, start: float) -> None:
    assume(abs(edge - start) > 2 * MARGIN)
    record = one_record()

    def winners(variants: Any) -> Any:
        values = variants.quality_floor.astype(np.float64)
        return np.where((values < edge) == (start < edge), 0, 1)

    grid = np.linspace(start, 1.0 if edge > start else 0.0, 64)
    (found,) = nearest_flips(record, [Path("quality_floor", -1, grid)], winners, 0)
    assert found is not None
    assert (found.until - edge) * (found.at - edge) <= 0
    assert abs(found.at - found.until) <= 2 * MARGIN * 1.001
    assert found.column == 1


def test_a_change_that_does_not_last_is_told_by_the_values_at_which_it_was_seen() -> None:
    grid = np.linspace(0.0, 1.0, 64)
    seen = float(grid[20])

    def winners(variants: Any) -> Any:
        return np.where(np.abs(variants.quality_floor - seen) < MARGIN / 20, 2, 0)

    (found,) = nearest_flips(one_record(), [Path("quality_floor", -1, grid)], winners, 0)
    assert found is not None
    assert abs(found.at - seen) < MARGIN / 20 < abs(found.until - seen)
    assert found.column == 2


def test_nothing_to_search_asks_nobody() -> None:
    def nobody(variants: Any) -> Any:
        raise AssertionError("nothing was to be decided")

    assert nearest_flips(one_record(), [], nobody, 0) == []


def test_the_strategies_are_asked_four_times_whatever_is_searched() -> None:
    calls = []

    @dataclass(frozen=True)
    class Counting:
        name: str = "counting"

        def score(self, batch: Any) -> Any:
            calls.append(len(batch))
            return BALANCED.score(batch)

    explained(ask(), Counting(), instead=DEAR.ref)
    assert len(calls) - 1 <= 5  # one to decide, one for the choice of today, four to search
    assert max(calls) <= 512
