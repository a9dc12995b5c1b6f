"""A decision that was made for one prompt is given for a near-identical one only where every gate lets it pass."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from builders import CHEAP, DEAR, MIDDLE, Fixed, ask, table
from caching import house

from monkey_coder.errors import RouterError
from monkey_coder.quantum.cache_key import CacheKey
from monkey_coder.quantum.cache_parts import SimilarAsk

SURE = Fixed("sure", [0.2, 0.8, 0.3])


@dataclass
class Nearest:
    """An index that takes every prompt of a family for the one that was added last."""

    added: dict[bytes, CacheKey] = field(default_factory=dict)
    dropped: list[CacheKey] = field(default_factory=list)
    embeddings: list[Any] = field(default_factory=list)

    def find(self, asked: Sequence[SimilarAsk]) -> list[CacheKey | None]:
        self.embeddings += [each.embedding for each in asked]
        return [self.added.get(each.family) for each in asked]

    def add(self, added: Sequence[SimilarAsk], keys: Sequence[CacheKey]) -> None:
        self.added.update((each.family, key) for each, key in zip(added, keys, strict=True))

    def let_go(self) -> None:
        pass

    def discard(self, keys: Iterable[CacheKey]) -> None:
        self.dropped += keys

    def clear(self) -> None:
        self.added.clear()


LONG = "Fix the failing test " * 100


@pytest.mark.parametrize(
    ("first", "second", "hits"),
    [
        ({}, {"prompt": "Fix the failing test, please"}, True),
        ({}, {"prompt": "Fix the failing test, please", "files": [{"path": "a", "chars": 1}]}, False),
        ({}, {"prompt": "Fix the failing test, please", "preferences": {"cost": 0.0}}, False),
        ({}, {"prompt": "Write documentation for the README and the user guide"}, False),
        ({"preferences": {"max_cost_usd": 0.01}}, {"prompt": LONG, "preferences": {"max_cost_usd": 0.01}}, True),
        (
            {"preferences": {"max_cost_usd": 0.004}},
            {"prompt": LONG * 50, "preferences": {"max_cost_usd": 0.004}},
            False,
        ),
        ({}, {"prompt": LONG * 300}, False),
    ],
    ids=["edited", "files", "preferences", "task", "budget holds", "budget broken", "too long"],
)
def test_a_similar_prompt_hits_within_its_family_and_through_every_gate(
    first: dict[str, Any], second: dict[str, Any], hits: bool
) -> None:
    with house(SURE, similar=Nearest()) as home:
        home.one(ask(**first))
        answer = home.one(ask(**second))
        assert (not isinstance(answer, RouterError) and answer["cache"] == "similar") == hits
        if hits:
            assert home.decided == 1
            assert home.one(ask(**second))["cache"] == "similar"  # kept, and still another prompt's


def test_a_similar_hit_leaves_out_what_fails_a_gate_now() -> None:
    small = table(CHEAP, MIDDLE, replace(DEAR, context_window=1_500))
    with house(SURE, models=small, similar=Nearest()) as home:
        assert home.one(ask())["alternatives"][0]["model"] == "dear"
        answer = home.one(ask(LONG * 3))
        assert answer["cache"] == "similar"
        assert [each["model"] for each in answer["alternatives"]] == ["cheap"]
        assert [(each["model"], each["reason"]) for each in answer["excluded"]] == [("big/dear", "context_window")]


def test_the_index_forgets_what_the_cache_drops_and_gets_the_embedding_of_the_engine() -> None:
    index = Nearest()
    with house(SURE, similar=index) as home:
        answer = home.one(ask())
        assert np.array_equal(index.embeddings[0], home.manager.embedder.embed([ask().request.prompt])[0])
        home.cache.forget(answer["decision_id"], "mid/middle")
        assert len(index.dropped) == 1
        home.cache.clear()
        assert index.added == {}
