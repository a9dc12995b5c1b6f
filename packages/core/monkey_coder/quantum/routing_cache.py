"""The decision cache (T2.4.2): gives a decision again as long as nothing has changed that it rests on.

A request is looked up twice: by the event loop in the process's own tier, and by the thread that decides in all tiers,
for a whole batch at once. What is cached is the decision, never a model's answer, and no prompt is kept. A hit is a
decision of its own: it has an id, goes to the log and to whoever listens, and says where it came from.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final, NamedTuple

from monkey_coder.errors import RouterError
from monkey_coder.models import RouteRequest
from monkey_coder.quantum.cache_admission import Admission
from monkey_coder.quantum.cache_entry import CachedDecision, answer_json
from monkey_coder.quantum.cache_fit import fitted_to
from monkey_coder.quantum.cache_key import CacheKey
from monkey_coder.quantum.cache_parts import Asked, Hit, Reply, SimilarAsk, price_of
from monkey_coder.quantum.cache_stock import CacheStock
from monkey_coder.quantum.snapshot import EngineSnapshot

MOST_BODIES: Final = 20_000
"""Bodies of requests whose keys are remembered, so that they need not be read again."""

MOST_UNTOLD: Final = 20_000
"""Hits that wait for their listeners; beyond, the oldest are counted and forgotten."""


class _Generation(NamedTuple):
    snapshot: EngineSnapshot
    digest: bytes
    serial: int


@dataclass
class RoutingCache(CacheStock):
    """Gives decisions again. `recall` and `find` are for the event loop, `decide` for the thread that decides.

    Attributes:
        admission: Decides what is worth looking for elsewhere, and keeping.
        check_rate: Share of the hits that are to be checked, 0..1.
        on: Whether anything is cached at all.
        untold: Hits that listeners are yet to be told of.
        unchecked: Hits that are to be decided again, to see whether they still stand.
        remember: Takes the digest and the request of every entry that is made here, outside sessions.
    """

    admission: Admission = field(default_factory=Admission)
    check_rate: float = 0.0
    on: bool = True
    untold: deque[Hit] = field(default_factory=lambda: deque(maxlen=MOST_UNTOLD))
    unchecked: deque[tuple[Asked, CacheKey, CachedDecision]] = field(default_factory=lambda: deque(maxlen=64))
    remember: Callable[[bytes, RouteRequest], None] | None = None

    def __post_init__(self) -> None:
        self._bodies: OrderedDict[bytes, tuple[bytes, str | None]] = OrderedDict()
        self._serials = count()
        super().__post_init__()
        self._generation = self._of(self.deciding.snapshot())
        self._until_check = self._gap()

    # For the event loop

    def recall(self, body: bytes) -> bytes | None:
        """The answer to a request whose very bytes are known, if it can be given at once."""
        started = self.clock()
        known = self._bodies.get(self.keyring.digest(b"body", body)) if self._bodies else None
        if known is None or self._until_check <= 1:  # the one to be checked is read, for its request is wanted
            return None
        digest, episode_id = known
        found = self._local(self._now().digest + digest)
        return None if found is None else self._give(found, "local", episode_id, None, started)

    def ask(self, request: RouteRequest) -> Asked:
        """Prepare a request for `find` and `decide`."""
        if not self.on or request.quantum_config.cache == "bypass":
            return Asked(request)
        session = request.request.session_id
        last = self.deciding.sessions.last(session) if session else None
        return Asked(request, self.keyring.request(request, last), last)

    def find(self, asked: Asked, body: bytes | None = None) -> bytes | None:
        """The answer to a request, if it can be given at once.

        Args:
            asked: From `ask`.
            body: The bytes it came in, to be recalled next time.
        """
        started = self.clock()
        if not asked.digest or asked.mode != "use":
            return None
        request = asked.request
        session = request.request.session_id
        if session is not None and not self.deciding.sessions.settled(session):
            self.count("local", "miss")  # its last model must be looked up, which only `decide` may wait for
            return None
        key = self._now().digest + asked.digest
        entry = self._local(key)
        if entry is None:
            return None
        if body is not None and session is None:
            self._bodies[self.keyring.digest(b"body", body)] = (asked.digest, request.episode.episode_id)
            if len(self._bodies) > MOST_BODIES:
                self._bodies.popitem(last=False)
        self._sample(asked, key, entry)
        return self._give(entry, "local", request.episode.episode_id, session, started)

    # For the thread that decides

    def decide(self, requests: Sequence[Asked | RouteRequest]) -> list[Reply]:
        """Answer a batch: from the tiers what is there, by deciding what is not, each thing once.

        Args:
            requests: Any number, as they are or from `ask`.

        Returns:
            For each its answer, or the error that its caller must see.
        """
        try:
            return self._decide(requests)
        finally:  # whatever it was, its prompts are not to be kept until the next batch
            self.deciding.embedder.let_go()
            if self.tiers.similar is not None:
                self.tiers.similar.let_go()

    def _decide(self, requests: Sequence[Asked | RouteRequest]) -> list[Reply]:
        started = self.clock()
        now = self._now()
        asked = self._asked(requests)
        keys = [now.digest + each.digest if each.digest else b"" for each in asked]
        open_keys = {
            key: each for key, each in zip(keys, asked, strict=True) if key and each.mode == "use"
        }  # of equal requests one stands for all
        found: dict[CacheKey, tuple[CachedDecision, str]] = {}
        for key in open_keys:
            entry = self._local(key, quietly=True)
            if entry is not None:
                found[key] = entry, "local"
        missed = [key for key in open_keys if key not in found]
        admitted = self.admission.admit(missed, sum(self.counts[tier, "hit"] for tier in ("local", "redis", "similar")))
        if admitted:
            with self.remote.one_wait():
                self._from_redis([key for key in missed if key in admitted], found, now)
                others = [open_keys[key].request.request.prompt for key in missed if key not in admitted]
                similar = self._from_index({k: open_keys[k] for k in admitted if k not in found}, others, found, now)
        else:
            similar = {}
        replies: list[Reply | None] = [None] * len(asked)
        leading: dict[CacheKey, int] = {}
        following: set[int] = set()
        for row, (key, each) in enumerate(zip(keys, asked, strict=True)):
            if key in found and each.mode == "use":
                replies[row] = self._reply(each, key, *found[key], started)
            elif key in leading and each.mode == "use":
                following.add(row)
                admitted.add(key)
            elif each.mode == "use" and key:
                leading[key] = row
            elif key:
                admitted.add(key)
        fresh = [row for row, reply in enumerate(replies) if reply is None and row not in following]
        self._compute(fresh, asked, keys, replies, admitted, similar)
        again: list[int] = []
        for row in sorted(following):
            entry = self.tiers.local.get(keys[row])
            if entry is None:  # the decision must not be given again
                again.append(row)
            else:
                replies[row] = self._reply(asked[row], keys[row], entry, "local", started)
        self._compute(again, asked, keys, replies, admitted, similar)
        return [reply for reply in replies if reply is not None]

    def _asked(self, requests: Sequence[Asked | RouteRequest]) -> list[Asked]:
        """The requests by what their sessions are known to have used last, in any process, by now."""
        asked = [each if isinstance(each, Asked) else self.ask(each) for each in requests]
        named = [each.request.request.session_id for each in asked]
        if not any(named):
            return asked
        sessions = self.deciding.sessions
        sessions.refresh(named)
        return [
            self.ask(each.request) if session and each.digest and sessions.last(session) != each.last else each
            for each, session in zip(asked, named, strict=True)
        ]

    # What the above have in common

    def _of(self, snapshot: EngineSnapshot) -> _Generation:
        return _Generation(snapshot, self.keyring.generation(snapshot), next(self._serials))

    def _now(self) -> _Generation:
        snapshot = self.deciding.snapshot()
        if self._generation.snapshot is not snapshot:
            self._generation = self._of(snapshot)
        return self._generation

    def _local(self, key: CacheKey, *, quietly: bool = False) -> CachedDecision | None:
        entry = self.tiers.local.get(key)
        if entry is not None:
            entry = self._standing(key, entry, self._generation)
        if not quietly:
            self.count("local", "miss" if entry is None else "hit")
        return entry

    def _standing(self, key: CacheKey, entry: CachedDecision, now: _Generation) -> CachedDecision | None:
        """The entry as it is to be given now, or None; looked at once per snapshot."""
        if entry.stood == now.serial:
            return entry
        fitted = entry.fitted(now.snapshot.table, price_of(now.snapshot))
        if fitted is None:
            self.tiers.local.remove(key)
            self.count("local", "rejected")
            return None
        if fitted is not entry:
            self.tiers.local.put(key, fitted)
        fitted.stood = now.serial
        return fitted

    def _from_redis(
        self, keys: Sequence[CacheKey], found: dict[CacheKey, tuple[CachedDecision, str]], now: _Generation
    ) -> None:
        shared = self.remote.get(keys)
        for key, entry in shared.items():
            standing = self._standing(key, entry, now) if self.take_over(key, entry) else None
            if standing is not None:
                found[key] = standing, "redis"
        if self.tiers.redis is not None and not self.remote.failing:
            hits = sum(key in found for key in keys)
            self.count("redis", "hit", hits)
            self.count("redis", "miss", len(keys) - hits)

    def _from_index(
        self,
        open_: dict[CacheKey, Asked],
        others: Sequence[str],
        found: dict[CacheKey, tuple[CachedDecision, str]],
        now: _Generation,
    ) -> dict[CacheKey, SimilarAsk]:
        """Look for similar prompts; returns what the index must be told of those that are decided after all.

        The prompts of others, which will be decided with them, are embedded in one go.
        """
        index = self.tiers.similar
        if index is None or not open_:
            return {}
        prompts = [each.request.request.prompt for each in open_.values()]
        embeddings = self.deciding.embedder.ahead([*prompts, *others])
        asked = {
            key: SimilarAsk(
                each.request.request.prompt, now.digest + self.keyring.family(each.request, each.last), embedding
            )
            for (key, each), embedding in zip(open_.items(), embeddings[: len(open_)], strict=True)
        }
        nearest = index.find(list(asked.values()))
        elsewhere: dict[CacheKey, tuple[CachedDecision, str]] = {}
        self._from_redis(
            [key for key in set(nearest) if key is not None and self.tiers.local.get(key) is None], elsewhere, now
        )
        for key, other in zip(asked, nearest, strict=True):
            entry = None if other is None else self._local(other, quietly=True)
            if entry is not None:
                entry = fitted_to(entry, open_[key].request, now.snapshot.table)
            if entry is not None:
                found[key] = entry, "similar"
                self.tiers.local.put(key, entry)
                entry.stood = now.serial
            self.count("similar", "miss" if entry is None else "hit")
        return asked

    def _compute(
        self,
        rows: Sequence[int],
        asked: Sequence[Asked],
        keys: Sequence[CacheKey],
        replies: list[Reply | None],
        admitted: set[CacheKey],
        similar: dict[CacheKey, SimilarAsk],
    ) -> None:
        if not rows:
            return
        with self.deciding.notes.taken() as events:
            answers = self.deciding.decide([asked[row].request for row in rows])
        wanted = []
        for row, answer in zip(rows, answers, strict=True):
            event = None if isinstance(answer, RouterError) else events.get(answer["decision_id"])
            if event is not None and keys[row] in admitted and asked[row].describes(event):
                wanted.append(event)
        entries = self.entries_of(wanted) if wanted else {}
        troubles = self._troubles()
        made: dict[CacheKey, CachedDecision] = {}
        for row, answer in zip(rows, answers, strict=True):
            replies[row] = answer
            if isinstance(answer, RouterError):
                continue
            if not asked[row].digest:
                answer["cache"] = "bypass"
            if troubles:
                answer["degraded"] = [*answer["degraded"], *troubles]
            entry = entries.get(answer["decision_id"])
            if entry is not None:
                made[keys[row]] = entry
                replies[row] = self._first(entry, answer)  # its bytes are there already
                if self.remember is not None and asked[row].request.request.session_id is None:
                    self.remember(asked[row].digest, asked[row].request)
        for key, entry in made.items():
            self.tiers.local.put(key, entry)
        self.count("local", "stored", len(made))
        self.remote.keep(list(made.items()))
        added = [key for key in made if key in similar]
        if self.tiers.similar is not None and added:
            self.tiers.similar.add([similar[key] for key in added], added)

    def _first(self, entry: CachedDecision, answer: Mapping[str, Any]) -> bytes:
        """The answer that an entry was made from."""
        return answer_json(
            entry,
            answer["decision_id"],
            answer["episode_id"],
            answer["cache"],
            answer["degraded"],
            answer["execution_time_ms"],
            answer["propensity"],
        )

    def _troubles(self) -> tuple[str, ...]:
        """What should work and does not at the moment, as answers say it."""
        troubles = self.deciding.troubles()
        return ("redis", *troubles) if self.remote.failing else troubles

    def _reply(self, asked: Asked, key: CacheKey, entry: CachedDecision, tier: str, started: float) -> bytes:
        self._sample(asked, key, entry)
        request = asked.request
        return self._give(entry, tier, request.episode.episode_id, request.request.session_id, started)

    def _give(
        self, entry: CachedDecision, tier: str, episode_id: str | None, session: str | None, started: float
    ) -> bytes:
        if entry.of_other:
            tier = "similar"
        entry.hits += 1
        self._until_check -= 1
        if session is not None:
            self.deciding.sessions.use(session, entry.ref)
        troubles = self._troubles()
        (decision_id,) = self.deciding.make_ids(1)
        seconds = self.clock() - started
        self.untold.append(Hit(decision_id, episode_id, entry, tier, troubles, seconds))
        return answer_json(entry, decision_id, episode_id, tier, troubles, seconds * 1e3)

    def _sample(self, asked: Asked, key: CacheKey, entry: CachedDecision) -> None:
        """Now and then, have a hit checked; not where the session's last model, which moves on, decides too."""
        if self._until_check > 1:
            return
        self._until_check = self._gap() + 1
        if asked.request.request.session_id is None:
            self.unchecked.append((asked, key, entry))

    def _gap(self) -> int:
        """Hits until the next that is checked."""
        with self._lock:
            return int(self.rng.geometric(self.check_rate)) if self.check_rate > 0.0 else 1 << 62
