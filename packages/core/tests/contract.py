"""The HTTP contract as values: a request with every default, what is refused where, and how to read answers."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import httpx

ROUTE = "/v1/quantum/route"
ROUTES = (ROUTE, "/v1/route")
PROMPT = "Fix the race condition in our LRU cache: two threads evict the same entry, and the test fails."
STRATEGIES = {"dqn", "memory", "task_optimized", "cost_efficient", "performance", "balanced"}

# The request of the contract with every field at its default.
EVERY_DEFAULT: dict[str, Any] = {
    "request": {
        "prompt": PROMPT,
        "task_type": None,
        "persona": None,
        "files": [],
        "preferred_providers": [],
        "allowed_models": [],
        "excluded_models": [],
        "requires": {"tools": False, "vision": False, "json_mode": False, "regions": []},
        "input_tokens": None,
        "expected_output_tokens": None,
        "session_id": None,
    },
    "preferences": {
        "quality": 0.6,
        "cost": 0.3,
        "latency": 0.1,
        "value_usd": None,
        "quality_floor": None,
        "max_cost_usd": None,
    },
    "episode": {"episode_id": None, "attempts": []},
    "quantum_config": {
        "strategies": None,
        "collapse_strategy": None,
        "max_threads": None,
        "timeout_ms": 50,
        "explore": True,
        "cache": "use",
    },
}

ANSWER_FIELDS = {
    "decision_id",
    "episode_id",
    "provider",
    "model",
    "persona",
    "confidence",
    "expected",
    "strategy_used",
    "collapse_strategy",
    "collapse_reasoning",
    "explored",
    "propensity",
    "alternatives",
    "excluded",
    "thread_results",
    "complexity",
    "context_type",
    "cache",
    "policy_version",
    "config_version",
    "experiment",
    "degraded",
    "execution_time_ms",
}

# Place, value that must be refused there.
BAD_FIELDS: list[tuple[str, Any]] = [
    ("request", ...),
    ("request", None),
    ("request", []),
    ("request.prompt", ...),
    ("request.prompt", ""),
    ("request.prompt", None),
    ("request.prompt", 7),
    ("request.task_type", "gardening"),
    ("request.persona", "king"),
    ("request.files", {}),
    ("request.files", [{"path": "a.py", "chars": -1}]),
    ("request.files", [{"path": "a.py", "chars": 1.5}]),
    ("request.files", [{"path": "a.py", "chars": "5"}]),
    ("request.files", [{"path": "a.py"}]),
    ("request.files", [{"path": "a.py", "chars": 1, "content": "x"}]),
    ("request.preferred_providers", "openai"),
    ("request.allowed_models", ["claude"]),
    ("request.excluded_models", ["two words/model"]),
    ("request.excluded_models", [None]),
    ("request.requires.tools", "yes"),
    ("request.requires.telepathy", True),
    ("request.requires.regions", [1]),
    ("request.input_tokens", -1),
    ("request.input_tokens", 2.5),
    ("request.input_tokens", True),
    ("request.input_tokens", 10**30),
    ("request.expected_output_tokens", "many"),
    ("request.session_id", ""),
    ("request.session_id", "s" * 201),
    ("request.surprise", 1),
    ("preferences", None),
    ("preferences.quality", 0),
    ("preferences.quality", "high"),
    ("preferences.cost", -0.1),
    ("preferences.latency", None),
    ("preferences.value_usd", 0),
    ("preferences.quality_floor", 1.01),
    ("preferences.quality_floor", -0.01),
    ("preferences.max_cost_usd", -1),
    ("preferences.price", 1),
    ("episode.episode_id", ""),
    ("episode.attempts", [{"model": "a/b"}]),
    ("episode.attempts", [{"success": False}]),
    ("episode.attempts", [{"model": "a/b", "success": "no"}]),
    ("episode.attempts", [{"model": "a/b", "success": False, "cost_usd": -0.1}]),
    ("episode.attempts", [{"model": "a/b", "success": False, "error_type": "bad luck"}]),
    ("episode.attempts", [{"model": "a/b", "success": False}] * 101),
    ("episode.surprise", 1),
    ("quantum_config.strategies", []),
    ("quantum_config.strategies", "dqn"),
    ("quantum_config.collapse_strategy", "dice"),
    ("quantum_config.max_threads", 0),
    ("quantum_config.timeout_ms", 0),
    ("quantum_config.timeout_ms", 1001),
    ("quantum_config.timeout_ms", None),
    ("quantum_config.explore", 1),
    ("quantum_config.cache", "maybe"),
    ("quantum_config.surprise", 1),
    ("surprise", 1),
]


def changed(place: str, value: Any) -> dict[str, Any]:
    """The request with every default, one place changed; `...` takes it out."""
    body = deepcopy(EVERY_DEFAULT)
    *parents, name = place.split(".")
    target = body
    for parent in parents:
        target = target[parent]
    if value is ...:
        del target[name]
    else:
        target[name] = value
    return body


def ask(client: httpx.Client, path: str = ROUTE, **parts: Mapping[str, Any]) -> dict[str, Any]:
    """Decide the standard prompt without exploration; keywords are the parts of the body. Must be answered."""
    body = {
        "request": {"prompt": PROMPT} | dict(parts.pop("request", {})),
        "quantum_config": {"explore": False, "timeout_ms": 1000} | dict(parts.pop("quantum_config", {})),
        **parts,
    }
    response = client.post(path, json=body)
    assert response.status_code == 200, response.text
    decision: dict[str, Any] = response.json()
    return decision


def ref_of(part: Mapping[str, Any]) -> str:
    return f"{part['provider']}/{part['model']}"


def problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The problem document of an error, which must have this status and code and hold no stack trace."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = response.json()
    assert {"type", "title", "status", "code", "detail"} <= document.keys()
    assert (document["status"], document["code"]) == (status, code)
    assert "Traceback" not in response.text
    assert ".py" not in document["detail"]
    return document
