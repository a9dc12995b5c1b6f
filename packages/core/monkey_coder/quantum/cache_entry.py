"""A cached decision, its bytes, and whether it still stands.

The bytes begin with a fixed prefix (magic, version, name of the key, authentication code, lengths) and go on with a
JSON header and the answer's JSON. The code covers the key of the entry as well, so that an entry which somebody
changed, cut off, or put under another key is told from a real one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from hashlib import blake2b
from hmac import compare_digest
from struct import Struct
from typing import Any, Final, Literal

import numpy as np
import orjson

from monkey_coder.catalog.table import ModelTable
from monkey_coder.models import TASK_TYPES, TaskType
from monkey_coder.ports import FloatArray
from monkey_coder.quantum.cache_key import ENTRY_VERSION, CacheKey, Keyring

Flaw = Literal["foreign", "future", "truncated", "corrupt"]
"""What can be wrong with bytes: not ours (or of another key), of another version, cut off, changed."""

OVERHEAD_BYTES: Final = 1400
"""What an entry of the in-process tier takes beside its answer: objects, names and places in tables. Measured."""

_MAGIC: Final = b"QRC"
_CODE_BYTES: Final = 16
_PREFIX: Final = Struct("<3sB8s16sII")


class BadEntryError(Exception):
    """Bytes that are no entry under this key.

    Attributes:
        flaw: What is wrong with them.
    """

    def __init__(self, flaw: Flaw) -> None:
        super().__init__(f"a cached decision is {flaw}")
        self.flaw: Flaw = flaw


@dataclass(slots=True, eq=False)
class CachedDecision:
    """A decision to give again.

    Attributes:
        origin: Id of the decision that was made.
        made_at: When, in seconds since 1970.
        expires_at: When it is not to be given any more.
        ref: The model.
        alternatives: Refs of the runners-up in its answer.
        unavailable: Refs of models that availability alone kept from being candidates.
        had: For every model `1` if it could be had when this was decided, else `0`.
        task: Task type.
        margin: Utility of the model minus that of the best other candidate, in successes; at least 0.
        agreement: Share of the strategies with an opinion that put it first, 0..1.
        policy_version: Of the policy that decided.
        price: Price of money by which spend was paced, in successes per USD; 0 without pacing.
        prior: (M,) P(success) of every model for the task type when it was decided.
        answer: JSON of the answer without what is each hit's own (`PER_HIT`).
        confirmed: How many outcomes told of success.
        hits: How often it was given by this process.
        of_other: Whether it was made for another, nearly identical prompt.
        stood: Number of the snapshot under which it was last found to stand; for the holder of the entry.
    """

    origin: str
    made_at: float
    expires_at: float
    ref: str
    alternatives: tuple[str, ...]
    unavailable: tuple[str, ...]
    had: str
    task: TaskType
    margin: float
    agreement: float
    policy_version: int | None
    price: float
    prior: FloatArray
    answer: bytes
    confirmed: int = 0
    hits: int = 0
    of_other: bool = False
    stood: int = field(default=-1, repr=False)

    @property
    def size(self) -> int:
        """Bytes it takes in memory, nearly."""
        refs = len(self.alternatives) + len(self.unavailable)
        return OVERHEAD_BYTES + len(self.answer) + self.prior.nbytes + 100 * refs

    def fitted(self, table: ModelTable, price: float) -> CachedDecision | None:
        """The same decision for the models as they are now, or None when it does not stand any more.

        It does not when the model is gone or cannot be had, when one that could not be had then can be had now, when
        another's prior chances have risen against the model's by more than the margin, when those of a model that the
        answer tells of have moved by more than `MOST_DRIFT`, or the price of money by more than `MOST_INFLATION`.
        Runners-up that cannot be had now leave the alternatives.

        Args:
            table: The models.
            price: Price of money by which spend is paced now; 0 without pacing.
        """
        index, available = table.index, table.available
        column = index.get(self.ref)
        if column is None or not available[column] or len(self.prior) != len(table):
            return None
        if any(ref not in index or available[index[ref]] for ref in self.unavailable):
            return None
        if abs(price - self.price) > MOST_INFLATION * self.price:
            return None
        moved = table.success[TASK_TYPES.index(self.task)] - self.prior
        told = moved[[column, *(index[ref] for ref in self.alternatives if ref in index)]]
        if moved.max() - moved[column] > self.margin + _ROUNDING or np.abs(told).max() > MOST_DRIFT:
            return None
        had = availability(table)
        return self if had == self.had else self._without(had, table)

    def _without(self, had: str, table: ModelTable) -> CachedDecision:
        """The same without models that cannot be had any more."""
        answer = orjson.loads(self.answer)
        told = {each["model"]: each for each in answer["excluded"]}
        gone = [
            ref
            for ref, now, then in zip(table.refs, had, self.had, strict=True)
            if now < then and ref not in told  # excluded for another reason: that one is told first
        ]
        told |= {ref: {"model": ref, "reason": "unavailable", "detail": UNAVAILABLE} for ref in gone}
        return self.restricted([told[ref] for ref in table.refs if ref in told], had, (*self.unavailable, *gone))

    def restricted(self, excluded: list[dict[str, Any]], had: str, unavailable: tuple[str, ...]) -> CachedDecision:
        """The same decision, telling of other exclusions; what is excluded leaves the alternatives.

        Args:
            excluded: All exclusions in contract form; the model itself must not be among them.
            had: Availability that they rest on.
            unavailable: Models that availability alone excludes.
        """
        out = {each["model"] for each in excluded}
        answer = orjson.loads(self.answer)
        answer["excluded"] = excluded
        answer["alternatives"] = [a for a in answer["alternatives"] if f"{a['provider']}/{a['model']}" not in out]
        return replace(
            self,
            answer=orjson.dumps(answer),
            alternatives=tuple(ref for ref in self.alternatives if ref not in out),
            had=had,
            unavailable=unavailable,
        )


def availability(table: ModelTable) -> str:
    """For every model `1` if it can be had, else `0`."""
    return "".join("1" if available else "0" for available in table.available.tolist())


UNAVAILABLE: Final = "its provider is unavailable at the moment"
MOST_DRIFT: Final = 0.005
"""How far the prior chances of a model may move until what a cached answer says of it is no longer true enough. One
outcome moves a model further that is known from a hundred, and not one that is known from thousands."""

MOST_INFLATION: Final = 0.1
"""Part by which the price of money may move until a decision must be made again."""

_ROUNDING: Final = 1e-5
"""By which chances may differ that went through JSON."""

PER_HIT: Final = ("decision_id", "episode_id", "cache", "propensity", "degraded", "execution_time_ms")
"""Fields of an answer that are made anew for each hit."""

_TOLD: Final = tuple(
    f.name for f in fields(CachedDecision) if f.name not in ("prior", "answer", "hits", "of_other", "stood")
)


def encode(entry: CachedDecision, key: CacheKey, keyring: Keyring) -> bytes:
    """Turn an entry into bytes that `decode` reads under the same key."""
    header: dict[str, Any] = {name: getattr(entry, name) for name in _TOLD}
    header["prior"] = np.round(entry.prior.astype(np.float64), 6).tolist()
    told = orjson.dumps(header)
    body = told + entry.answer
    head = (_MAGIC, ENTRY_VERSION, _name(keyring))
    lengths = (len(told), len(entry.answer))
    code = _code(keyring, key, _PREFIX.pack(*head, b"", *lengths), body)
    return _PREFIX.pack(*head, code, *lengths) + body


def decode(payload: bytes, key: CacheKey, keyring: Keyring) -> CachedDecision:
    """Read what `encode` wrote.

    Raises:
        BadEntryError: The bytes are damaged, foreign, or of another version.
    """
    if len(payload) < _PREFIX.size:
        raise BadEntryError("truncated" if payload.startswith(_MAGIC) else "foreign")
    magic, version, name, code, header_bytes, answer_bytes = _PREFIX.unpack_from(payload)
    if magic != _MAGIC:
        raise BadEntryError("foreign")
    if version != ENTRY_VERSION:
        raise BadEntryError("future")
    if name != _name(keyring):
        raise BadEntryError("foreign")
    body = payload[_PREFIX.size :]
    if len(body) < header_bytes + answer_bytes:
        raise BadEntryError("truncated")
    without_code = _PREFIX.pack(magic, version, name, b"", header_bytes, answer_bytes)
    if not compare_digest(code, _code(keyring, key, without_code, body)):
        raise BadEntryError("corrupt")
    try:
        header: dict[str, Any] = orjson.loads(body[:header_bytes])
        return CachedDecision(
            **header
            | {
                "alternatives": tuple(header["alternatives"]),
                "unavailable": tuple(header["unavailable"]),
                "prior": np.array(header["prior"], dtype=np.float32),
            },
            answer=body[header_bytes:],
        )
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise BadEntryError("corrupt") from error


def answer_json(
    entry: CachedDecision,
    decision_id: str,
    episode_id: str | None,
    tier: str,
    degraded: Sequence[str],
    ms: float,
    propensity: float = 1.0,
) -> bytes:
    """An answer in contract form.

    Args:
        entry: What is given again.
        decision_id: Of this answer.
        episode_id: The caller's; None: the answer begins an episode of its own.
        tier: Where it was found, as answers say it.
        degraded: What should have worked and did not.
        ms: Milliseconds that it took.
        propensity: Probability with which the model was served; a hit is certain.
    """
    decision = decision_id.encode()
    episode = b'"%b"' % decision if episode_id is None else orjson.dumps(episode_id)
    return (
        b'{"decision_id":"%b","episode_id":%b,%b,"cache":"%b","propensity":%b,"degraded":%b,"execution_time_ms":%b}'
        % (
            decision,
            episode,
            entry.answer[1:-1],
            tier.encode(),
            b"1.0" if propensity == 1.0 else orjson.dumps(propensity),
            orjson.dumps(degraded) if degraded else b"[]",
            b"%.3f" % ms,
        )
    )


def _name(keyring: Keyring) -> bytes:
    return blake2b(keyring.name.encode(), digest_size=8, person=b"cache key name").digest()


def _code(keyring: Keyring, key: CacheKey, *parts: bytes) -> bytes:
    return keyring.digest(b"entry", key, *parts, size=_CODE_BYTES)
