"""Finds the cached decision of a near-identical prompt, in this process or made by another one.

An entry of the index is a place (family of requests and likeness of the prompt) with what must still be compared: the
quantised embedding and the length. Finding is one look-up a prompt and one comparison of arrays a batch. Through a
shared index, what one process added the others find; an unreachable one is as good as an empty one.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from struct import Struct
from typing import Final, NamedTuple, Protocol

import numpy as np

from monkey_coder.ports import FloatArray
from monkey_coder.quantum.prompt_similarity import PromptSimilarity, quantise

KEY_BYTES: Final = 32
PREFIX: Final = b"like:"
SHARED_TTL_S: Final = 7_200.0
"""As long as the longest life of an entry: a place that outlives its entry is of no use."""

_HEADER: Final = Struct(f"<B{KEY_BYTES}sI")
_FORMAT: Final = 1


class Asked(Protocol):
    """A request that nothing cached has exactly."""

    @property
    def prompt(self) -> str:
        """As it was sent."""
        ...

    @property
    def family(self) -> bytes:
        """Everything that must be equal but for the prompt."""
        ...

    @property
    def embedding(self) -> FloatArray:
        """(D,) of unit length."""
        ...


class SharedIndex(Protocol):
    """Bytes shared between processes."""

    def fetch(self, keys: Sequence[bytes]) -> list[bytes | None] | None:
        """Return what is kept under each key; None when that cannot be told in time."""
        ...

    def keep(self, items: Sequence[tuple[bytes, bytes, float]]) -> None:
        """Keep (key, value, seconds); never waits."""
        ...


class _Known(NamedTuple):
    key: bytes
    chars: int
    vector: bytes


class LikenessIndex:
    """Least recently used entries go first. Safe to use from several threads.

    Args:
        similarity: Compares prompts.
        max_entries: Bound of this process's part; one takes about 600 bytes.
        shared: Part that all processes have together; None: this process is alone.
        ttl_s: How long an entry is shared.
    """

    def __init__(
        self,
        similarity: PromptSimilarity,
        max_entries: int = 20_000,
        shared: SharedIndex | None = None,
        ttl_s: float = SHARED_TTL_S,
    ) -> None:
        if max_entries < 1:
            raise ValueError(f"max_entries must be at least 1, is {max_entries}")
        self._similarity = similarity
        self._max_entries = max_entries
        self._shared = shared
        self._ttl_s = ttl_s
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._places: dict[bytes, bytes] = {}
        self._found: tuple[Sequence[Asked], Sequence[bytes | None]] = ((), ())
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """How many entries this process holds."""
        return len(self._known)

    def find(self, asked: Sequence[Asked]) -> list[bytes | None]:
        """Look for decisions that may be reused.

        Args:
            asked: Requests without an exact hit.

        Returns:
            For each the key of a cached decision for a near-identical prompt, or None.
        """
        places = [self._place(ask) for ask in asked]
        self._found = (asked, places)  # most of them will be added in a moment
        with self._lock:
            found = [self._look_up(place) for place in places]
        self._ask_others(places, found)
        rows = [row for row, known in enumerate(found) if known is not None]
        keys: list[bytes | None] = [None] * len(asked)
        if rows:
            candidates = [known for known in found if known is not None]
            agreed = self._similarity.agree(
                np.stack([asked[row].embedding for row in rows]),
                [known.vector for known in candidates],
                [len(asked[row].prompt) for row in rows],
                [known.chars for known in candidates],
            )
            for row, known, agrees in zip(rows, candidates, agreed.tolist(), strict=True):
                if agrees:
                    keys[row] = known.key
        return keys

    def add(self, added: Sequence[Asked], keys: Sequence[bytes]) -> None:
        """Make decisions findable.

        Args:
            added: The requests that were decided.
            keys: Where each decision is cached; `KEY_BYTES` long.
        """
        if not added:
            return
        vectors = quantise(np.stack([ask.embedding for ask in added]))
        found, self._found = self._found, ((), ())  # kept alive here, so that no id is another's
        places = {id(ask): place for ask, place in zip(*found, strict=True)}
        shared: list[tuple[bytes, bytes, float]] = []
        for ask, key, vector in zip(added, keys, vectors, strict=True):
            place = places[id(ask)] if id(ask) in places else self._place(ask)
            if place is None:
                continue
            known = _Known(key, len(ask.prompt), vector)
            with self._lock:
                self._put(place, known)
            shared.append((PREFIX + place, _HEADER.pack(_FORMAT, key, known.chars) + vector, self._ttl_s))
        if self._shared is not None and shared:
            self._shared.keep(shared)

    def let_go(self) -> None:
        """Let go of what the last `find` was asked, prompts among it."""
        self._found = ((), ())

    def discard(self, keys: Iterable[bytes]) -> None:
        """Forget entries whose decision is no longer cached; unknown keys are ignored."""
        with self._lock:
            for key in keys:
                place = self._places.pop(key, None)
                if place is not None:
                    self._known.pop(place, None)

    def clear(self) -> None:
        """Forget all that this process holds."""
        with self._lock:
            self._known.clear()
            self._places.clear()

    def _place(self, ask: Asked) -> bytes | None:
        likeness = self._similarity.likeness(ask.prompt)
        return None if likeness is None else ask.family + likeness

    def _look_up(self, place: bytes | None) -> _Known | None:
        if place is None:
            return None
        known = self._known.get(place)
        if known is not None:
            self._known.move_to_end(place)
        return known

    def _put(self, place: bytes, known: _Known) -> None:
        before = self._known.pop(place, None)
        if before is not None:
            self._places.pop(before.key, None)
        moved = self._places.pop(known.key, None)
        if moved is not None:
            self._known.pop(moved, None)
        self._known[place] = known
        self._places[known.key] = place
        if len(self._known) > self._max_entries:
            _, oldest = self._known.popitem(last=False)
            self._places.pop(oldest.key, None)

    def _ask_others(self, places: Sequence[bytes | None], found: list[_Known | None]) -> None:
        """Fill in what other processes know."""
        if self._shared is None:
            return
        wanted = [(row, place) for row, place in enumerate(places) if place is not None and found[row] is None]
        if not wanted:
            return
        for (row, place), value in zip(wanted, self._shared.fetch([PREFIX + p for _, p in wanted]) or (), strict=False):
            known = _read(value)
            if known is not None:
                found[row] = known
                with self._lock:
                    self._put(place, known)


def _read(value: bytes | None) -> _Known | None:
    """What another process kept; None for anything that is not of this format. A damaged vector agrees with nothing."""
    if value is None or len(value) <= _HEADER.size or value[0] != _FORMAT:
        return None
    _, key, chars = _HEADER.unpack_from(value)
    return _Known(key, chars, value[_HEADER.size :])
