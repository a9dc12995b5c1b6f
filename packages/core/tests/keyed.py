"""API keys for tests, put into the store of a server that may or may not run yet."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
from servers import PATIENCE_S, Server

from monkey_coder.api_keys import RoleName, new_key
from monkey_coder.key_ring import add_key
from monkey_coder.models import Preferences
from monkey_coder.storage.opening import open_store


def make_key(state_dir: Path, role: RoleName, name: str = "test", **preferences: Any) -> tuple[str, str]:
    """Keep a new key; returns its id and the key."""
    kept, key = new_key(name, role, time.time(), Preferences(**preferences) if preferences else None)
    with closing(open_store(state_dir, None, time.time)) as store:
        add_key(store, kept)
    return kept.id, key


def client_of(server: Server, key: str | None = None) -> httpx.Client:
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    return httpx.Client(base_url=server.url, headers=headers, timeout=PATIENCE_S)
