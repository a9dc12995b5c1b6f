"""Decision ids that carry their own authentication code.

Any process that knows the secret can tell a real id from a forged one, and how old it is, before the log has
it. An id is 7 bytes of time (microseconds since 1970), 8 of randomness and 9 of a keyed BLAKE2b code
(RFC 7693), in URL-safe base64; every id has one spelling, so that it can be compared as text.
"""

from __future__ import annotations

from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from hmac import compare_digest
from typing import Final

_TIME_BYTES: Final = 7
_RANDOM_BYTES: Final = 8
_CODE_BYTES: Final = 9
_BODY_BYTES: Final = _TIME_BYTES + _RANDOM_BYTES
_STANDARD: Final = bytes.maketrans(b"-_", b"+/")
_URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")


@dataclass(frozen=True, slots=True)
class SignedIds:
    """Makes and checks ids.

    Attributes:
        secret: Shared by all processes of a deployment, 16 to 64 bytes.
        wall_clock: Seconds since 1970.
        entropy: Returns so many random bytes.
    """

    secret: bytes
    wall_clock: Callable[[], float]
    entropy: Callable[[int], bytes]
    _keyed: blake2b = field(init=False, repr=False, compare=False)
    """Has taken in the key: that takes as long as all the rest of a code."""

    def __post_init__(self) -> None:
        if not 16 <= len(self.secret) <= 64:
            raise ValueError(f"the secret must have 16 to 64 bytes, has {len(self.secret)}")
        keyed = blake2b(digest_size=_CODE_BYTES, key=self.secret, person=b"decision")
        object.__setattr__(self, "_keyed", keyed)

    def make(self, count: int) -> list[str]:
        """Return `count` new ids."""
        stamp = int(self.wall_clock() * 1e6).to_bytes(_TIME_BYTES)
        noise = self.entropy(_RANDOM_BYTES * count)
        bodies = [stamp + noise[start : start + _RANDOM_BYTES] for start in range(0, len(noise), _RANDOM_BYTES)]
        return [_spelt(body + self._code(body)).decode("ascii") for body in bodies]

    def issued_at(self, decision_id: str) -> float | None:
        """When an id was made, in seconds since 1970; None for one that this deployment never made."""
        try:
            spelt = decision_id.encode("ascii")
            raw = a2b_base64(spelt.translate(_STANDARD))
        except (Base64Error, UnicodeEncodeError):
            return None
        if len(raw) != _BODY_BYTES + _CODE_BYTES or _spelt(raw) != spelt:
            return None  # the decoder skips what is not base64: a second spelling would pass for another decision
        if not compare_digest(raw[_BODY_BYTES:], self._code(raw[:_BODY_BYTES])):
            return None
        return int.from_bytes(raw[:_TIME_BYTES]) / 1e6

    def _code(self, body: bytes) -> bytes:
        code = self._keyed.copy()
        code.update(body)
        return code.digest()


def _spelt(raw: bytes) -> bytes:
    """URL-safe base64, as `base64` has it, in half of its time."""
    return b2a_base64(raw, newline=False).translate(_URL_SAFE)
