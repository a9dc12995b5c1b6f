"""Under what a decision is cached: digests of everything that could change it, and of nothing else.

A key is two digests in a row. The *generation* tells what the engine decides by (policy, catalog, configuration,
format); the *request digest* what it was asked. Both are keyed (BLAKE2b, RFC 7693) with a named secret of the
deployment, so that whoever reads the cache cannot try out prompts against it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final, Self

import orjson

from monkey_coder.catalog.table import ModelTable
from monkey_coder.models import RouteRequest
from monkey_coder.quantum.snapshot import EngineSnapshot
from monkey_coder.quantum.state_encoder import ENCODING_VERSION

CacheKey = bytes
"""Generation and request digest, `KEY_BYTES` together."""

DIGEST_BYTES: Final = 16
KEY_BYTES: Final = 2 * DIGEST_BYTES
ENTRY_VERSION: Final = 1
"""Of the bytes of entries, and of what is digested here; raised whenever an old entry would be read wrongly."""

_UNORDERED: Final = ("preferred_providers", "allowed_models", "excluded_models")


@dataclass(frozen=True, slots=True, repr=False)
class Keyring:
    """Digests with a named secret. Another name or secret is another cache: what is in the old one ages out.

    Attributes:
        name: Which secret it is; stands in every entry.
        secret: 16 to 64 bytes, shared by all hosts that share a cache.
    """

    name: str
    secret: bytes

    def __post_init__(self) -> None:
        if not self.name or not 16 <= len(self.secret) <= 64:
            raise ValueError(
                f"a cache key needs a name and a secret of 16 to 64 bytes; this one has {len(self.secret)}"
            )

    def __repr__(self) -> str:
        return f"Keyring({self.name!r})"

    @classmethod
    def derived(cls, secret: bytes) -> Self:
        """The cache key of a deployment that names none: made from its secret, and named after itself."""
        own = blake2b(b"decision cache", digest_size=32, key=secret, person=b"cache key").digest()
        return cls(blake2b(own, digest_size=4, person=b"cache key name").hexdigest(), own)

    def digest(self, purpose: bytes, *parts: bytes, size: int = DIGEST_BYTES) -> bytes:
        """Keyed digest of some bytes; the same bytes under another purpose (at most 16 bytes) give another one."""
        state = blake2b(digest_size=size, key=self.secret, person=purpose)
        for part in parts:
            state.update(part)
        return state.digest()

    def request(self, request: RouteRequest, last: str | None) -> bytes:
        """Digest of a request.

        Args:
            request: As parsed, so that neither spelling nor order of its fields matter.
            last: Ref of the model that the request's session used last; it stands in for the session.
        """
        return self.digest(b"request", _asked(request, last), request.request.prompt.encode("utf-8", "surrogatepass"))

    def family(self, request: RouteRequest, last: str | None) -> bytes:
        """Digest of everything but the prompt: requests of one family differ in their prompts alone."""
        return self.digest(b"family", _asked(request, last))

    def generation(self, snapshot: EngineSnapshot) -> bytes:
        """Digest of what the engine decides by.

        What outcomes teach (profiles, reliabilities, availability) is not in it: it moves all the time, and each hit is
        held against it instead.
        """
        by = {
            "versions": (ENTRY_VERSION, ENCODING_VERSION, snapshot.policy_version, snapshot.config_version),
            "strategies": tuple(snapshot.strategies),
            "collapse": snapshot.collapse,
            "numbers": (snapshot.preferred_bonus, snapshot.max_attempts, snapshot.max_alternatives),
        }
        return self.digest(b"generation", orjson.dumps(by), _models(snapshot.table))


def _asked(request: RouteRequest, last: str | None) -> bytes:
    """What a request says, without its prompt and without what cannot change the decision.

    That is: names of the session, the episode and earlier decisions, and whether to explore or to use the cache.
    """
    task = dict(vars(request.request))
    del task["prompt"], task["session_id"]
    for name in _UNORDERED:
        if len(task[name]) > 1:
            task[name] = sorted(set(task[name]))
    options = dict(vars(request.quantum_config))
    del options["explore"], options["cache"]
    attempts = request.episode.attempts
    asked: Mapping[str, Any] = {
        "task": task,
        "preferences": vars(request.preferences),
        "tried": [(a.model, a.success, a.cost_usd, a.error_type) for a in attempts] if attempts else (),
        "episode": request.episode.episode_id is not None,
        "options": options,
        "last": last,
    }
    return orjson.dumps(asked, default=vars)


def _models(table: ModelTable) -> bytes:
    """Everything about the models that no outcome changes."""
    names = (table.refs, [sorted(tags) for tags in table.regions], table.deployment_of)
    arrays = (
        table.input_usd,
        table.output_usd,
        table.request_usd,
        table.cached_input_usd,
        table.context_window,
        table.max_output,
        table.capabilities,
        table.weight,
    )
    return orjson.dumps(names) + b"".join(array.tobytes() for array in arrays)
