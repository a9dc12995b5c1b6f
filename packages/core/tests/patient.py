"""HTTP calls, each on a connection of its own, that wait as long as a loaded machine may need."""

from __future__ import annotations

from functools import partial

import httpx
from servers import PATIENCE_S

get = partial(httpx.get, timeout=PATIENCE_S)
post = partial(httpx.post, timeout=PATIENCE_S)
request = partial(httpx.request, timeout=PATIENCE_S)
