"""Two processes and one Redis under random operations, against a model of what each may answer."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, ClassVar

from builders import Fixed, SetClock, ask
from caching import NOW, House, entry, house
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from redis import Redis
from servers import PATIENCE_S

from monkey_coder.quantum.cache_lifetimes import Lifetimes
from monkey_coder.quantum.redis_tier import RedisTier

PROMPTS = st.integers(0, 5)
WHO = st.integers(0, 1)
MODEL = "mid/middle"
"""What is decided throughout."""
ROOM = 3
"""Entries, more or less, for which there is room in each process: fewer than there are prompts."""

Question = tuple[int, int]
"""Number of the policy, and of the prompt."""


class CacheMachine(RuleBasedStateMachine):
    """What is served is what the model holds: never another decision, never one past its end, never a damaged one.

    The model says for each process, and for the server, which decision (by its id) stands under which question until
    when. Which entries a process drops for want of room is read from it; `test_local_tier` holds that to its own model.
    """

    url: ClassVar[str]
    tiers: ClassVar[list[RedisTier]]

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.wall = SetClock(NOW)
        self.server = Redis.from_url(self.url)
        self.server.flushall()
        self.homes: list[House] = [
            self.stack.enter_context(
                house(
                    Fixed("sure", [0.2, 0.8, 0.3]),
                    redis=tier,
                    lifetimes=Lifetimes(5_000.0, 60_000.0, 0.2),  # the server's clock runs by itself
                    wall=self.wall,
                    max_bytes=ROOM * (entry().size + 1500),
                )
            )
            for tier in self.tiers
        ]
        self.publish(0)
        self.local: list[dict[Question, str]] = [{}, {}]
        self.shared: dict[Question, str] = {}
        self.ends: dict[str, float] = {}
        self.names: dict[Question, bytes] = {}

    @rule(who=WHO, prompt=PROMPTS)
    def use(self, who: int, prompt: int) -> None:
        question, answer = (self.policy, prompt), self._route(who, prompt)
        if self._lives(self.local[who], question):
            assert answer["cache"] == "local"
            assert self._origin(who) == self.local[who][question]
        elif self._lives(self.shared, question):
            assert answer["cache"] == "redis"
            assert self._origin(who) == self.shared[question]
            self.local[who][question] = self.shared[question]
        else:
            assert answer["cache"] == "miss"
            self._made(who, question, answer)

    @rule(who=WHO, prompt=PROMPTS)
    def refresh(self, who: int, prompt: int) -> None:
        answer = self._route(who, prompt, cache="refresh")
        assert answer["cache"] == "miss"
        self._made(who, (self.policy, prompt), answer)

    @rule(who=WHO, prompt=PROMPTS)
    def bypass(self, who: int, prompt: int) -> None:
        assert self._route(who, prompt, cache="bypass")["cache"] == "bypass"

    @rule(seconds=st.floats(0.0, 30_000.0))
    def wait(self, seconds: float) -> None:
        self.wall.now += seconds

    @rule(who=WHO, prompt=PROMPTS)
    def forget(self, who: int, prompt: int) -> None:
        question = (self.policy, prompt)
        origin = self.local[who].pop(question, None)
        if origin is not None:
            assert self.homes[who].cache.forget(origin, MODEL) == 1
            self.shared.pop(question, None)
            self._settle(who)

    @rule(who=WHO, prompt=PROMPTS)
    def confirm(self, who: int, prompt: int) -> None:
        origin = self.local[who].pop((self.policy, prompt), None)
        if origin is not None and self.homes[who].cache.confirm(origin, MODEL):  # else it was at its end, and went
            self.homes[who].cache.forget(origin, MODEL)  # from here on the two know different ends of its life
            self.shared.pop((self.policy, prompt), None)
            self._settle(who)

    @rule(who=WHO)
    def restart(self, who: int) -> None:
        self.homes[who].cache.clear()
        self.local[who].clear()

    @rule()
    def empty(self) -> None:
        self.server.flushall()
        self.shared.clear()

    @rule(prompt=PROMPTS, place=st.integers(0, 10_000), bit=st.integers(0, 7), cut=st.booleans())
    def damage(self, prompt: int, place: int, bit: int, cut: bool) -> None:
        question = (self.policy, prompt)
        payload = self.server.get(self.names[question]) if question in self.names else None
        if payload:
            place %= len(payload)
            changed = payload[:place] + bytes([payload[place] ^ 1 << bit]) + payload[place + 1 :]
            self.server.set(self.names[question], payload[:place] if cut else changed)
            self.shared.pop(question, None)

    @rule(policy=st.integers(0, 1))
    def publish(self, policy: int) -> None:
        self.policy = policy
        for home in self.homes:
            home.change(policy_version=policy)

    @invariant()
    def room_is_kept(self) -> None:
        for home in self.homes:
            assert home.cache.tiers.local.bytes <= home.cache.tiers.local.max_bytes
            assert not home.cache.remote.failing

    def teardown(self) -> None:
        self.stack.close()
        self.server.close()

    def _route(self, who: int, prompt: int, **options: Any) -> Any:
        answer = self.homes[who].one(ask(f"Prompt {prompt}", options={"max_threads": None, **options}))
        assert (answer["provider"], answer["degraded"]) == ("mid", [])
        self._settle(who)
        kept = {made.origin for _, made in self.homes[who].cache.tiers.local.items()}
        self.local[who] = {question: origin for question, origin in self.local[who].items() if origin in kept}
        return answer

    def _settle(self, who: int) -> None:
        """Wait until everything is written, or deleted, that was to be."""
        assert self.tiers[who].settle(PATIENCE_S)

    def _made(self, who: int, question: Question, answer: Any) -> None:
        home, origin = self.homes[who], answer["decision_id"]
        (key,) = home.cache.tiers.local.keys_of(origin)
        made = home.cache.tiers.local.get(key)
        assert made is not None
        self.ends[origin] = made.expires_at
        self.names[question] = b"monkey-coder:{cache}:" + key
        self.local[who][question] = self.shared[question] = origin

    def _origin(self, who: int) -> str:
        return self.homes[who].cache.untold[-1].entry.origin

    def _lives(self, held: dict[Question, str], question: Question) -> bool:
        return question in held and self.ends[held[question]] > self.wall.now
