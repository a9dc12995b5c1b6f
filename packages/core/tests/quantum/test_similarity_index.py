"""What the index finds, forgets, and shares with others."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from builders import Fixed, HashEmbedder, ask
from caching import KEYRING, house

from monkey_coder.ports import FloatArray
from monkey_coder.quantum.cache_parts import SimilarAsk
from monkey_coder.quantum.prompt_similarity import PromptSimilarity, SimilarityOptions
from monkey_coder.quantum.similarity_index import KEY_BYTES, LikenessIndex

SIMILAR = PromptSimilarity(b"secret")
FAMILY = b"f" * 32


@dataclass(frozen=True)
class Ask:
    prompt: str
    family: bytes = FAMILY
    embedding: FloatArray = field(default_factory=lambda: np.array([1.0, 0.0], dtype=np.float32))


def key(name: str) -> bytes:
    return name.encode().ljust(KEY_BYTES, b".")


@dataclass
class Shared:
    """Bytes between processes, as Redis keeps them; `away` answers nothing."""

    kept: dict[bytes, bytes] = field(default_factory=dict)
    away: bool = False
    fetches: int = 0

    def fetch(self, keys: Sequence[bytes]) -> list[bytes | None] | None:
        self.fetches += 1
        return None if self.away else [self.kept.get(key) for key in keys]

    def keep(self, items: Sequence[tuple[bytes, bytes, float]]) -> None:
        if not self.away:
            self.kept.update({key: value for key, value, ttl_s in items if ttl_s > 0})


def test_a_near_identical_prompt_is_found_and_another_is_not() -> None:
    index = LikenessIndex(SIMILAR)
    index.add([Ask("Sort the rows"), Ask("Count the rows")], [key("sort"), key("count")])
    asked = [Ask("Please count the rows!"), Ask("sort  the rows."), Ask("Sort the columns")]
    assert index.find(asked) == [key("count"), key("sort"), None]
    assert len(index) == 2


def test_nothing_is_found_in_another_family() -> None:
    index = LikenessIndex(SIMILAR)
    index.add([Ask("Sort the rows")], [key("sort")])
    assert index.find([Ask("Sort the rows", family=b"g" * 32)]) == [None]


def test_nothing_is_found_whose_embedding_is_far() -> None:
    index = LikenessIndex(SIMILAR)
    index.add([Ask("Sort the rows")], [key("sort")])
    far = np.array([0.6, 0.8], dtype=np.float32)
    assert index.find([Ask("Sort the rows!", embedding=far)]) == [None]
    assert LikenessIndex(PromptSimilarity(b"s", SimilarityOptions(threshold=0.0))).find([Ask("Sort")]) == [None]


def test_what_is_discarded_or_cleared_is_not_found() -> None:
    index = LikenessIndex(SIMILAR)
    index.add([Ask("Sort"), Ask("Count")], [key("sort"), key("count")])
    index.discard([key("sort"), key("unknown")])
    assert index.find([Ask("sort"), Ask("count")]) == [None, key("count")]
    index.clear()
    assert index.find([Ask("count")]) == [None]
    assert len(index) == 0


def test_the_newest_decision_for_a_wording_is_found() -> None:
    index = LikenessIndex(SIMILAR)
    index.add([Ask("Sort")], [key("old")])
    index.add([Ask("sort!")], [key("new")])
    index.discard([key("old")])
    assert index.find([Ask("Sort")]) == [key("new")]


def test_a_key_that_comes_to_stand_for_another_prompt_is_found_by_that_one_alone() -> None:
    index = LikenessIndex(SIMILAR)
    index.add([Ask("Sort")], [key("one")])
    index.add([Ask("Count")], [key("one")])
    assert index.find([Ask("sort"), Ask("count")]) == [None, key("one")]
    assert len(index) == 1


def test_the_least_recently_used_goes_first() -> None:
    index = LikenessIndex(SIMILAR, max_entries=2)
    index.add([Ask("one"), Ask("two")], [key("1"), key("2")])
    index.find([Ask("one")])
    index.add([Ask("three")], [key("3")])
    assert index.find([Ask("one"), Ask("two"), Ask("three")]) == [key("1"), None, key("3")]


def test_prompts_too_long_to_compare_are_left_out() -> None:
    index = LikenessIndex(SIMILAR, shared=Shared())
    index.add([Ask("x" * 20_000)], [key("long")])
    assert index.find([Ask("x" * 20_000)]) == [None]
    assert len(index) == 0


def test_what_one_process_added_the_others_find() -> None:
    shared = Shared()
    here, there = LikenessIndex(SIMILAR, shared=shared), LikenessIndex(SIMILAR, shared=shared)
    here.add([Ask("Sort the rows")], [key("sort")])
    assert there.find([Ask("Please sort the rows"), Ask("Something else")]) == [key("sort"), None]
    shared.away = True
    assert there.find([Ask("Sort the rows, please")]) == [key("sort")], "it is known here by now"


def test_others_are_asked_only_for_what_is_not_known_here() -> None:
    shared = Shared()
    index = LikenessIndex(SIMILAR, shared=shared)
    index.add([Ask("Sort the rows")], [key("sort")])
    index.find([Ask("sort the rows")])
    assert shared.fetches == 0


def test_without_the_others_a_process_finds_its_own() -> None:
    index = LikenessIndex(SIMILAR, shared=Shared(away=True))
    index.add([Ask("Sort")], [key("sort")])
    assert index.find([Ask("sort!"), Ask("count")]) == [key("sort"), None]


@pytest.mark.parametrize("damage", [lambda v: b"", lambda v: v[:20], lambda v: b"\x09" + v[1:], lambda v: v[:-1]])
def test_damaged_and_foreign_values_find_nothing(damage) -> None:
    shared = Shared()
    LikenessIndex(SIMILAR, shared=shared).add([Ask("Sort")], [key("sort")])
    shared.kept = {place: damage(value) for place, value in shared.kept.items()}
    assert LikenessIndex(SIMILAR, shared=shared).find([Ask("Sort")]) == [None]


def test_nothing_that_is_kept_holds_text() -> None:
    shared = Shared()
    prompt = "Sort the confidential ledger of 1234 rows"
    (embedding,) = HashEmbedder(256).embed([prompt])
    LikenessIndex(SIMILAR, shared=shared).add([Ask(prompt, embedding=embedding)], [key("k")])
    for word in prompt.lower().split():
        for place, value in shared.kept.items():
            assert len(word) < 4 or word.encode() not in (place + value).lower()


def test_a_prompt_is_read_once_to_be_looked_for_and_added() -> None:
    class Counting(PromptSimilarity):
        read = 0

        def likeness(self, prompt: str) -> bytes | None:
            self.read += 1
            return super().likeness(prompt)

    similar = Counting(b"secret")
    index = LikenessIndex(similar)
    asked = [Ask("Sort"), Ask("Count"), Ask("x" * 20_000)]
    index.find(asked)
    index.add(asked[1:], [key("count"), key("long")])
    assert similar.read == 3
    index.add([Ask("Turn")], [key("turn")])
    assert index.find([Ask("count"), Ask("turn"), Ask("sort")]) == [key("count"), key("turn"), None]


def test_an_index_must_have_room() -> None:
    with pytest.raises(ValueError, match="max_entries"):
        LikenessIndex(SIMILAR, max_entries=0)


def test_nothing_to_add_is_nothing_added() -> None:
    index = LikenessIndex(SIMILAR)
    index.add([], [])
    assert index.find([]) == []


def test_no_prompt_is_kept_once_a_batch_is_over() -> None:
    """Neither of those that were found, for nothing is added then, nor of those that were decided."""
    index = LikenessIndex(PromptSimilarity(KEYRING.secret))
    prompts = ("Sort the list of this test", "Please sort the list of this test", "Count another list of it")
    with house(Fixed("sure", [0.2, 0.8, 0.3]), similar=index) as home:
        for prompt in prompts:
            home.one(ask(prompt))
            kept = [each for each in gc.get_objects() if type(each) is SimilarAsk]  # isinstance raises at dead proxies
            assert not [each for each in kept if each.prompt in prompts]
            assert not home.cache.deciding.embedder._known
