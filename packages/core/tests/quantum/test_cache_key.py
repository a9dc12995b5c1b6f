"""Keys: the same for the same question however it is spelt, another one for whatever could change the decision."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from builders import CHEAP, DEAR, MIDDLE, SECRET, route_request, table
from caching import KEYRING
from hypothesis import given
from hypothesis import strategies as st

from monkey_coder.models import RouteRequest
from monkey_coder.quantum.budget_pacing import Pace
from monkey_coder.quantum.cache_key import DIGEST_BYTES, Keyring
from monkey_coder.quantum.snapshot import EngineSnapshot

FULL: dict[str, Any] = {
    "request": {
        "prompt": "Fix the race",
        "task_type": "debugging",
        "persona": "developer",
        "files": [{"path": "a.py", "chars": 10}],
        "preferred_providers": ["mid"],
        "allowed_models": ["mid/middle", "big/dear"],
        "excluded_models": ["tiny/cheap"],
        "requires": {"tools": True, "vision": False, "json_mode": False, "regions": ["eu"]},
        "input_tokens": 100,
        "expected_output_tokens": 50,
    },
    "preferences": {"quality": 0.6, "cost": 0.3, "latency": 0.1, "quality_floor": 0.5, "max_cost_usd": 1.0},
    "episode": {"episode_id": "e", "attempts": [{"model": "big/dear", "success": False, "cost_usd": 0.1}]},
    "quantum_config": {"strategies": ["balanced"], "collapse_strategy": "weighted", "timeout_ms": 50},
}

MATTERS: tuple[tuple[str, Any], ...] = (
    ("request.prompt", "Fix the race."),
    ("request.task_type", "testing"),
    ("request.persona", "tester"),
    ("request.files", []),
    ("request.preferred_providers", ["big"]),
    ("request.allowed_models", []),
    ("request.excluded_models", []),
    ("request.requires", {"tools": False, "regions": ["eu"]}),
    ("request.requires", {"tools": True, "regions": ["us"]}),
    ("request.input_tokens", 101),
    ("request.expected_output_tokens", None),
    ("preferences", {"quality": 0.7, "cost": 0.3, "latency": 0.1, "quality_floor": 0.5, "max_cost_usd": 1.0}),
    ("preferences", {"value_usd": 2.0, "quality_floor": 0.5, "max_cost_usd": 1.0}),
    ("preferences.quality_floor", 0.6),
    ("preferences.max_cost_usd", 2.0),
    ("episode.episode_id", None),
    ("episode.attempts", []),
    ("episode.attempts", [{"model": "big/dear", "success": True, "cost_usd": 0.1}]),
    ("quantum_config.strategies", None),
    ("quantum_config.collapse_strategy", "combined"),
    ("quantum_config.max_threads", 1),
    ("quantum_config.timeout_ms", 51),
)

MATTERS_NOT: tuple[tuple[str, Any], ...] = (
    ("quantum_config.cache", "refresh"),
    ("quantum_config.explore", False),
    ("episode.episode_id", "another"),
    ("episode.attempts", [{"model": "big/dear", "success": False, "cost_usd": 0.1, "decision_id": "d"}]),
    ("request.allowed_models", ["big/dear", "mid/middle", "big/dear"]),
    ("request.session_id", "s"),
)


def changed(place: str, value: Any) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(json.dumps(FULL))
    *path, last = place.split(".")
    part = body
    for name in path:
        part = part[name]
    part[last] = value
    return body


def digest(body: dict[str, Any], last: str | None = None, keyring: Keyring = KEYRING) -> bytes:
    return keyring.request(RouteRequest.model_validate_json(json.dumps(body)), last)


@pytest.mark.parametrize(("place", "value"), MATTERS)
def test_whatever_could_change_the_decision_changes_the_key(place: str, value: Any) -> None:
    assert digest(changed(place, value)) != digest(FULL)


@pytest.mark.parametrize(("place", "value"), MATTERS_NOT)
def test_what_cannot_change_the_decision_leaves_the_key(place: str, value: Any) -> None:
    assert digest(changed(place, value)) == digest(FULL)


def test_the_last_model_of_the_session_is_part_of_the_question() -> None:
    assert len({digest(FULL, last) for last in (None, "mid/middle", "big/dear")}) == 3


@given(st.randoms(use_true_random=False), st.sampled_from([None, 2, "\t"]))
def test_order_spelling_and_defaults_do_not_matter(random: Any, indent: Any) -> None:
    def shuffled(part: Any) -> Any:
        if not isinstance(part, dict):
            return part
        names = list(part)
        random.shuffle(names)
        return {name: shuffled(part[name]) for name in names}

    body = shuffled(FULL)
    body["quantum_config"] = {**body["quantum_config"], "max_threads": None, "explore": True}
    spelt = json.dumps(body, indent=indent, ensure_ascii=random.choice([True, False]))
    assert KEYRING.request(RouteRequest.model_validate_json(spelt), None) == digest(FULL)


@given(st.text(min_size=1), st.text(min_size=1))
def test_prompts_share_a_key_only_when_they_are_equal(first: str, second: str) -> None:
    keys = [KEYRING.request(route_request(prompt), None) for prompt in (first, second)]
    assert (keys[0] == keys[1]) == (first == second)
    assert all(len(key) == DIGEST_BYTES for key in keys)


def test_a_family_is_everything_but_the_prompt() -> None:
    one, other = route_request("a"), route_request("b")
    assert KEYRING.family(one, None) == KEYRING.family(other, None)
    assert KEYRING.family(one, None) != KEYRING.family(route_request("a", task_type="testing"), None)
    assert KEYRING.family(one, None) != KEYRING.request(one, None)


def test_another_secret_is_another_cache() -> None:
    other = Keyring("other", b"another secret, of 32 bytes also"[:32])
    assert digest(FULL, keyring=other) != digest(FULL)
    derived = Keyring.derived(SECRET)
    assert derived.secret != SECRET
    assert (derived.name, derived.secret) == (Keyring.derived(SECRET).name, Keyring.derived(SECRET).secret)
    assert derived.name != Keyring.derived(b"y" * 32).name


def test_a_key_ring_keeps_its_secret_out_of_logs_and_wants_a_real_one() -> None:
    assert repr(KEYRING) == "Keyring('test')"
    for name, secret in (("", SECRET), ("short", b"x" * 15), ("long", b"x" * 65)):
        with pytest.raises(ValueError, match="16 to 64 bytes"):
            Keyring(name, secret)


PACE = Pace(target_usd=1.0, cost_weight=2.0, optimism=1.0, balance_usd=0.0, spent_usd=1.0)
BEFORE = EngineSnapshot(table=table(), strategies={})


@pytest.mark.parametrize(
    "changes",
    [
        {"policy_version": 1},
        {"config_version": 2},
        {"collapse": "combined"},
        {"preferred_bonus": 0.1},
        {"max_attempts": 3},
        {"max_alternatives": 2},
        {"strategies": {"balanced": None}},
        {"table": table(CHEAP, MIDDLE)},
        {"table": table(CHEAP, MIDDLE, replace(DEAR, input_usd=2e-5))},
        {"table": table(CHEAP, MIDDLE, replace(DEAR, context_window=1000))},
        {"table": table(CHEAP, MIDDLE, replace(DEAR, regions=frozenset({"eu"})))},
        {"table": table(CHEAP, MIDDLE, replace(DEAR, can=frozenset({"tools"})))},
    ],
    ids=str,
)
def test_another_policy_catalog_or_configuration_is_another_generation(changes: dict[str, Any]) -> None:
    assert KEYRING.generation(replace(BEFORE, **changes)) != KEYRING.generation(BEFORE)


@pytest.mark.parametrize(
    "changes",
    [
        {"table": table(CHEAP, MIDDLE, replace(DEAR, success=0.1, evidence=500.0, latency_s=1.0))},
        {"table": table(CHEAP, MIDDLE, replace(DEAR, available=False))},
        {"reliability": {"balanced": 2.0}},
        {"epsilon": {}},
        {"pace": PACE},
    ],
    ids=str,
)
def test_what_outcomes_teach_stays_in_the_generation(changes: dict[str, Any]) -> None:
    assert KEYRING.generation(replace(BEFORE, **changes)) == KEYRING.generation(BEFORE)
