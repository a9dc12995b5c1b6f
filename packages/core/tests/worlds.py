"""Made-up outcome tables whose truth is known: families, readable and hidden difficulty, models of all kinds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from monkey_coder.quantum.success_training import SuccessData
from monkey_coder.quantum.text_marks import MARKS

DIMENSIONS = 24

torch.set_num_threads(1)  # on products this small, threads only get in each other's way


@dataclass(frozen=True, eq=False)
class World:
    """Families (G) of prompts, and P models with a skill in each; `hidden` scales what no prompt tells."""

    centres: np.ndarray
    skill: np.ndarray
    readable: float = 1.0
    hidden: float = 1.0

    @classmethod
    def make(cls, seed: int, families: int = 3, models: int = 5, readable: float = 1.0, hidden: float = 1.0) -> World:
        rng = np.random.default_rng(seed)
        centres, _ = np.linalg.qr(rng.standard_normal((DIMENSIONS, families)))
        skill = rng.normal(0.5, 0.7, (families, 1)) + rng.normal(0.0, 0.7, models)
        return cls(centres.T, skill + rng.normal(0.0, 0.4, (families, models)), readable, hidden)

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(f"made/model-{place}" for place in range(self.skill.shape[1]))

    def rows(self, count: int, seed: int) -> Rows:
        rng = np.random.default_rng(seed)
        family = rng.integers(0, len(self.centres), count)
        embedding = self.centres[family] + 0.08 * rng.standard_normal((count, DIMENSIONS))
        embedding /= np.linalg.norm(embedding, axis=1, keepdims=True)
        marks = rng.random((count, MARKS)) * np.linspace(0.5, 5.0, MARKS)
        easy = rng.standard_normal(count)
        marks[:, 7] = 3.0 + 2.0 * easy
        fate = rng.standard_normal(count)
        logits = self.skill[family] + (self.readable * easy + self.hidden * fate)[:, None]
        chance = 1.0 / (1.0 + np.exp(-logits))
        scores = (rng.random(chance.shape) < chance).astype(np.float64)
        points = np.linspace(-4.0, 4.0, 81)
        density = np.exp(-0.5 * points**2)
        known = self.skill[family] + (self.readable * easy)[:, None]
        spread = 1.0 / (1.0 + np.exp(-known[:, :, None] - self.hidden * points))
        expected = spread @ (density / density.sum())
        return Rows(embedding.astype(np.float32), marks.astype(np.float32), scores, family, chance, expected, self)


@dataclass(frozen=True, eq=False)
class Rows:
    """Prompts with outcomes; `chance` knows the hidden difficulty, `expected` is the best that a reader could say."""

    embedding: np.ndarray
    marks: np.ndarray
    scores: np.ndarray
    family: np.ndarray
    chance: np.ndarray
    expected: np.ndarray
    world: World

    @property
    def state(self) -> np.ndarray:
        return np.concatenate([self.embedding, self.marks], axis=1)

    def data(self, models: int | None = None, **more) -> SuccessData:
        """The training data, of the first so many models."""
        count = len(self.world.models) if models is None else models
        return SuccessData(
            self.embedding,
            self.marks,
            self.scores[:, :count],
            [f"family {f}" for f in self.family],
            self.world.models[:count],
            **more,
        )


def log_loss(chance: np.ndarray, scores: np.ndarray) -> float:
    """Mean nats of outcomes (0 or 1) under probabilities."""
    cut = np.clip(chance, 1e-4, 1.0 - 1e-4)
    return float(-(scores * np.log(cut) + (1.0 - scores) * np.log(1.0 - cut)).mean())
