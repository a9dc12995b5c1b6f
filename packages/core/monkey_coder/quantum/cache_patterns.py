"""The requests behind cached decisions, so that the most frequent ones can be decided again when the policy changes.

They stay in this process's memory, within a bound, and go nowhere else: what is stored or shared holds no prompt.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

from monkey_coder.models import RouteRequest


class PatternMemory:
    """Requests by their digest; the one noted longest ago goes first. Safe to use from any thread.

    Args:
        max_requests: How many.
        max_chars: Length of all their prompts together; one prompt may take a hundredth of it.
    """

    def __init__(self, max_requests: int = 2_000, max_chars: int = 4_000_000) -> None:
        self._max_requests, self._max_chars = max_requests, max_chars
        self._requests: OrderedDict[bytes, RouteRequest] = OrderedDict()
        self._chars = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._requests)

    @property
    def chars(self) -> int:
        """Length of all prompts together."""
        return self._chars

    def note(self, digest: bytes, request: RouteRequest) -> None:
        """Remember a request; one of a session, or with a very long prompt, is not remembered."""
        length = len(request.request.prompt)
        if request.request.session_id is not None or length > self._max_chars // 100:
            return
        with self._lock:
            self._drop(digest)
            self._requests[digest] = request
            self._chars += length
            while len(self._requests) > self._max_requests or self._chars > self._max_chars:
                self._drop(next(iter(self._requests)))

    def get(self, digest: bytes) -> RouteRequest | None:
        """The request with this digest, if it is remembered."""
        return self._requests.get(digest)

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._requests.clear()
            self._chars = 0

    def _drop(self, digest: bytes) -> None:
        request = self._requests.pop(digest, None)
        if request is not None:
            self._chars -= len(request.request.prompt)
