"""Learning live, through the whole engine: decisions follow outcomes, of this process or the log, and keep a budget."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_process
from builders import Model, ask, chosen, engine, table

from monkey_coder.catalog.table import ModelTable
from monkey_coder.errors import StoreUnavailableError
from monkey_coder.models import TASK_TYPES
from monkey_coder.ports import DecisionEvent, OutcomeEvent, Reuse
from monkey_coder.quantum.budget_pacing import BudgetPacer
from monkey_coder.quantum.live_learning import JoinedOutcome, LiveLearner
from monkey_coder.quantum.outcome_record import OutcomeRecord
from monkey_coder.quantum.outlook import Outlook
from monkey_coder.quantum.preparation import prepare
from monkey_coder.quantum.quantum_routing_manager import QuantumRoutingManager
from monkey_coder.storage.sqlite_store import SqliteStore

FREE = {"quality": 1.0, "cost": 0.0, "latency": 0.0}
MODELS = table(
    Model("made/cheap", success=0.5, evidence=1.0, input_usd=0.0, output_usd=0.0, request_usd=0.001, latency_s=0.0),
    Model("made/middle", success=0.5, evidence=1.0, input_usd=0.0, output_usd=0.0, request_usd=0.01, latency_s=0.0),
    Model("made/dear", success=0.5, evidence=1.0, input_usd=0.0, output_usd=0.0, request_usd=0.1, latency_s=0.0),
)
DEBUGGING = TASK_TYPES.index("debugging")


class Process(small_process.Process):
    """A process with a live learner, whose follower knows the decisions that are not written yet."""

    def __init__(
        self,
        manager: QuantumRoutingManager,
        store: SqliteStore,
        target: float | None = None,
        models: ModelTable = MODELS,
    ) -> None:
        pacer = None if target is None else BudgetPacer(target)
        super().__init__(manager, store, models, LiveLearner(pacer))
        manager.listeners = (self.log, self.follower.recent)

    def decide(self, prompt: str = "Fix the failing test", **task: Any) -> Any:
        return super().decide(prompt, **({"preferences": FREE} | task))

    def teach(self, ref: str, success: bool, times: int = 20) -> None:
        for _ in range(times):
            self.report(self.decide(), model=ref, success=success)
        self.follower.step()


@pytest.fixture
def process(store: SqliteStore) -> Iterator[Process]:
    with engine(models=MODELS, epsilon=1e-9) as manager:
        yield Process(manager, store)


def test_without_outcomes_nothing_differs_and_afterwards_decisions_follow_them(process: Process) -> None:
    process.follower.step()
    assert process.live().estimate is None
    before = process.decide()["expected"]["success"]
    assert before == pytest.approx(0.5)
    process.teach("made/dear", success=True)
    process.teach("made/cheap", success=False)
    process.teach("made/middle", success=False)
    answer = process.decide(options={"explore": False})
    assert chosen(answer) == "made/dear"
    assert answer["expected"]["success"] > 0.75
    assert process.live().experience["debugging"] == pytest.approx(60, rel=0.01)


def test_a_process_that_starts_later_learns_the_same_from_the_log(process: Process, store: SqliteStore) -> None:
    process.teach("made/dear", success=True)
    process.teach("made/cheap", success=False)
    process.write()
    with engine(models=MODELS) as manager:
        later = Process(manager, store)
        while later.follower.step():
            pass
        ours, theirs = process.live().estimate, later.live().estimate
        assert ours is not None
        assert theirs is not None
        state = prepare([ask(task_type="debugging")], process.live(), process.manager.embedder).batch.state
        asked = state, np.array([DEBUGGING]), np.ones((1, 3))
        # Processes look at the stream at other times, and solve for the weights then; so they agree nearly.
        of_reported = [MODELS.refs.index(ref) for ref in ("made/cheap", "made/dear")]
        mine, others = (each.expect(*asked)[0][0, of_reported] for each in (ours, theirs))
        np.testing.assert_allclose(mine, others, atol=0.06)


def test_a_model_that_nobody_tried_is_given_the_benefit_of_the_doubt_and_says_so(process: Process) -> None:
    for ref in ("made/cheap", "made/middle"):
        for times in (20, 20):
            process.teach(ref, success=True, times=times)
            process.teach(ref, success=False, times=times // 4)
    answer = process.decide(preferences=FREE)
    assert chosen(answer) == "made/dear"
    assert answer["explored"]
    assert answer["propensity"] == pytest.approx(1.0)
    calm = process.decide(options={"explore": False})
    assert chosen(calm) != "made/dear"
    assert not calm["explored"]


def test_a_reported_cost_moves_what_is_expected(process: Process) -> None:
    for _ in range(60):
        process.report(process.decide(), model="made/cheap", success=True, cost_usd=0.004)
    process.follower.step()
    events: list[Any] = []
    process.manager.listeners = (type("Listener", (), {"on_decided": staticmethod(events.extend)})(),)
    process.decide()
    assert events[0].batch.cost_usd[0, 0] == pytest.approx(0.004, rel=0.2)


def test_spend_is_kept_at_its_target(store: SqliteStore) -> None:
    rng = np.random.default_rng(0)
    quality = {"made/cheap": 0.5, "made/middle": 0.75, "made/dear": 0.9}
    price = {ref: float(usd) for ref, usd in zip(MODELS.refs, MODELS.request_usd, strict=True)}
    known = replace(
        MODELS,
        success=np.tile(np.float32(list(quality.values())), (len(TASK_TYPES), 1)),
        evidence=np.full_like(MODELS.evidence, 20.0),
    )
    with engine(models=known) as manager:
        process = Process(manager, store, target=0.02, models=known)
        spent = []
        for place in range(400):
            answer = process.decide(f"Fix test {place}", preferences={"quality": 0.6, "cost": 0.3, "latency": 0.0})
            ref = chosen(answer)
            spent.append(price[ref])
            process.report(answer, success=bool(rng.random() < quality[ref]), cost_usd=spent[-1])
            if place % 4 == 3:
                process.follower.step()
        pace = process.live().pace
    assert np.mean(spent[100:]) == pytest.approx(0.02, rel=0.15)
    assert pace is not None
    assert pace.cost_weight > 0.0
    assert pace.target_usd == 0.02


def test_an_unreported_cost_counts_as_expected_and_an_error_as_nothing(process: Process) -> None:
    events: list[Any] = []
    process.manager.listeners = (type("Listener", (), {"on_decided": staticmethod(events.extend)})(),)
    process.decide()
    outlook = Outlook.of_event(events[0])
    assert outlook is not None
    pacer = BudgetPacer(1.0)
    learner = LiveLearner(pacer)
    good, bad, broken = ({"success": True}, {"success": False}, {"error_type": "timeout"})
    told: list[tuple[str, str, dict[str, Any], bool]] = [
        ("0", "made/dear", good, False),
        ("1", "made/dear", broken, False),
        ("0", "made/dear", bad, True),
        ("x", "made/unknown", good, False),
    ]
    outcomes = [
        JoinedOutcome(name, ref, OutcomeRecord("k", 0.0, **said), "debugging", outlook, further)
        for name, ref, said, further in told
    ]
    learner.learn(outcomes, MODELS)
    learner.learn([replace(outcomes[0], identity="y", outlook=None)], MODELS)
    assert pacer.pace().balance_usd == pytest.approx(2.0 - 0.1)


def test_decisions_of_the_heuristic_have_no_outlook(process: Process) -> None:
    events: list[Any] = []
    process.manager.listeners = (type("Listener", (), {"on_decided": staticmethod(events.extend)})(),)
    process.manager.embedder = None  # type: ignore[assignment] - broken on purpose
    process.decide()
    assert Outlook.of_event(events[0]) is None


class Troubled(SqliteStore):
    """A store in which some decisions are damaged, or cannot be read just now."""

    damaged: frozenset[str] = frozenset()
    away: frozenset[str] = frozenset()

    def decision_payloads(self, ids: Sequence[str]) -> Mapping[str, bytes]:
        if self.away & set(ids):
            raise StoreUnavailableError("not now")
        return {**super().decision_payloads(ids), **dict.fromkeys(self.damaged & set(ids), b"damaged")}


class Heard:
    """Takes note of outcomes."""

    def __init__(self) -> None:
        self.events: list[OutcomeEvent] = []

    def on_outcomes(self, events: Any) -> None:
        self.events += events


@pytest.fixture
def troubled(tmp_path: Path) -> Iterator[Troubled]:
    opened = Troubled(tmp_path / "troubled", time.time)
    yield opened
    opened.close()


def repeated(process: Process, later: Process) -> Any:
    """A hit in one process for a decision that another one made and logged."""
    answer = process.decide()
    process.write()
    hit = answer | {"decision_id": later.manager.ids.make(1)[0], "cache": "redis"}
    reuse = Reuse(answer["decision_id"], "debugging")
    event = DecisionEvent(hit, batch=None, row=0, distribution=np.ones(1, np.float32), duration_s=0.0, reuse=reuse)
    later.follower.recent.on_decided([event])
    return answer, hit


def test_learning_goes_on_where_the_decision_that_a_hit_repeats_is_damaged(
    process: Process, troubled: Troubled, caplog: pytest.LogCaptureFixture
) -> None:
    process.store = troubled
    with engine(models=MODELS) as manager:
        later = Process(manager, troubled)
        answer, hit = repeated(process, later)
        troubled.damaged = frozenset({answer["decision_id"]})
        later.report(hit, success=False)
        before = later.live().table.success.copy()
        assert later.follower.step() == 1
        assert later.follower.step() == 0
        assert (later.live().table.success != before).any()
        assert "repeated decision" in caplog.text


def test_an_outcome_is_new_to_everybody_after_the_store_was_away_for_the_decision_that_it_repeats(
    process: Process, troubled: Troubled
) -> None:
    process.store = troubled
    with engine(models=MODELS) as manager:
        later, heard = Process(manager, troubled), Heard()
        later.follower.listeners = (heard,)
        answer, hit = repeated(process, later)
        troubled.away = frozenset({answer["decision_id"]})
        later.report(hit, success=False)
        with pytest.raises(StoreUnavailableError):
            later.follower.step()
        troubled.away = frozenset()
        later.follower.step()
        assert [event.origin for event in heard.events] == [answer["decision_id"]]
        assert later.live().experience == {"debugging": 1.0}
