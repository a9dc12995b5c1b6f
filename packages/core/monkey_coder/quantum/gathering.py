"""How long a batch gathers before it is decided: moderation, as network cards moderate their interrupts.

A batch has a price of its own, which its requests share. Left to themselves they share it only once the engine is busy
all the time; then whatever else the process has to do, such as taking in reports, and the requests wait for each other.
So where requests come often, a batch gathers for some milliseconds first. Network drivers do the same by the rate of
packets (`adaptive-rx` of ethtool(8)).

Only requests count that come of themselves. A caller who asks again as soon as it is answered comes the sooner the
sooner it is answered: to let it wait for company that is itself waiting for an answer would slow down both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from monkey_coder.ports import Clock

WINDOW_S: Final = 0.25
"""Over how long requests are counted before their rate is believed."""

PROMPT_S: Final = 0.025
"""Who asks again within this time was waiting for the answer before."""


@dataclass(frozen=True, slots=True)
class GatheringOptions:
    """When a batch gathers.

    Attributes:
        seldom_per_s: Requests a second up to which nothing gathers: there is time enough for each alone.
        often_per_s: Requests a second from which batches gather for the longest time.
        longest_s: That time, counted from when the first request of a batch came.
        enough: Requests that share the price of a batch well enough.
    """

    seldom_per_s: float = 300.0
    often_per_s: float = 600.0
    longest_s: float = 0.004
    enough: int = 8


class Gathering:
    """Counts requests that come of themselves, and says how long the next batch gathers. For one event loop.

    Args:
        clock: Monotonic seconds.
        options: When a batch gathers.
    """

    def __init__(self, clock: Clock, options: GatheringOptions | None = None) -> None:
        self.options = options or GatheringOptions()
        self._clock = clock
        self._began, self._count, self._longest_s = clock(), 0, 0.0

    def arrived(self) -> None:
        """Count a request that came of itself."""
        self._look()
        self._count += 1

    def pause_s(self, waiting: int, oldest_s: float) -> float:
        """Seconds for which the next batch should gather; 0: it should begin.

        Args:
            waiting: Requests in it so far.
            oldest_s: For how long the first of them has waited.
        """
        self._look()
        return 0.0 if waiting >= self.options.enough else max(0.0, self._longest_s - oldest_s)

    def _look(self) -> None:
        """See, from time to time, how often requests come."""
        elapsed = self._clock() - self._began
        if elapsed >= WINDOW_S:
            seldom, often = self.options.seldom_per_s, self.options.often_per_s
            per_s = self._count / elapsed if elapsed < 2.0 * WINDOW_S else 0.0  # then nothing came for a whole window
            share = (per_s - seldom) / (often - seldom)
            self._longest_s = min(max(share, 0.0), 1.0) * self.options.longest_s
            self._began, self._count = self._began + elapsed, 0
