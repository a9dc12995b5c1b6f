"""Which process may send probes to a provider with half-open breakers: one at a time, by a lease in the store.

Without it every process would send as many probes as a breaker allows. A process that has no traffic to send gives its
lease back soon, so that another one can probe.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from monkey_coder.errors import StoreUnavailableError
from monkey_coder.ports import Clock
from monkey_coder.quantum.provider_manager import ProviderManager
from monkey_coder.storage.port import Leases

LEASE_S: Final = 5.0
"""How long a process that died keeps others from probing."""
IDLE_S: Final = 3.0
"""How long a process may hold a lease without sending a probe."""
REST_S: Final = 1.0
"""How long it then leaves it to others; longer than the pause between two looks."""


@dataclass
class ProbePermits:
    """Takes and returns leases for the providers of one process. One thread at a time.

    Attributes:
        leases: Of the store.
        providers: Whose breakers.
        owner: Unique name of this process.
        clock: Monotonic seconds.
    """

    leases: Leases
    providers: ProviderManager
    owner: str
    clock: Clock
    _used_at: dict[str, float] = field(default_factory=dict)
    _rests_until: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.providers.permit_probes(())

    def look(self) -> None:
        """Take leases where something is half-open, as far as nobody else has them; to be called a few times a second.

        Raises:
            StoreUnavailableError: The store does not answer; until it does, every process may send probes.
        """
        waiting, now = self.providers.half_open(), self.clock()
        try:
            for over in self._used_at.keys() - waiting.keys():
                del self._used_at[over]
                self.leases.release_lease(_name(over), self.owner)
            self.providers.permit_probes({name for name, probing in waiting.items() if self._holds(name, probing, now)})
        except StoreUnavailableError:
            self.providers.permit_probes(None)
            raise

    def _holds(self, name: str, probing: bool, now: float) -> bool:
        if now < self._rests_until.get(name, now):
            return False
        if not self.leases.acquire_lease(_name(name), self.owner, LEASE_S):
            self._used_at.pop(name, None)
            return False
        if probing or name not in self._used_at:
            self._used_at[name] = now
        if now - self._used_at[name] > IDLE_S:
            del self._used_at[name]
            self._rests_until[name] = now + REST_S
            self.leases.release_lease(_name(name), self.owner)
            return False
        return True


def _name(provider: str) -> str:
    return f"probe {provider}"
