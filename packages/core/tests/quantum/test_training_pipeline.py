"""Training end to end, in a world whose truth is known."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from colours import CHANCES, COLOURS, MODELS, ColourEmbedder, colour_tasks, quick

from monkey_coder.errors import OutcomeTableError, TrainingDivergedError
from monkey_coder.evaluation.ladder import Rungs, best_order
from monkey_coder.models import ExecuteRequest, RouteRequest
from monkey_coder.quantum.model_card import to_markdown
from monkey_coder.quantum.preparation import prepare
from monkey_coder.quantum.served_policy import ServedPolicy
from monkey_coder.quantum.snapshot import EngineSnapshot
from monkey_coder.quantum.training_data import (
    LoggedDecisions,
    OutcomeData,
    joined,
    outcomes_of_log,
    outcomes_of_prompts,
)
from monkey_coder.quantum.training_figures import as_batch
from monkey_coder.quantum.training_monitor import TrainingControl
from monkey_coder.quantum.training_pipeline import TrainedPolicy, train
from monkey_coder.quantum.training_plots import draw_card


def first_choices(trained: TrainedPolicy, per_usd: float) -> dict[str, str]:
    """What the policy would try first for most prompts of each colour; a few may be far from all others."""
    policy = ServedPolicy.bind(trained.parts, MODELS.refs, EngineSnapshot(MODELS, {}).model_features)
    chosen = {}
    for colour in COLOURS:
        prompts = [f"make it {colour}, number 5 {place}" for place in range(100, 115)]
        requests = [RouteRequest(request=ExecuteRequest(prompt=prompt)) for prompt in prompts]
        batch = prepare(requests, EngineSnapshot(MODELS, {}), ColourEmbedder()).batch
        weight = np.full(len(batch), per_usd, np.float32)
        best = policy.value(replace(batch, cost_weight=weight, latency_weight=0.0 * weight)).q.argmax(axis=1)
        chosen[colour] = MODELS.refs[int(np.bincount(best).argmax())]
    return chosen


def ladder_utility(learning: OutcomeData, fresh: OutcomeData, attempts: int, per_usd: float) -> float:
    """Utility, on fresh tasks, of the best fixed order of the learning tasks."""

    def rungs(data: OutcomeData) -> Rungs:
        right = data.scores >= 0.5
        nothing = np.zeros_like(data.scores)
        return Rungs(data.scores, nothing, 1.0 - right, data.paid())

    order, _ = best_order(rungs(learning), per_usd, attempts)
    there = rungs(fresh)
    reach, value = np.ones(len(fresh)), np.zeros(len(fresh))
    for model in order:
        value += reach * (there.accepted[:, model] - per_usd * there.cost[:, model])
        reach *= there.passes_on[:, model]
    return float(value.mean())


def policy_utility(trained: TrainedPolicy, fresh: OutcomeData, attempts: int, per_usd: float) -> float:
    """Utility, on fresh tasks, of asking the served policy again after each failure."""
    policy = ServedPolicy.bind(trained.parts, fresh.table.refs, EngineSnapshot(fresh.table, {}).model_features)
    rejected = np.zeros(fresh.scores.shape, dtype=np.bool_)
    waiting, value = np.arange(len(fresh)), np.zeros(len(fresh))
    for step in range(attempts):
        weight = np.full(len(waiting), per_usd, np.float32)
        batch = as_batch(fresh, waiting, weight, rejected[waiting], attempts - step)
        q = np.where(batch.candidates, policy.value(batch).q, -np.inf)
        choice = q.argmax(axis=1)
        on = (q.max(axis=1) > 0.0) | (step == 0)
        waiting, choice = waiting[on], choice[on]
        value[waiting] += fresh.scores[waiting, choice] - per_usd * fresh.paid()[waiting, choice]
        failed = fresh.scores[waiting, choice] < 0.5
        rejected[waiting[failed], choice[failed]] = True
        waiting = waiting[failed]
    return float(value.mean())


def test_reading_the_prompt_beats_the_best_fixed_ladder(trained_policy: TrainedPolicy) -> None:
    learning, fresh = colour_tasks(240), colour_tasks(400, seed=1)
    per_usd = 2.0  # the dear model costs 0.4 of a success, the others 0.04
    ours = policy_utility(trained_policy, fresh, 3, per_usd)
    theirs = ladder_utility(learning, fresh, 3, per_usd)
    assert ours > theirs + 0.05


def test_each_prompt_gets_the_model_it_asks_for(trained_policy: TrainedPolicy) -> None:
    assert first_choices(trained_policy, per_usd=2.0) == {colour: f"made/{colour}" for colour in COLOURS}


def test_what_cannot_be_read_is_not_pretended() -> None:
    trained = train(colour_tasks(160, readable=False), quick())
    gain = trained.card["validation"]["gain_over_best_single"]
    assert abs(gain["mean"]) < 0.1
    assert gain["low"] <= gain["mean"] <= gain["high"]


def test_trust_goes_to_those_who_read(trained_policy: TrainedPolicy) -> None:
    trust = trained_policy.reliability
    assert set(trust) == {"dqn", "memory", "task_optimized", "cost_efficient", "performance", "balanced"}
    assert all(0.0 <= value <= 1.0 for value in trust.values())
    assert trust["dqn"] > max(trust[name] for name in ("task_optimized", "cost_efficient", "performance", "balanced"))


def test_the_value_network_is_never_worse_than_the_lookahead_where_it_was_chosen(trained_policy: TrainedPolicy) -> None:
    assert trained_policy.card["validation"]["gain_over_lookahead"]["mean"] >= -1e-6


def test_the_same_seed_gives_the_same_bytes() -> None:
    one, other = (train(colour_tasks(80), quick()) for _ in range(2))
    assert one.parts.network is not None
    assert other.parts.network is not None
    for name, array in one.parts.network.weights.items():
        assert array.tobytes() == other.parts.network.weights[name].tobytes()
    for part in ("success", "belief"):
        ours, theirs = (getattr(each.parts, part).to_arrays() for each in (one, other))
        assert {k: v.tobytes() for k, v in ours[0].items()} == {k: v.tobytes() for k, v in theirs[0].items()}
        assert ours[1] == theirs[1]
    assert one.memory.to_arrays()[1] == other.memory.to_arrays()[1]
    assert json.dumps(one.card, sort_keys=True) == json.dumps(other.card, sort_keys=True)


def test_another_seed_gives_another_policy() -> None:
    one, other = (train(colour_tasks(40), replace(quick(attempts=1), seed=seed)) for seed in (0, 1))
    ours, theirs = one.parts.success.to_arrays()[0], other.parts.success.to_arrays()[0]
    assert any(ours[name].tobytes() != theirs[name].tobytes() for name in ours)


def colours_of(data: OutcomeData) -> np.ndarray:
    return (data.embedding @ ColourEmbedder().embed(COLOURS).T).argmax(axis=1)


def logged(count: int, seed: int) -> OutcomeData:
    """What a router would have logged that mostly takes the model it likes, which is mostly the wrong one."""
    whole = colour_tasks(count, seed=seed)
    rng = np.random.default_rng(seed)
    colour = colours_of(whole)
    propensity = np.full(whole.scores.shape, 0.1)
    propensity[np.arange(count), (colour + 1) % 3] = 0.7
    chosen = (rng.random(count)[:, None] > propensity.cumsum(axis=1)).sum(axis=1)
    row = np.arange(count)
    log = LoggedDecisions(
        states=whole.states,
        embedding=whole.embedding,
        task=whole.task,
        complexity=whole.complexity,
        families=whole.families,
        episode=row,
        attempt=np.zeros(count, np.int64),
        chosen=chosen,
        score=whole.scores[row, chosen],
        cost=whole.paid()[row, chosen],
        propensity=propensity[row, chosen],
        expected_cost=whole.expected_cost,
    )
    return outcomes_of_log(log, MODELS)


def test_a_log_of_bad_choices_teaches_what_full_information_does(trained_policy: TrainedPolicy) -> None:
    learned = train(logged(800, seed=3), quick(attempts=1))
    assert first_choices(learned, per_usd=2.0) == first_choices(trained_policy, per_usd=2.0)
    success = {}
    for name, policy in (("full", trained_policy), ("log", learned)):
        data = colour_tasks(120, seed=4)
        bound = policy.parts.success.bind(MODELS.refs)
        success[name] = bound.estimate(data.states, data.embedding, MODELS.success[data.task]).success
    truth = np.array([list(CHANCES[COLOURS[c]].values()) for c in colours_of(colour_tasks(120, seed=4))])
    assert np.abs(success["log"] - truth).mean() < 0.15
    assert np.abs(success["log"] - success["full"]).mean() < 0.12


def test_a_fresh_batch_goes_on_from_the_earlier_agent(trained_policy: TrainedPolicy) -> None:
    start = trained_policy.start
    more = train(joined([colour_tasks(60), colour_tasks(60, seed=2)]), quick(), start=start)
    assert more.agent.steps > start.agent.steps
    assert more.parts.network is not None
    fewer = colour_tasks(60).models(np.array([3, 0]))
    assert train(fewer, quick(), start=start).parts.success.models == (MODELS.refs[3], MODELS.refs[0])


def test_one_attempt_leaves_nothing_to_plan() -> None:
    trained = train(colour_tasks(80), quick(attempts=1))
    assert trained.card["training"]["chosen_step"] == 0
    assert "nothing to learn" in trained.card["training"]["verdict"]
    assert list(trained.card["validation"]["attempts"]) == ["1"]


@pytest.mark.parametrize("prompts", [1, 2])
def test_tasks_that_are_all_alike_are_refused_with_the_mend(prompts: int) -> None:
    data = colour_tasks(30)
    alike = [f"make it {number}" for number in range(prompts)] * (30 // prompts)
    same = outcomes_of_prompts(
        alike, [None] * 30, ["paint"] * 30, np.nan_to_num(data.scores), None, MODELS, ColourEmbedder()
    )
    with pytest.raises(OutcomeTableError, match=f"{prompts} different prompts.* add outcomes of other tasks"):
        train(same, quick())


@pytest.mark.parametrize("seed", range(4))
def test_a_few_random_outcomes_teach_little_and_break_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    data = colour_tasks(24, seed)
    trained = train(replace(data, scores=(rng.random(data.scores.shape) < 0.5).astype(np.float64)), quick())
    for part in (trained.parts.success, trained.parts.belief):
        assert all(np.isfinite(array).all() for array in part.to_arrays()[0].values() if array.dtype.kind == "f")


def test_models_with_few_outcomes_are_left_to_be_judged_as_new() -> None:
    data = colour_tasks(80)
    data.scores[3:, 1] = np.nan
    assert train(data, quick(attempts=2)).parts.success.models == tuple(np.delete(np.array(MODELS.refs), 1))


def test_a_model_with_outcomes_on_one_side_only_is_learned_all_the_same() -> None:
    data = colour_tasks(60)
    data.scores[5:, 2] = np.nan
    assert len(train(data, quick(attempts=1, validation_share=0.8)).parts.success.models) == 4


def test_too_little_data_is_refused_with_the_mend() -> None:
    with pytest.raises(OutcomeTableError, match="add outcomes"):
        train(colour_tasks(10), quick())
    with pytest.raises(OutcomeTableError, match="2 models"):
        train(colour_tasks(60).models(np.array([0])), quick())


def test_a_diverging_run_ends_with_an_error() -> None:
    options = quick()
    wild = replace(
        options,
        steps=200,
        dqn=replace(
            options.dqn,
            learning_rate=50.0,
            learning_rate_end=None,
            learning_rate_steps=None,
            gradient_clip=None,
            huber_delta=None,
        ),
    )
    with pytest.raises(TrainingDivergedError):
        train(colour_tasks(80), wild)


def test_a_person_can_stop_a_run_and_keeps_the_best_so_far() -> None:
    control = TrainingControl()
    seen = []

    def progress(what: str, done: int, steps: int, note: str) -> None:
        if what == "value network":
            seen.append(done)
            if done >= 16:
                control.stop()

    trained = train(colour_tasks(80), quick(), progress, control)
    assert max(seen) == 16
    assert "stopped by hand" in trained.card["training"]["verdict"]
    assert trained.parts.network is not None


def test_the_card_tells_what_was_done_and_can_be_drawn(trained_policy: TrainedPolicy) -> None:
    card = json.loads(json.dumps(trained_policy.card))
    assert card["data"]["tasks"] == 240
    assert card["data"]["models"] == list(MODELS.refs)
    assert card["options"] == json.loads(json.dumps(asdict(quick())))
    assert card["validation"]["tasks"] == 48
    for rows in card["validation"]["attempts"]["3"].values():
        for row in rows:
            assert row["utility"]["low"] <= row["utility"]["mean"] <= row["utility"]["high"]
    pictures = draw_card(card)
    assert set(pictures) == {"curves.png", "reliability.png", "frontier.png"}
    assert all(picture.startswith(b"\x89PNG") for picture in pictures.values())
    text = to_markdown(card, 3)
    assert text.startswith("# Policy 3")
    for name in pictures:
        assert f"({name})" in text
    assert "240 tasks" in text
