"""API keys as values: how one is made, what is kept of it, and how a request's key is found.

A key is ``mk_ID_SECRET`` with 256 random bits in its secret. Only its SHA-256 is kept. Slow, salted hashes protect
what people think up, which can be guessed; nobody guesses 256 random bits, so a slow hash would only make every request
slow. For the same reason a key may be looked up by its digest: how long that takes tells of digests, and a digest tells
nothing of any key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from secrets import token_urlsafe
from types import MappingProxyType
from typing import Annotated, Final, Literal, Self, get_args

from pydantic import Field, model_validator

from monkey_coder.models import Preferences, Probability, RouteRequest, Value

RoleName = Literal["client", "viewer", "operator", "admin"]
ROLES: Final[tuple[RoleName, ...]] = get_args(RoleName)
"""Each may do what those before it may."""

RANKS: Final[Mapping[str, int]] = MappingProxyType({role: place + 1 for place, role in enumerate(ROLES)})
SCRAPER_RANK: Final = 0
"""Of the scrape token, which is good for metrics and health alone."""

PREFIX: Final = "mk_"
_ID_BYTES: Final = 6
_SECRET_BYTES: Final = 32


class LearnedValue(Value):
    """What a key's own choices say a solved task is worth to its holder.

    Taken from reports in which another model answered than the one decided on; `quantum/revealed_value.py` says how.
    """

    value_usd: Annotated[float, Field(gt=0.0, description="USD that a solved task seems to be worth.")]
    low: Annotated[float, Field(gt=0.0, description="Lower end of its 90% interval.")]
    high: Annotated[float, Field(gt=0.0, description="Upper end.")]
    choices: Annotated[int, Field(ge=1, description="Reports behind it.")]
    upgrades: Annotated[int, Field(ge=0, description="Those that took a better and dearer model than the decided one.")]
    explained: Annotated[Probability, Field(description="Share of the choices that agree with the estimate.")]


class ApiKey(Value):
    """What is kept of a key; never the key itself."""

    id: Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]
    name: Annotated[str, Field(min_length=1, max_length=100)]
    role: RoleName
    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the key.")]
    created_at: float
    revoked_at: float | None = None
    preferences: Annotated[Preferences | None, Field(description="Where a request says nothing.")] = None
    learned: LearnedValue | None = None
    use_learned: Annotated[bool, Field(description="Whether `learned` stands in where no weighing was stored.")] = False

    @model_validator(mode="after")
    def _printable(self) -> Self:
        if not self.name.isprintable():
            raise ValueError("a name is one line of printable characters")
        return self

    @property
    def defaults(self) -> Preferences | None:
        """What holds where a request says nothing: what was stored and, if it was turned on, what was learned."""
        if not self.use_learned or self.learned is None:
            return self.preferences
        learned = Preferences(value_usd=self.learned.value_usd)
        return learned if self.preferences is None else completed(self.preferences, learned)

    def encode(self) -> bytes:
        """Bytes for the store; preferences that were left open stay open."""
        return self.model_dump_json(exclude_unset=True).encode()


def new_key(name: str, role: RoleName, now: float, preferences: Preferences | None = None) -> tuple[ApiKey, str]:
    """Make a key.

    Args:
        name: For people: who or what will use it.
        role: What it may do.
        now: Seconds since 1970.
        preferences: Where its requests say nothing.

    Returns:
        What is kept, and the key itself, which is never to be had again.
    """
    key_id = sha256(token_urlsafe(_SECRET_BYTES).encode()).hexdigest()[: 2 * _ID_BYTES]
    key = f"{PREFIX}{key_id}_{token_urlsafe(_SECRET_BYTES)}"
    digest = sha256(key.encode()).hexdigest()
    return ApiKey(id=key_id, name=name, role=role, digest=digest, created_at=now, preferences=preferences), key


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request.

    Attributes:
        id: Of the key; it is the reporter of outcomes.
        rank: Of its role, see `RANKS`.
        defaults: Preferences where a request says nothing, or None.
    """

    id: str
    rank: int
    defaults: Preferences | None = None


@dataclass(frozen=True, slots=True)
class KeyTable:
    """All keys of one moment.

    Attributes:
        required: Whether callers need a key. True from the first key on, also when all have been revoked: revoking the
            last one closes the door.
        scraped: Whether metrics and health ask for a key or the scrape token.
    """

    required: bool = False
    scraped: bool = False
    _callers: Mapping[bytes, Caller] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, keys: Iterable[ApiKey], scrape_token: str | None = None, *, unreadable: int = 0) -> Self:
        """The table of some keys.

        Args:
            keys: Revoked ones are left out.
            scrape_token: Good for metrics and health alone.
            unreadable: Keys that were stored and could not be read. They open nothing, and count as keys.
        """
        callers: dict[bytes, Caller] = {}
        if scrape_token is not None:
            callers[sha256(scrape_token.encode()).digest()] = Caller("scraper", SCRAPER_RANK)
        stored = list(keys)
        for key in stored:
            if key.revoked_at is None:
                callers[bytes.fromhex(key.digest)] = Caller(key.id, RANKS[key.role], key.defaults)
        return cls(bool(stored) or unreadable > 0, scrape_token is not None, callers)

    def find(self, key: bytes) -> Caller | None:
        """Whose key this is; None for a key that is unknown or revoked."""
        return self._callers.get(sha256(key).digest())


_WEIGHING: Final = ("quality", "cost", "latency", "value_usd")
_GROUPS: Final = (_WEIGHING, ("quality_floor",), ("max_cost_usd",))


def completed(stated: Preferences, defaults: Preferences) -> Preferences:
    """Fill what a caller left open from defaults.

    There are three parts: how to weigh (the weights or `value_usd`), the floor, and the budget. A part of which the
    caller states anything, null included, is the caller's; the others are the defaults'.
    """
    merged: dict[str, float | None] = {}
    for group in _GROUPS:
        source = stated if stated.model_fields_set.intersection(group) else defaults
        merged |= {name: getattr(source, name) for name in group if name in source.model_fields_set}
    if merged.get("value_usd") is None:
        merged.pop("value_usd", None)
    return Preferences.model_validate(merged)


def settled(request: RouteRequest, defaults: Preferences) -> RouteRequest:
    """The same request with the caller's defaults where it says nothing of preferences."""
    stated = request.preferences if "preferences" in request.model_fields_set else None
    return request.model_copy(update={"preferences": defaults if stated is None else completed(stated, defaults)})


Change = Callable[[ApiKey], ApiKey]
"""Makes another version of what is kept of a key."""
