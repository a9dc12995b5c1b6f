"""Times replay sampling, serving and training: python packages/core/tests/benchmarks/bench_learner.py."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy: what is measured is one core

import numpy as np
import torch

from monkey_coder.quantum.dqn_agent import DQNAgent, DQNConfig, replay
from monkey_coder.quantum.experience_buffer import ArraySpec, ExperienceBuffer, Prioritisation, Transitions
from monkey_coder.quantum.neural_networks import export_policy
from monkey_coder.quantum.policy import Policy
from monkey_coder.quantum.policy_file import NetworkConfig, NetworkShape


def timed(call: Callable[[], object], repeats: int) -> dict[str, float]:
    """Return median and 99th percentile in microseconds."""
    for _ in range(20):
        call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return {
        "p50_us": round(1e6 * float(np.median(times)), 1),
        "p99_us": round(1e6 * float(np.quantile(times, 0.99)), 1),
    }


def rows(count: int, rng: np.random.Generator) -> Transitions:
    state = rng.random((count, 64), np.float32)
    return Transitions(
        observation={"state": state},
        action=rng.integers(0, 20, count),
        reward=rng.random(count, np.float32),
        next_observation={"state": state},
        terminated=rng.random(count) < 0.5,
        truncated=np.zeros(count, bool),
        discount=np.ones(count, np.float32),
        weight=np.ones(count, np.float32),
    )


def sampling(priority: Prioritisation | None, size: int = 1_000_000) -> dict[str, float]:
    """Draw 256 of a million transitions of 64 state floats."""
    rng = np.random.default_rng(0)
    buffer = ExperienceBuffer({"state": ArraySpec((64,))}, size, priority)
    for _ in range(10):
        buffer.add(rows(size // 10, rng))
    buffer.update_priorities(np.arange(size), rng.exponential(size=size))
    return timed(lambda: buffer.sample(256, rng, 0.4), 2_000)


def updating(size: int = 1_000_000) -> dict[str, float]:
    """Write 256 priorities back."""
    rng = np.random.default_rng(0)
    buffer = ExperienceBuffer({"state": ArraySpec((1,))}, size, Prioritisation())
    state = np.zeros((size, 1), np.float32)
    plain = rows(size, rng)
    buffer.add(
        Transitions(
            {"state": state},
            plain.action,
            plain.reward,
            {"state": state},
            plain.terminated,
            plain.truncated,
            plain.discount,
            plain.weight,
        )
    )
    serial, errors = rng.integers(0, size, 256), rng.random(256)
    return timed(lambda: buffer.update_priorities(serial, errors), 2_000)


def world(config: NetworkConfig, batch: int = 64, models: int = 20) -> tuple[NetworkShape, dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    shape = NetworkShape(state=287, model=22, pair=3, slots=models)
    return shape, {
        "state": rng.normal(size=(batch, shape.state)).astype(np.float32),
        "candidates": rng.random((batch, models)) < 0.9,
        "attempts": -(rng.random((batch, models)) < 0.1).astype(np.int8),
        "pairs": rng.normal(size=(batch, models, shape.pair)).astype(np.float32),
        "base": rng.normal(size=(batch, models)).astype(np.float32),
    }


def serving(config: NetworkConfig) -> dict[str, float]:
    """Value 20 models for 64 requests, in numpy."""
    shape, observation = world(config)
    features = np.random.default_rng(1).normal(size=(shape.slots, shape.model)).astype(np.float32)
    agent = DQNAgent(DQNConfig(network=config), shape, features)
    refs = [f"maker/model-{slot}" for slot in range(shape.slots)]
    with TemporaryDirectory() as folder:
        export_policy(agent.online, Path(folder) / "policy.safetensors", 1, refs)
        policy = Policy.load(Path(folder) / "policy.safetensors", 1)
    models = policy.encode_models(refs, features)
    return timed(lambda: policy.q_values(observation, models), 2_000)


def training(config: DQNConfig) -> dict[str, float]:
    """Make one gradient step on 64 transitions of episodes."""
    shape, observation = world(config.network, batch=2_000)
    rng = np.random.default_rng(2)
    agent = DQNAgent(config, shape, rng.normal(size=(shape.slots, shape.model)).astype(np.float32))
    schema = {name: ArraySpec(array.shape[1:], array.dtype.name) for name, array in observation.items()}
    buffer = ExperienceBuffer(schema, 2_000)
    plain = rows(2_000, rng)
    action = (observation["candidates"] + rng.random(observation["candidates"].shape)).argmax(axis=1)
    buffer.add(
        Transitions(
            observation,
            action,
            plain.reward,
            observation,
            plain.terminated,
            plain.truncated,
            plain.discount,
            plain.weight,
        )
    )
    return timed(lambda: replay(agent, buffer, rng), 300)


def main() -> int:
    torch.set_num_threads(1)
    sys.stdout.write(
        json.dumps(
            {
                "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
                "sample 256 of 1,000,000, uniform": sampling(None),
                "sample 256 of 1,000,000, prioritised": sampling(Prioritisation()),
                "update 256 of 1,000,000 priorities": updating(),
                "value 64 states x 20 models, numpy": serving(NetworkConfig()),
                "value 64 states x 20 models, numpy, 5 members": serving(NetworkConfig(members=5)),
                "gradient step, batch 64, bootstrapping": training(DQNConfig()),
            },
            indent=1,
        )
        + "\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
