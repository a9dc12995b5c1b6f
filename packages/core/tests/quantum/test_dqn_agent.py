"""The agent: targets by hand, exact resumption, and the easiest worlds there are."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from monkey_coder.errors import PolicyError, TrainingDivergedError
from monkey_coder.quantum.dqn_agent import DQNAgent, DQNConfig, pick_device, replay, sample_errors, td_target
from monkey_coder.quantum.dqn_config import PRESETS
from monkey_coder.quantum.experience_buffer import ArraySpec, ExperienceBuffer, Prioritisation, Steps
from monkey_coder.quantum.policy_file import NetworkConfig, NetworkShape
from monkey_coder.quantum.training_monitor import TrainingPoint, judge, largest_return

SMALL = NetworkConfig(state_hidden=(16,), model_hidden=(8,), width=8, failed_width=2)
BEST = np.array([0, 1, 2, 1])  # the model that suits each state
INF = math.inf


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def see(states: np.ndarray, models: int = 3) -> dict[str, Any]:
    """One-hot states of a world of four, in which every model may be chosen."""
    return {"state": np.eye(4, dtype=np.float32)[states], "candidates": np.ones((len(states), models), bool)}


def agent_for(config: DQNConfig, models: int = 3) -> DQNAgent:
    return DQNAgent(config, NetworkShape(state=4, model=models, slots=models), np.eye(models, dtype=np.float32))


def memory(config: DQNConfig, models: int = 3) -> ExperienceBuffer:
    priority = None if config.priority_alpha is None else Prioritisation(config.priority_alpha)
    return ExperienceBuffer(
        {"state": ArraySpec((4,)), "candidates": ArraySpec((models,), "bool")}, config.replay_capacity, priority
    )


def one_step(states: np.ndarray, action: np.ndarray, reward: np.ndarray) -> Steps:
    ends = np.ones(len(states), bool)
    return Steps(see(states), action, reward.astype(np.float32), see(states), ends, ~ends, np.arange(len(states)))


def success(states: np.ndarray, action: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The right model succeeds 9 times of 10, any other 3 times."""
    return rng.random(len(states)) < np.where(BEST[states] == action, 0.9, 0.3)


def regret(agent: DQNAgent) -> float:
    """Share of the best achievable success rate that greedy choices lose, over all states."""
    right = agent.act(see(np.arange(4))) == BEST
    return 1.0 - float(np.where(right, 0.9, 0.3).mean()) / 0.9


def tensor(*values: Any) -> torch.Tensor:
    return torch.tensor(values)


class TestTarget:
    def test_the_online_net_picks_and_the_target_net_prices(self) -> None:
        target = td_target(
            reward=tensor(1.0),
            next_online=tensor([2.0, 9.0, 1.0]),
            next_target=tensor([50.0, 4.0, 60.0]),
            terminated=tensor(False),
            discount=tensor(0.5),
        )
        assert target.tolist() == [3.0]

    def test_only_terminated_stops_bootstrapping(self) -> None:
        values = tensor([7.0, 3.0], [7.0, 3.0])
        target = td_target(tensor(1.0, 1.0), values, values, tensor(True, False), tensor(1.0, 1.0))
        assert target.tolist() == [1.0, 8.0]

    def test_models_that_are_no_candidates_are_not_bootstrapped_from(self) -> None:
        values = tensor([7.0, -INF], [-INF, -INF])
        target = td_target(tensor(0.0, 2.0), values, values, tensor(False, False), tensor(1.0, 1.0))
        assert target.tolist() == [7.0, 2.0]

    def test_each_member_has_a_target_of_its_own(self) -> None:
        values = tensor([[1.0, 0.0]], [[0.0, 5.0]])
        target = td_target(tensor(1.0), values, values, tensor(False), tensor(1.0))
        assert target.tolist() == [[2.0], [6.0]]

    def test_a_value_that_is_no_number_shows(self) -> None:
        values = tensor([math.nan, 1.0])
        assert td_target(tensor(0.0), values, values, tensor(False), tensor(1.0)).isnan().all()

    def test_errors_by_hand(self) -> None:
        errors = tensor(-3.0, 0.5)
        assert sample_errors(errors, None).tolist() == [4.5, 0.125]
        assert sample_errors(errors, 1.0).tolist() == [2.5, 0.125]

    @given(st.floats(-9, 9), st.floats(0.1, 5))
    def test_huber_is_what_torch_says(self, error, delta) -> None:
        wanted = torch.nn.functional.huber_loss(tensor(error), tensor(0.0), delta=delta)
        torch.testing.assert_close(sample_errors(tensor(error), delta)[0], wanted)

    def test_n_steps_bootstrap_with_the_discount_of_n_steps(self) -> None:
        """Two steps of reward 1 and 2 with discount 0.5, then a state that the target net prices at its base of 8."""
        config = DQNConfig(network=SMALL, n_step=2, discount=0.5, device="cpu")
        agent = agent_for(config)
        now, after = see(np.array([0, 1])), see(np.array([1, 2]))
        for arrays, base in ((now, 0.0), (after, 8.0)):
            arrays["base"] = np.full((2, 3), base, np.float32)
        cut = np.array([False, True])
        steps = Steps(now, np.zeros(2, int), np.array([1, 2], np.float32), after, ~cut & cut, cut, np.zeros(2, int))
        buffer = ExperienceBuffer(
            {"state": ArraySpec((4,)), "candidates": ArraySpec((3,), "bool"), "base": ArraySpec((3,))}
        )
        buffer.add(agent.transitions(steps))
        batch = buffer.sample(20, np.random.default_rng(0))
        report = agent.learn(batch)
        wanted = np.where(batch.serial == 0, 1 + 0.5 * 2 + 0.25 * 8, 2 + 0.5 * 8)  # a fresh net says its base: 0
        np.testing.assert_allclose(report.td_errors, wanted, atol=1e-5)


class TestChoosing:
    agent = agent_for(DQNConfig(network=SMALL, device="cpu", seed=3))

    @given(st.integers(0, 2**32 - 1), st.floats(0, 1))
    def test_only_candidates_are_chosen(self, seed, epsilon) -> None:
        rng = np.random.default_rng(seed)
        observation = see(rng.integers(0, 4, 30))
        observation["candidates"] = rng.random((30, 3)) < 0.4
        observation["candidates"][np.arange(30), rng.integers(0, 3, 30)] = True
        rows = np.arange(30)
        assert observation["candidates"][rows, self.agent.act(observation)].all()
        choice = self.agent.explore(observation, rng, epsilon)
        assert observation["candidates"][rows, choice.action].all()
        assert ((choice.propensity > 0) & (choice.propensity <= 1 + 1e-12)).all()

    def test_acting_is_greedy_and_repeats_itself(self) -> None:
        observation = see(np.arange(4))
        observation["base"] = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
        for _ in range(3):
            np.testing.assert_array_equal(self.agent.act(observation), observation["base"].argmax(axis=1))

    def test_exploring_happens_as_often_as_its_propensity_says(self) -> None:
        observation = see(np.zeros(40_000, int))
        observation["base"] = np.tile(np.array([0.0, 1.0, 0.5], np.float32), (40_000, 1))
        observation["candidates"] = np.tile([True, True, False], (40_000, 1))
        choice = self.agent.explore(observation, np.random.default_rng(0), 0.3)
        assert choice.explored.mean() == pytest.approx(0.3, abs=0.01)
        for model, propensity in ((0, 0.15), (1, 0.85)):
            assert (choice.action == model).mean() == pytest.approx(propensity, abs=0.01)
            np.testing.assert_allclose(choice.propensity[choice.action == model], propensity)

    def test_the_schedule_says_how_much_to_explore(self) -> None:
        config = DQNConfig(network=SMALL, epsilon_start=1.0, epsilon_end=0.0, epsilon_steps=2, batch_size=4)
        agent, buffer, rng = agent_for(config), memory(config), np.random.default_rng(0)
        buffer.add(agent.transitions(one_step(np.arange(4), BEST, np.ones(4))))
        assert agent.explore(see(np.arange(4)), rng).explored.all()
        for wanted in (0.5, 0.0, 0.0):
            replay(agent, buffer, rng)
            assert agent.epsilon == wanted
        assert not agent.explore(see(np.arange(4)), rng).explored.any()

    def test_a_request_without_candidates_is_refused(self) -> None:
        observation = see(np.arange(4))
        observation["candidates"][2] = False
        with pytest.raises(ValueError, match=r"rows \[2\]"):
            self.agent.act(observation)


class TestLearns:
    def test_full_information(self) -> None:
        """100 tasks, the outcome of each model known."""
        config = DQNConfig(network=SMALL, learning_rate=5e-3, batch_size=64, seed=1)
        agent, buffer, rng = agent_for(config), memory(config), np.random.default_rng(1)
        states, action = np.repeat(rng.integers(0, 4, 100), 3), np.tile(np.arange(3), 100)
        buffer.add(agent.transitions(one_step(states, action, success(states, action, rng))))
        for _ in range(200):
            replay(agent, buffer, rng)
        assert regret(agent) < 0.05

    @pytest.mark.parametrize("preset", sorted(PRESETS))
    def test_bandit_feedback(self, preset) -> None:
        """1,000 tasks, only the outcome of the chosen model known; learns as it goes."""
        config = replace(PRESETS[preset], epsilon_steps=200, learning_rate=5e-3, device="cpu", seed=1)
        agent, buffer, rng = agent_for(config), memory(config), np.random.default_rng(1)
        for _ in range(250):
            states = rng.integers(0, 4, 4)
            action = agent.explore(see(states), rng).action
            buffer.add(agent.transitions(one_step(states, action, success(states, action, rng))))
            replay(agent, buffer, rng)
        assert regret(agent) < 0.05

    @pytest.mark.parametrize(("discount", "first"), [(1.0, 1), (0.0, 0)])
    @pytest.mark.parametrize("double", [True, False])
    def test_a_world_where_greed_does_not_pay(self, discount, first, double) -> None:
        """In state 0, model 0 earns 0.6 and ends; model 1 earns nothing, but leads to state 1, where all earn 1."""
        config = DQNConfig(
            network=SMALL, discount=discount, double=double, learning_rate=5e-3, tau=None, target_period=10, seed=2
        )
        agent, buffer, rng = agent_for(config), memory(config), np.random.default_rng(2)
        states, action = np.array([0, 0, 1, 1, 1, 0]), np.array([0, 1, 0, 1, 2, 2])
        reward = np.array([0.6, 0.0, 1.0, 1.0, 1.0, 0.0], np.float32)
        leads_on = (states == 0) & (action == 1)
        steps = Steps(see(states), action, reward, see(np.ones(6, int)), ~leads_on, np.zeros(6, bool), np.arange(6))
        buffer.add(agent.transitions(steps))
        for _ in range(300):
            replay(agent, buffer, rng)
        assert agent.act(see(np.array([0]))) == [first]

    def test_in_episodes_of_one_step_the_value_is_the_reward(self) -> None:
        config = DQNConfig(network=SMALL, learning_rate=1e-2, weight_decay=0.0, slot_decay=0.0, tau=0.5)
        agent, buffer, rng = agent_for(config), memory(config), np.random.default_rng(0)
        rewards = rng.uniform(-1, 1, (4, 3))
        states, action = np.repeat(np.arange(4), 3), np.tile(np.arange(3), 4)
        buffer.add(agent.transitions(one_step(states, action, rewards.reshape(-1))))
        for _ in range(600):
            replay(agent, buffer, rng)
        np.testing.assert_allclose(agent.q_values(see(np.arange(4))), rewards, atol=0.05)

    def test_row_weights_decide_between_rewards_that_contradict(self) -> None:
        config = DQNConfig(network=SMALL, huber_delta=None, learning_rate=1e-2, weight_decay=0.0, slot_decay=0.0)
        agent, buffer, rng = agent_for(config), memory(config), np.random.default_rng(0)
        steps = one_step(np.zeros(2, int), np.zeros(2, int), np.array([0.0, 1.0]))
        buffer.add(agent.transitions(replace(steps, weight=np.array([1.0, 3.0], np.float32))))
        for _ in range(400):
            replay(agent, buffer, rng)
        assert agent.q_values(see(np.array([0])))[0, 0] == pytest.approx(0.75, abs=0.1)


def trained(config: DQNConfig, steps: int, restart=None) -> DQNAgent:
    """Train on random outcomes of two-step episodes; `restart` swaps agent and generator half way."""
    agent, buffer, rng = agent_for(config), memory(config), np.random.default_rng(5)
    states, action = rng.integers(0, 4, 200), rng.integers(0, 3, 200)
    second = np.arange(200) % 2 == 1
    world = Steps(
        see(states),
        action,
        rng.random(200, np.float32),
        see(np.roll(states, -1)),
        second,
        ~second & second,
        np.arange(200) // 2,
    )
    buffer.add(agent.transitions(world))
    for step in range(steps):
        if restart and step == steps // 2:
            agent, rng = restart(agent, rng)
        replay(agent, buffer, rng)
    return agent


EVERYTHING = DQNConfig(
    network=replace(SMALL, dropout=0.2, slot_dropout=0.2, layer_norm=True, dueling=True, members=2),
    n_step=2,
    priority_alpha=0.6,
    priority_beta=0.4,
    priority_beta_steps=50,
    learning_rate_end=1e-5,
    learning_rate_steps=80,
    batch_size=16,
    seed=9,
    device="cpu",
)


class TestSaving:
    @pytest.mark.parametrize(
        "config", [EVERYTHING, replace(EVERYTHING, tau=None, target_period=30)], ids=["soft", "hard"]
    )
    def test_a_restart_half_way_changes_no_bit(self, tmp_path, config) -> None:
        def restart(agent, rng):
            agent.save(tmp_path / "agent.pt", rng)
            fresh = np.random.default_rng()
            return DQNAgent.load(tmp_path / "agent.pt", fresh), fresh

        straight, restarted = trained(config, 100), trained(config, 100, restart)
        assert restarted.steps == 100
        for name in ("online", "target"):
            ours, theirs = (getattr(agent, name).state_dict() for agent in (straight, restarted))
            for key, value in ours.items():
                torch.testing.assert_close(theirs[key], value, rtol=0, atol=0, msg=f"{name} {key}")

    def test_same_seed_same_agent_and_another_seed_another(self) -> None:
        first, second, other = (trained(replace(EVERYTHING, seed=seed), 20) for seed in (1, 1, 2))
        observation = see(np.arange(4))
        np.testing.assert_array_equal(first.q_values(observation), second.q_values(observation))
        assert not np.array_equal(first.q_values(observation), other.q_values(observation))

    def test_damaged_and_foreign_files_are_refused(self, tmp_path) -> None:
        path = tmp_path / "agent.pt"
        agent_for(DQNConfig(network=SMALL)).save(path)
        whole = path.read_bytes()
        torch.save({"format": 99}, tmp_path / "future.pt")
        foreign = (tmp_path / "future.pt").read_bytes()
        for data, says in ((whole[:-500], "cannot be read"), (b"nonsense", "cannot be read"), (foreign, "format 99")):
            path.write_bytes(data)
            with pytest.raises(PolicyError, match=says):
                DQNAgent.load(path)

    def test_code_in_a_file_is_not_run(self, tmp_path) -> None:
        class Trap:
            def __reduce__(self):
                return (open, (str(tmp_path / "sprung"), "w"))

        torch.save({"format": 1, "config": Trap()}, tmp_path / "agent.pt")
        with pytest.raises(PolicyError, match="cannot be read"):
            DQNAgent.load(tmp_path / "agent.pt")
        assert not (tmp_path / "sprung").exists()

    def test_a_missing_file_and_a_missing_generator_are_said(self, tmp_path) -> None:
        with pytest.raises(FileNotFoundError):
            DQNAgent.load(tmp_path / "none.pt")
        agent_for(DQNConfig(network=SMALL)).save(tmp_path / "agent.pt")
        with pytest.raises(PolicyError, match="no generator state"):
            DQNAgent.load(tmp_path / "agent.pt", np.random.default_rng())


class TestSafety:
    def test_a_loss_that_is_not_finite_stops_before_it_does_harm(self) -> None:
        config = DQNConfig(network=SMALL, batch_size=4)
        agent, buffer, rng = agent_for(config), memory(config), np.random.default_rng(0)
        buffer.add(agent.transitions(one_step(np.arange(4), BEST, np.array([1.0, np.nan, 1.0, 1.0]))))
        before = agent.q_values(see(np.arange(4)))
        with pytest.raises(TrainingDivergedError, match="step 1: loss nan"):
            agent.learn(buffer.sample(64, rng))
        np.testing.assert_array_equal(agent.q_values(see(np.arange(4))), before)
        assert agent.steps == 0

    def test_one_huge_reward_moves_the_weights_no_further_than_the_clip_allows(self) -> None:
        config = DQNConfig(network=SMALL, huber_delta=None, gradient_clip=1.0, learning_rate=1e-3)
        agent, buffer = agent_for(config), memory(config)
        buffer.add(agent.transitions(one_step(np.zeros(1, int), np.zeros(1, int), np.array([1e6]))))
        report = agent.learn(buffer.sample(8, np.random.default_rng(0)))
        assert report.gradient_norm > 1e3
        assert np.abs(agent.q_values(see(np.arange(4)))).max() < 0.1

    def test_an_override_of_the_learning_rate_counts(self) -> None:
        config = DQNConfig(network=SMALL, batch_size=4, weight_decay=0.0, slot_decay=0.0)
        slow, fast = agent_for(config), agent_for(config)
        buffer = memory(config)
        buffer.add(slow.transitions(one_step(np.arange(4), BEST, np.ones(4))))
        for agent, rate in ((slow, 1e-6), (fast, 1e-2)):
            for _ in range(10):
                replay(agent, buffer, np.random.default_rng(0), rate)
        assert np.abs(slow.q_values(see(np.arange(4)))).max() < 1e-3 < fast.q_values(see(np.arange(4))).max()

    def test_features_must_fit_the_shape(self) -> None:
        with pytest.raises(ValueError, match="features have shape"):
            DQNAgent(DQNConfig(), NetworkShape(state=4, model=3, slots=2), np.eye(3))

    def test_the_report_tells_what_happened(self) -> None:
        config = DQNConfig(network=SMALL, batch_size=4)
        agent, buffer = agent_for(config), memory(config)
        buffer.add(agent.transitions(one_step(np.arange(4), BEST, np.full(4, 0.5))))
        report = agent.learn(buffer.sample(16, np.random.default_rng(0)))
        assert (report.step, report.mean_abs_q, report.max_abs_q) == (1, 0.0, 0.0)
        np.testing.assert_allclose(report.td_errors, 0.5)
        assert report.loss == pytest.approx(0.125)
        assert 0.0 <= agent.dead_share(see(np.arange(4))) <= 1.0


def test_models_come_and_go() -> None:
    agent = trained(replace(EVERYTHING, network=SMALL), 50)
    changed = agent.with_models([2, -1, 0], np.eye(3, dtype=np.float32)[[2, 1, 0]])
    old, new = agent.q_values(see(np.arange(4))), changed.q_values(see(np.arange(4)))
    np.testing.assert_allclose(new[:, [0, 2]], old[:, [2, 0]], atol=1e-6)
    assert changed.steps == agent.steps
    assert not np.allclose(new[:, 1], old[:, 1])


def test_the_device_is_chosen_by_itself() -> None:
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert pick_device("cpu").type == "cpu"


def test_a_run_whose_values_grow_without_bound_is_seen_to_diverge() -> None:
    """A step that leads back to itself, undiscounted, has no finite value; no episode here is longer than 4 steps."""
    config = DQNConfig(network=SMALL, batch_size=16, learning_rate=1e-2, huber_delta=None, tau=1.0)
    agent, buffer, rng = agent_for(config), memory(config), np.random.default_rng(0)
    loop = replace(one_step(np.arange(4), np.zeros(4, int), np.ones(4)), terminated=np.zeros(4, bool))
    buffer.add(agent.transitions(loop))
    history: list[TrainingPoint] = []
    while len(history) < 40 and judge(history, largest_return(0.0, 1.0, 1.0, 4)).status == "healthy":
        reports = [replay(agent, buffer, rng) for _ in range(20)]
        history.append(TrainingPoint(agent.steps, reports[-1].loss, max(report.max_abs_q for report in reports)))
    verdict = judge(history, largest_return(0.0, 1.0, 1.0, 4))
    assert verdict.status == "diverged"
    assert "no policy can achieve more than 4" in verdict.reason
