"""The in-process tier does what a plain dictionary with clocks and sizes would do."""

from __future__ import annotations

import sys

from builders import SetClock
from caching import NOW, entry
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from monkey_coder.quantum.cache_entry import CachedDecision
from monkey_coder.quantum.local_tier import LocalTier

SIZE = entry().size
KEYS = st.sampled_from([bytes([place]) * 32 for place in range(12)])
ORIGINS = st.sampled_from(["a", "b", "c"])


class LocalTierMachine(RuleBasedStateMachine):
    """Puts, gets, drops and waits at random; the model is a list in order of use."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = SetClock(NOW)
        self.tier = LocalTier(5 * SIZE + SIZE // 2, self.clock)
        self.model: dict[bytes, CachedDecision] = {}

    @rule(key=KEYS, origin=ORIGINS, life=st.floats(0.1, 20.0), padding=st.sampled_from([0, 0, 900, 20_000]))
    def put(self, key: bytes, origin: str, life: float, padding: int) -> None:
        made = entry(origin, expires_at=self.clock.now + life, padding=padding)
        self.tier.put(key, made)
        self.model.pop(key, None)
        if made.size <= self.tier.max_bytes:
            self.model[key] = made
        while sum(each.size for each in self.model.values()) > self.tier.max_bytes:
            del self.model[next(iter(self.model))]

    @rule(key=KEYS)
    def get(self, key: bytes) -> None:
        expected = self.model.pop(key, None)
        if expected is not None and expected.expires_at > self.clock.now:
            self.model[key] = expected
        else:
            expected = None
        assert self.tier.get(key) is expected

    @rule(key=KEYS)
    def remove(self, key: bytes) -> None:
        assert self.tier.remove(key) == (self.model.pop(key, None) is not None)

    @rule(origin=ORIGINS)
    def remove_where(self, origin: str) -> None:
        keys = [key for key, made in self.model.items() if made.origin == origin]
        assert self.tier.remove_where(lambda made: made.origin == origin) == keys
        for key in keys:
            del self.model[key]

    @rule(seconds=st.floats(0.0, 10.0))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule()
    def clear(self) -> None:
        assert self.tier.clear() == len(self.model)
        self.model.clear()

    @invariant()
    def agrees(self) -> None:
        assert self.tier.items() == list(self.model.items())
        assert len(self.tier) == len(self.model)
        assert self.tier.bytes == sum(made.size for made in self.model.values()) <= self.tier.max_bytes
        for origin in ("a", "b", "c"):
            keys = {key for key, made in self.model.items() if made.origin == origin}
            assert set(self.tier.keys_of(origin)) == keys


TestLocalTier = LocalTierMachine.TestCase
TestLocalTier.settings = settings(max_examples=40, stateful_step_count=60, deadline=None)


def test_what_goes_is_counted() -> None:
    clock = SetClock(NOW)
    tier = LocalTier(2 * SIZE, clock)
    for place in range(3):
        tier.put(bytes([place]) * 32, entry(str(place), expires_at=NOW + 1.0))
    clock.now += 2.0
    assert tier.get(bytes([2]) * 32) is None
    assert (tier.evicted, tier.expired, len(tier)) == (1, 1, 1)


def test_an_entry_is_accounted_with_no_less_than_its_parts_take() -> None:
    made = entry(padding=3000)
    parts = (made, made.answer, made.prior, made.origin, made.had, made.alternatives, made.made_at, made.expires_at)
    assert made.size >= sum(sys.getsizeof(part) for part in parts) + sys.getsizeof(bytes(32))
