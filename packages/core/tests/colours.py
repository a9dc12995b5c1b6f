"""A made-up world to train in: what a task needs is written in its prompt, and models are good at one colour each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from zlib import crc32

import numpy as np
from builders import Model, table

from monkey_coder.ports import FloatArray
from monkey_coder.quantum.belief_training import BeliefOptions
from monkey_coder.quantum.success_training import SuccessOptions
from monkey_coder.quantum.training_data import OutcomeData, outcomes_of_prompts
from monkey_coder.quantum.training_options import TrainOptions, preset

COLOURS = ("red", "blue", "green")
CHANCES = {
    "red": {"made/red": 0.9, "made/blue": 0.1, "made/green": 0.1, "made/dear": 0.8},
    "blue": {"made/red": 0.1, "made/blue": 0.9, "made/green": 0.1, "made/dear": 0.8},
    "green": {"made/red": 0.1, "made/blue": 0.1, "made/green": 0.9, "made/dear": 0.8},
}
MODELS = table(*(Model(ref, success=0.4, request_usd=0.2 if ref == "made/dear" else 0.02) for ref in CHANCES["red"]))


@dataclass
class ColourEmbedder:
    """A direction for each colour, one for everything else, and a little of its own for each text."""

    dimensions: int = 32

    def embed(self, texts: Sequence[str]) -> FloatArray:
        axes = np.random.default_rng(5).normal(size=(len(COLOURS) + 1, self.dimensions))
        counts = np.array([[*(text.count(colour) for colour in COLOURS), 0.5] for text in texts])
        own = [np.random.default_rng(crc32(text.encode())).normal(size=self.dimensions) for text in texts]
        sums = counts @ axes + 0.2 * np.array(own)
        return (sums / np.linalg.norm(sums, axis=1, keepdims=True)).astype(np.float32)


def colour_tasks(count: int, seed: int = 0, *, readable: bool = True) -> OutcomeData:
    """Tasks of three colours; when not readable, the prompts do not tell."""
    rng = np.random.default_rng(seed)
    colours = rng.choice(COLOURS, count)
    chances = np.array([list(CHANCES[colour].values()) for colour in colours])
    scores = (rng.random(chances.shape) < chances).astype(np.float64)
    costs = np.tile(MODELS.request_usd, (count, 1)) * rng.uniform(0.8, 1.2, chances.shape)
    prompts = [f"make it {colour if readable else 'nice'}, number {seed} {i}" for i, colour in enumerate(colours)]
    data = outcomes_of_prompts(prompts, [None] * count, ["paint"] * count, scores, costs, MODELS, ColourEmbedder())
    return replace(data, expected_cost=np.tile(MODELS.request_usd, (count, 1)).astype(np.float32))


def quick(attempts: int = 3, noise: float = 0.0, **changes: object) -> TrainOptions:
    """Options that train in about two seconds."""
    options = preset("balanced", attempts=attempts, noise=noise)
    knobs = {
        "steps": 48,
        "round_states": 32,
        "check_steps": 16,
        "dqn": replace(options.dqn, batch_size=64, learning_rate_steps=48),
        "success": SuccessOptions(members=3, epochs=40, patience=8, learning_rate=6e-3),
        "belief": BeliefOptions(factor_steps=60),
    }
    return replace(options, **(knobs | changes))
