"""What is worth looking for and keeping: everything, until next to nothing is ever asked again.

To keep a decision costs a part of deciding it. A stream of requests that never repeat would pay that for nothing; then
only what is seen a second time is kept, as TinyLFU's doorkeeper does (Einziger, Friedman & Manes 2017), and a sample,
by which it is noticed when requests begin to repeat again. The sample is of whole batches: to look for a batch and to
keep it costs little more than to do so for one of its requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from monkey_coder.quantum.cache_key import CacheKey

WINDOW: Final = 2_048
"""Misses after which is decided anew whether everything is admitted."""
LEAST: Final = 0.01
"""Share of requests that must have been there before, for everything to be admitted."""
SAMPLE: Final = 16
"""While strangers are not admitted, one of so many is, those of a batch all together."""
MOST_SEEN: Final = 20_000
"""Strangers that are remembered, at the least; some twice as many at the most."""


class Admission:
    """Decides what is worth the cache's while. For one thread at a time."""

    def __init__(self) -> None:
        self.open = True
        self._seen: set[CacheKey] = set()
        self._before: set[CacheKey] = set()
        self._misses = self._repeats = self._hits = 0
        self._due = 0.0

    def admit(self, missed: Sequence[CacheKey], hits: int) -> set[CacheKey]:
        """Which of some requests that the process itself does not know are to be looked for elsewhere, and kept.

        Args:
            missed: Their keys.
            hits: How many hits there have been so far, in this process and elsewhere.
        """
        admitted = set(missed) if self.open else self._worth(missed)
        self._misses += len(missed)
        if self._misses >= WINDOW:
            fresh = hits - self._hits
            self.open = fresh + self._repeats >= LEAST * (fresh + self._misses)
            self._hits, self._misses, self._repeats = hits, 0, 0
        return admitted

    def _worth(self, missed: Sequence[CacheKey]) -> set[CacheKey]:
        """Those that were there before; and once in a while all."""
        known = {key for key in missed if key in self._seen or key in self._before}
        strangers = len(missed) - len(known)
        self._repeats += len(known)
        self._seen.update(missed)
        if len(self._seen) >= MOST_SEEN:
            self._before, self._seen = self._seen, set()
        self._due += strangers / SAMPLE
        if self._due < strangers or not strangers:
            return known
        self._due -= strangers
        return set(missed)
