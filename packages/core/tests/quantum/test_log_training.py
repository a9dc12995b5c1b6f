"""Learning from what a running engine logged, in a world whose truth is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from colours import CHANCES, COLOURS, MODELS, ColourEmbedder
from hypothesis import given, settings
from hypothesis import strategies as st
from logged_world import Traffic, trainer
from reporting import report

from monkey_coder.errors import OutcomeTableError
from monkey_coder.quantum.log_training import Challenger, LogOptions, LogTrainer, data_of
from monkey_coder.quantum.logged_episodes import Attempt
from monkey_coder.quantum.policy_choices import Chooser
from monkey_coder.quantum.policy_judge import held_out_decisions
from monkey_coder.storage.port import START, OutcomeRow, StreamedOutcome

ONE = Traffic()
ROWS, BEFORE = ONE.run(900)


def taught(rows=ROWS, traffic: Traffic = ONE, **options) -> LogTrainer:
    one = trainer(**options)
    one.take(rows, traffic.decided.get)
    return one


@pytest.fixture(scope="module")
def learned() -> tuple[LogTrainer, Challenger]:
    one = taught()
    return one, one.train()


def attempts(one: LogTrainer) -> list[Attempt]:
    return one._log.attempts(2e9)  # what it learns from


def test_a_log_of_an_ignorant_engine_makes_one_that_knows(learned: tuple[LogTrainer, Challenger]) -> None:
    one, challenger = learned
    verdict = one.judge(challenger.bundle, None)
    assert verdict.publish, verdict.reason
    live = Traffic(seed=5, epsilon=0.0)
    _, after = live.run(400, challenger.bundle)
    assert after > BEFORE + 0.3
    assert verdict.challenger is not None
    told = verdict.challenger.doubly_robust
    assert told.low - 0.05 < after < told.high + 0.05  # and the judge foresaw it


def test_a_policy_that_learned_the_wrong_thing_stays_in_shadow(learned: tuple[LogTrainer, Challenger]) -> None:
    one, good = learned
    turned = {
        colour: {ref: chances[other] for ref, other in zip(chances, [*list(chances)[1:3], *chances], strict=False)}
        for colour, chances in CHANCES.items()
    }
    elsewhere = Traffic(seed=9, chances=turned)
    wrong = taught(elsewhere.run(500)[0], elsewhere).train()
    # What serves explores, and its outcomes tell that the other one would do worse.
    verdict = one.judge(wrong.bundle, good.bundle)
    assert not verdict.publish
    assert verdict.difference is not None
    assert verdict.difference.doubly_robust.high < 0.0
    assert "worse" in verdict.reason


def test_feedback_on_its_own_decisions_goes_on_teaching(learned: tuple[LogTrainer, Challenger]) -> None:
    one, first = learned
    more = taught(seed_rows := ROWS, ONE)
    rows, _ = ONE.run(300, first.bundle, version=1)
    words = more.take(rows, ONE.decided.get)
    assert {word.policy_version for word in words} == {1}
    second = more.train(start=first.trained.start)
    assert second.card["data"]["tasks"] > first.card["data"]["tasks"]
    verdict = more.judge(second.bundle, first.bundle)
    assert verdict.decisions > one.judge(first.bundle, None).decisions
    assert len(seed_rows) == 900


def test_one_does_not_look_again_until_there_is_more_to_see(learned: tuple[LogTrainer, Challenger]) -> None:
    _, challenger = learned
    one = taught(ROWS[:400])
    first = one.judge(challenger.bundle, None)
    one.take(ROWS[400:430], ONE.decided.get)
    assert one.judge(challenger.bundle, None) is first
    assert one.judge(challenger.bundle, challenger.bundle) is not first
    assert one.judge(challenger.bundle, None).decisions > first.decisions
    one.take(ROWS[430:], ONE.decided.get)
    assert one.judge(challenger.bundle, None).decisions > 2 * first.decisions


def test_episodes_teach_as_well() -> None:
    traffic = Traffic(seed=22)
    rows, _ = traffic.run(500, attempts=3)
    one = taught(rows, traffic, attempts=3)
    data = data_of(attempts(one), MODELS, 0.3)
    assert (data.observed.sum(axis=1) > 1).any()
    assert data.weight is not None
    assert ((data.weight > 0.0).sum(axis=1) <= 1).all()  # later attempts say nothing of chances at fresh tasks
    challenger = one.train()
    first = [each.record for each in attempts(one) if each.place == 0]
    chosen = Chooser.of(MODELS, challenger.bundle).choose(first)
    colours = ColourEmbedder().embed(COLOURS)
    wanted = [f"made/{COLOURS[int((colours @ record.embedding).argmax())]}" for record in first]
    assert np.mean([MODELS.refs[column] == ref for column, ref in zip(chosen, wanted, strict=True)]) > 0.9
    verdict = one.judge(challenger.bundle, None)
    assert verdict.difference is not None
    assert verdict.difference.doubly_robust.mean > 0.0
    assert verdict.episodes < verdict.decisions


def test_held_out_prompts_train_nothing(learned: tuple[LogTrainer, Challenger]) -> None:
    one, challenger = learned
    trained = data_of(attempts(one), MODELS, 0.3)
    judged = held_out_decisions(attempts(one), MODELS, 0.3, 1_000)
    assert judged is not None
    assert challenger.card["data"]["tasks"] <= len(trained)
    assert len(trained) + len(judged.records) == 900
    prompts = {row.tobytes() for row in trained.embedding} & {row.tobytes() for row in judged.embedding}
    assert not prompts
    assert 0.25 < len(judged.records) / 900 < 0.37


def test_the_same_log_and_seed_give_the_same_policy_whatever_the_order(
    learned: tuple[LogTrainer, Challenger],
) -> None:
    _, challenger = learned
    shuffled = [ROWS[place] for place in np.random.default_rng(1).permutation(len(ROWS))]
    again = taught([*shuffled, *ROWS[:50]]).train()
    ours, theirs = (each.trained.parts.success.to_arrays()[0] for each in (challenger, again))
    assert {name: array.tobytes() for name, array in ours.items()} == {
        name: array.tobytes() for name, array in theirs.items()
    }


def test_a_killed_trainer_comes_back_as_it_was() -> None:
    one = taught(ROWS[:300])
    one.train()
    one.take(ROWS[300:350], ONE.decided.get)
    state = one.state()
    other = trainer()
    since = other.restore(state)
    other.take([row for row in ROWS[:350] if int(row.position) > int(since)], ONE.decided.get)
    assert other.status() == one.status()
    assert [each.record.id for each in attempts(other)] == [each.record.id for each in attempts(one)]
    assert other.state() == state


@pytest.mark.parametrize("state", [{}, {"since": 3, "trained_at": "x", "runs": None}])
def test_without_a_usable_state_everything_is_read_again(state: dict) -> None:
    assert trainer().restore(state) == START


def test_a_run_is_worthwhile_only_with_enough_that_is_new() -> None:
    one = taught(ROWS[:99])
    assert not one.ready()
    one.take(ROWS[99:100], ONE.decided.get)
    assert one.ready()
    assert one.status()["needed"] == 100


def test_too_little_is_told_with_the_mend() -> None:
    with pytest.raises(OutcomeTableError, match="add outcomes"):
        trainer().train()
    with pytest.raises(OutcomeTableError, match="explore"):
        taught(ROWS[:6]).train()


def test_a_model_that_left_the_catalog_is_left_out() -> None:
    one = taught(ROWS[:400])
    keep = np.array([0, 2, 3])
    one.table = replace(
        MODELS,
        **{
            name: value[..., keep]
            for name, value in vars(MODELS).items()
            if isinstance(value, np.ndarray) and name != "capabilities"
        },
        capabilities=MODELS.capabilities[keep],
        refs=tuple(MODELS.refs[place] for place in keep),
        regions=tuple(MODELS.regions[place] for place in keep),
    )
    challenger = one.train()
    assert MODELS.refs[1] not in challenger.trained.parts.success.models
    assert one.judge(challenger.bundle, None).decisions > 0


def test_cached_decisions_teach_the_memory_but_not_the_chances(learned: tuple[LogTrainer, Challenger]) -> None:
    traffic = Traffic(seed=4)
    rows, _ = traffic.run(200)
    cached = {
        each: replace(record, answer={**record.answer, "cache": "local"}) for each, record in traffic.decided.items()
    }
    half = {row.row.decision_id for row in rows[::2]}
    one = trainer()
    one.take(rows, lambda each: cached[each] if each in half else traffic.decided[each])
    data = data_of(attempts(one), MODELS, 0.3)
    assert data.weight is not None
    counted = (data.weight > 0.0).any(axis=1)
    assert 0.3 < counted.mean() < 0.7
    assert data.observed[~counted].any()
    assert one.judge(learned[1].bundle, None).decisions < 60


absurd = st.builds(
    lambda place, said: (place, said),
    st.integers(0, 199),
    st.sampled_from(
        [
            {"success": True, "cost_usd": 1e6, "latency_ms": 1e9},
            {"success": False, "quality": 1.0, "final": True},
            {"quality": 0.5},
            {"error_type": "auth"},
            {"success": True, "model": "no/such", "cost_usd": 1.0},
            {"success": False, "model": "made/dear", "outcome_id": "again"},
            {"success": True, "at": 1e8},
            {"success": True, "at": -1e8},
        ]
    ),
)


@settings(max_examples=3)
@given(st.lists(absurd, min_size=40, max_size=120))
def test_poisoned_reports_break_nothing(said) -> None:
    records = [ONE.decided[row.row.decision_id] for row in ROWS[:200]]
    rows: list[OutcomeRow] = [report(records[place], **what) for place, what in said]
    rows += [replace(rows[0], payload=payload, outcome_id=str(payload)) for payload in (b"", b"{}", b"[1]")]
    stream = [StreamedOutcome(f"{place}", row) for place, row in enumerate(rows, 1000)]
    one = taught([*ROWS[:200], *stream])
    challenger = one.train()
    verdict = one.judge(challenger.bundle, None)
    assert np.isfinite(challenger.trained.parts.success.to_arrays()[0]["mark_mean"]).all()
    assert verdict.reason


def test_everybody_failing_breaks_nothing() -> None:
    nothing = {colour: dict.fromkeys(chances, 0.0) for colour, chances in CHANCES.items()}
    traffic = Traffic(seed=6, chances=nothing)
    rows, _ = traffic.run(450)
    one = taught(rows, traffic)
    verdict = one.judge(one.train().bundle, None)
    assert verdict.difference is not None
    assert abs(verdict.difference.doubly_robust.mean) < 0.1


@pytest.mark.parametrize("options", [{"held_out": 0.0}, {"held_out": 1.0}, {"least_new": 0}, {"growth": -1.0}])
def test_senseless_options_are_refused(options: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        LogOptions(**options)
