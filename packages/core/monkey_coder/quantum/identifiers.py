"""Decision ids that carry their own authentication code.

Any process that knows the secret can tell a real id from a forged one, and how old it is, before the log has
it. An id is 7 bytes of time (microseconds since 1970), 8 of randomness and 9 of a keyed BLAKE2b code
(RFC 7693), in URL-safe base64; every id has one spelling, so that it can be compared as text.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from binascii import Error as Base64Error
from binascii import a2b_base64
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from hmac import compare_digest
from typing import Final

_TIME_BYTES: Final = 7
_RANDOM_BYTES: Final = 8
_CODE_BYTES: Final = 9
_BODY_BYTES: Final = _TIME_BYTES + _RANDOM_BYTES
_STANDARD: Final = bytes.maketrans(b"-_", b"+/")


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

    def __post_init__(self) -> None:
        if not 16 <= len(self.secret) <= 64:
            raise ValueError(f"the secret must have 16 to 64 bytes, has {len(self.secret)}")

    def make(self, count: int) -> list[str]:
        """Return `count` new ids."""
        stamp = int(self.wall_clock() * 1e6).to_bytes(_TIME_BYTES)
        noise = self.entropy(_RANDOM_BYTES * count)
        bodies = [stamp + noise[start : start + _RANDOM_BYTES] for start in range(0, len(noise), _RANDOM_BYTES)]
        return [urlsafe_b64encode(body + self._code(body)).decode("ascii") for body in bodies]

    def issued_at(self, decision_id: str) -> float | None:
        """When an id was made, in seconds since 1970; None for one that this deployment never made."""
        try:
            spelt = decision_id.encode("ascii")
            raw = a2b_base64(spelt.translate(_STANDARD))
        except (Base64Error, UnicodeEncodeError):
            return None
        if len(raw) != _BODY_BYTES + _CODE_BYTES or urlsafe_b64encode(raw) != spelt:
            return None  # the decoder skips what is not base64: a second spelling would pass for another decision
        if not compare_digest(raw[_BODY_BYTES:], self._code(raw[:_BODY_BYTES])):
            return None
        return int.from_bytes(raw[:_TIME_BYTES]) / 1e6

    def _code(self, body: bytes) -> bytes:
        return blake2b(body, digest_size=_CODE_BYTES, key=self.secret, person=b"decision").digest()
