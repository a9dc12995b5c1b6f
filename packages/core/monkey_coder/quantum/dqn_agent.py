"""The DQN agent: acts, explores, learns from replayed transitions, and saves itself exactly (T2.1.1).

Deep Q-learning after Mnih et al. 2015, with double targets (van Hasselt et al. 2016), a dueling option (Wang et al.
2016) and prioritised replay (Schaul et al. 2016). `docs/explanation/dqn.md` lists each departure, and why.

Example:
    >>> config = DQNConfig(seed=1, batch_size=8)
    >>> agent = DQNAgent(config, NetworkShape(state=2, model=1, slots=3), np.zeros((3, 1), np.float32))
    >>> agent.act({"state": np.zeros((1, 2), np.float32), "candidates": np.array([[False, True, False]])})
    array([1])
"""

from __future__ import annotations

import json
import math
import os
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from monkey_coder.errors import PolicyError, TrainingDivergedError
from monkey_coder.quantum.dqn_config import DQNConfig, scheduled
from monkey_coder.quantum.experience_buffer import Arrays, ExperienceBuffer, Sample, Steps, Transitions, n_step
from monkey_coder.quantum.neural_networks import (
    Models,
    Observation,
    TwoTower,
    build_network,
    hard_update,
    soft_update,
    with_slots,
)
from monkey_coder.quantum.policy_file import NetworkShape, network_config

__all__ = ["DQNAgent", "DQNConfig", "Exploration", "LearnReport", "replay", "sample_errors", "td_target"]

_FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class Exploration:
    """What an exploring agent chose.

    Attributes:
        action: (B,) column of the chosen model.
        propensity: (B,) probability with which it was chosen.
        explored: (B,) whether it was drawn at random (which may have hit the greedy choice).
    """

    action: NDArray[np.int64]
    propensity: NDArray[np.float64]
    explored: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class LearnReport:
    """What one gradient step saw and did.

    Attributes:
        step: How many steps the agent has made, this one included.
        loss: Weighted loss of the batch.
        mean_abs_q: Mean of |Q| of the chosen models.
        max_abs_q: Largest |Q| of any candidate of the batch.
        gradient_norm: Before clipping.
        td_errors: (B,) absolute temporal-difference error of each row, mean over the members.
    """

    step: int
    loss: float
    mean_abs_q: float
    max_abs_q: float
    gradient_norm: float
    td_errors: NDArray[np.float32]


def td_target(
    reward: Tensor,
    next_online: Tensor,
    next_target: Tensor,
    terminated: Tensor,
    discount: Tensor,
    stop: Tensor | None = None,
) -> Tensor:
    """Double-DQN target: the online net picks the next model, the target net prices it.

    Give the target net's values twice for the plain DQN target. A state without candidates is worth 0.

    Args:
        reward: (B,) rewards up to the next state.
        next_online: (..., B, M) values of the next state by the online net; -inf where no candidate.
        next_target: (..., B, M) the same by the target net.
        terminated: (B,) bool; only these do not bootstrap.
        discount: (B,) factor on the value of the next state (the discount to the power of n after n steps).
        stop: (B,) what ending the episode in the next state is worth, where one may; None: one may not.

    Returns:
        (..., B) targets.
    """
    best = next_online.argmax(dim=-1, keepdim=True)
    value = next_target.gather(-1, best).squeeze(-1)
    if stop is not None:
        value = torch.maximum(value, stop)
    return reward + torch.where(terminated | (value == -math.inf), 0.0, discount * value)


def sample_errors(errors: Tensor, huber_delta: float | None) -> Tensor:
    """Loss of each sample from its temporal-difference error: Huber's, or squared (halved) for None."""
    squared = 0.5 * errors.square()
    if huber_delta is None:
        return squared
    size = errors.abs()
    return torch.where(size <= huber_delta, squared, huber_delta * (size - 0.5 * huber_delta))


class DQNAgent:
    """Online and target network, optimizer and counters. One thread at a time may use it.

    Args:
        config: Every knob.
        shape: Sizes of the data; `slots` is the number of models.
        features: (M, F) encoded models, in the order of the columns of all observations.
    """

    def __init__(self, config: DQNConfig, shape: NetworkShape, features: NDArray[np.floating]) -> None:
        generator = torch.Generator().manual_seed(config.seed)
        self._begin(config, build_network(config.network, shape, generator), features)

    def _begin(self, config: DQNConfig, network: TwoTower, features: NDArray[np.floating]) -> None:
        count, length = network.shape.slots, network.shape.model
        if features.shape != (count, length):
            raise ValueError(f"features have shape {features.shape}; {count} slots need {(count, length)}")
        self.config = config
        self.steps = 0
        self.device = pick_device(config.device)
        self.online = network.to(self.device)
        self.target = build_network(network.config, network.shape, torch.Generator()).to(self.device)
        hard_update(self.target, self.online)
        self.target.requires_grad_(requires_grad=False)
        self._features = np.array(features, np.float32)
        self._models = Models(
            torch.as_tensor(self._features, device=self.device), torch.arange(count, device=self.device)
        )
        self._noise = torch.Generator(self.device).manual_seed(config.seed)
        self._optimizer = torch.optim.AdamW(_groups(self.online, config), lr=config.learning_rate, fused=True)

    @property
    def epsilon(self) -> float:
        """Share of random choices that the schedule asks for now."""
        return scheduled(self.config.epsilon_start, self.config.epsilon_end, self.config.epsilon_steps, self.steps)

    @property
    def learning_rate(self) -> float:
        """Learning rate that the schedule asks for now."""
        start, end = self.config.learning_rate, self.config.learning_rate_end
        return start if end is None else scheduled(start, end, self.config.learning_rate_steps or 1, self.steps)

    @property
    def beta(self) -> float:
        """Strength of importance weights that the schedule asks for now."""
        start, steps = self.config.priority_beta, self.config.priority_beta_steps
        return 1.0 if start is None else scheduled(start, 1.0, steps or 1, self.steps)

    @torch.inference_mode()
    def member_values(self, observation: Arrays) -> NDArray[np.float32]:
        """Value every model for every request by each member, (K, B, M); -inf for models that are no candidates."""
        values: NDArray[np.float32] = self.online(Observation.of(observation, self.device), self._models).cpu().numpy()
        return values

    def q_values(self, observation: Arrays) -> NDArray[np.float32]:
        """Value every model for every request, (B, M); -inf for models that are no candidates."""
        return np.asarray(self.member_values(observation).mean(axis=0))

    def act(self, observation: Arrays) -> NDArray[np.int64]:
        """Choose the best candidate of each request; never explores.

        Args:
            observation: Named arrays with a batch axis; see `neural_networks.Observation`.

        Raises:
            ValueError: A request has no candidate.
        """
        _need_candidates(observation)
        return np.asarray(self.q_values(observation).argmax(axis=1))

    def explore(self, observation: Arrays, rng: np.random.Generator, epsilon: float | None = None) -> Exploration:
        """Choose epsilon-greedily: any candidate with probability epsilon, else the best.

        Args:
            observation: As for `act`.
            rng: Source of randomness.
            epsilon: Overrides the schedule.

        Raises:
            ValueError: A request has no candidate.
        """
        epsilon = self.epsilon if epsilon is None else epsilon
        candidates = observation["candidates"]
        greedy = self.act(observation)
        explored = rng.random(len(greedy)) < epsilon
        anyone = np.where(candidates, rng.random(candidates.shape), -1.0).argmax(axis=1)
        action = np.where(explored, anyone, greedy)
        propensity = epsilon / candidates.sum(axis=1) + (1.0 - epsilon) * (action == greedy)
        return Exploration(action, propensity, explored)

    def transitions(self, steps: Steps) -> Transitions:
        """Turn raw steps into rows for the buffer, by the configured n and discount."""
        return n_step(steps, self.config.n_step, self.config.discount)

    def learn(self, batch: Sample, learning_rate: float | None = None) -> LearnReport:
        """Make one gradient step, and update the target network when it is due.

        Args:
            batch: Sampled transitions; its weights weigh each row's loss, once. An array `stop` (B,) in the next
                observation is what ending the episode there is worth.
            learning_rate: Overrides the schedule.

        Raises:
            TrainingDivergedError: Loss or gradient are not finite; the weights are as they were before.
        """
        observation = Observation.of(batch.observation, self.device)
        action, weight = self._tensor(batch.action), self._tensor(batch.weight)
        target = self._target(batch)
        q = self.online(observation, self._models, self._noise)
        chosen = q.gather(2, action.expand(len(q), -1).unsqueeze(2)).squeeze(2)
        errors = target - chosen
        loss = (weight * sample_errors(errors, self.config.huber_delta).mean(dim=0)).mean()
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.online.parameters(), self.config.gradient_clip or math.inf)
        if not (math.isfinite(loss.item()) and math.isfinite(norm.item())):
            raise TrainingDivergedError(
                f"step {self.steps + 1}: loss {loss.item()}, gradient norm {norm.item()}; "
                "the weights were left as they were: lower learning_rate, or check the rewards for values not finite"
            )
        for group in self._optimizer.param_groups:
            group["lr"] = self.learning_rate if learning_rate is None else learning_rate
        self._optimizer.step()
        self.steps += 1
        self._update_target()
        with torch.no_grad():
            finite = q.masked_fill(~observation.candidates, 0.0).abs()
            return LearnReport(
                step=self.steps,
                loss=loss.item(),
                mean_abs_q=chosen.abs().mean().item(),
                max_abs_q=finite.max().item(),
                gradient_norm=norm.item(),
                td_errors=errors.abs().mean(dim=0).cpu().numpy(),
            )

    @torch.no_grad()
    def _target(self, batch: Sample) -> Tensor:
        """(K or 1, B) targets; the next state is not even looked at when nothing bootstraps (one-step episodes)."""
        reward = self._tensor(batch.reward)
        if not (~batch.terminated & (batch.discount > 0.0)).any():
            return reward.unsqueeze(0)
        after = Observation.of(batch.next_observation, self.device)
        priced = self.target(after, self._models)
        picked = self.online(after, self._models) if self.config.double else priced
        stop = batch.next_observation.get("stop")
        return td_target(
            reward,
            picked,
            priced,
            self._tensor(batch.terminated),
            self._tensor(batch.discount),
            None if stop is None else self._tensor(stop),
        )

    def _update_target(self) -> None:
        if self.config.tau is not None:
            soft_update(self.target, self.online, self.config.tau)
        elif self.config.target_period is not None and self.steps % self.config.target_period == 0:
            hard_update(self.target, self.online)

    def _tensor(self, array: NDArray[Any]) -> Tensor:
        return torch.as_tensor(array, device=self.device)

    def dead_share(self, observation: Arrays) -> float:
        """Share of hidden units that say the same for every request of a batch, 0..1."""
        return self.online.dead_share(Observation.of(observation, self.device), self._models)

    def with_models(self, kept: Sequence[int], features: NDArray[np.floating]) -> Self:
        """Copy the agent for another set of models; the optimizer starts afresh, the schedules go on.

        Args:
            kept: For each new column, the old column of that model, or -1 for a new model.
            features: (len(kept), F) encoded models.
        """
        changed = type(self).__new__(type(self))
        changed._begin(self.config, with_slots(self.online.cpu(), kept), features)
        self.online.to(self.device)
        changed.steps = self.steps
        return changed

    def save(self, path: Path, rng: np.random.Generator | None = None) -> None:
        """Write everything that training needs to go on as if it had never stopped, in one step.

        Args:
            path: Where to; holds tensors and plain values alone.
            rng: The generator that draws samples and exploration; its state goes along.
        """
        whole = {
            "format": _FORMAT,
            "config": json.dumps(asdict(self.config)),
            "shape": asdict(self.online.shape),
            "features": torch.from_numpy(self._features),
            "online": self.online.state_dict(),
            "target": self.target.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "noise": self._noise.get_state(),
            "steps": self.steps,
            "rng": None if rng is None else json.dumps(rng.bit_generator.state),
        }
        draft = path.with_name(path.name + ".part")
        torch.save(whole, draft)
        os.replace(draft, path)  # noqa: PTH105 (says what it does: one atomic step)

    @classmethod
    def load(cls, path: Path, rng: np.random.Generator | None = None) -> Self:
        """Read what `save` wrote; runs no code from the file.

        Args:
            path: The file.
            rng: Set to the state that was saved; of the same kind as the saved one.

        Raises:
            FileNotFoundError: There is no such file.
            PolicyError: The file is damaged, or not one of this version.
        """
        try:
            whole = torch.load(path, map_location="cpu", weights_only=True)
            if whole["format"] != _FORMAT:
                raise PolicyError(f"{path} has format {whole['format']}, this version reads {_FORMAT}: train anew")
            raw = json.loads(whole["config"])
            config = DQNConfig(**(raw | {"network": network_config(raw["network"])}))
            agent = cls(config, NetworkShape(**whole["shape"]), whole["features"].numpy())
            agent.online.load_state_dict(whole["online"])
            agent.target.load_state_dict(whole["target"])
            agent._optimizer.load_state_dict(whole["optimizer"])
            agent._noise.set_state(whole["noise"])
            agent.steps = whole["steps"]
            if rng is not None:
                if whole["rng"] is None:
                    raise PolicyError(f"{path} holds no generator state: it was saved without one")
                rng.bit_generator.state = json.loads(whole["rng"])
        except FileNotFoundError:
            raise
        except (OSError, EOFError, KeyError, TypeError, ValueError, RuntimeError, pickle.UnpicklingError) as error:
            raise PolicyError(f"{path} cannot be read as a saved agent ({error}); restore it or train anew") from error
        return agent


def replay(
    agent: DQNAgent, buffer: ExperienceBuffer, rng: np.random.Generator, learning_rate: float | None = None
) -> LearnReport:
    """Sample one batch, learn from it, and give the buffer its new priorities."""
    batch = buffer.sample(agent.config.batch_size, rng, agent.beta)
    report = agent.learn(batch, learning_rate)
    buffer.update_priorities(batch.serial, report.td_errors)
    return report


def pick_device(wish: str) -> torch.device:
    """Return the device of this name; `auto` takes a GPU when there is one, else the CPU."""
    if wish != "auto":
        return torch.device(wish)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _groups(network: TwoTower, config: DQNConfig) -> list[dict[str, Any]]:
    """Weights, the terms of single models, and the rest (biases and gains, never decayed)."""
    groups: Mapping[str, list[Tensor]] = MappingProxyType({"weight": [], "slot": [], "rest": []})
    for name, parameter in network.named_parameters():
        kind = "slot" if name.startswith("slot_") else "weight" if name.endswith("weight") else "rest"
        groups[kind].append(parameter)
    decay = {"weight": config.weight_decay, "slot": config.slot_decay, "rest": 0.0}
    return [{"params": groups[kind], "weight_decay": decay[kind]} for kind in groups]


def _need_candidates(observation: Arrays) -> None:
    stuck = ~observation["candidates"].any(axis=1)
    if stuck.any():
        raise ValueError(f"rows {np.flatnonzero(stuck).tolist()} have no candidate; route only requests that have one")
