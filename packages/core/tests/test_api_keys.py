"""API keys as values: what is kept, how one is found, and whose preferences hold."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from monkey_coder.api_keys import RANKS, ROLES, ApiKey, KeyTable, LearnedValue, completed, new_key, settled
from monkey_coder.models import ExecuteRequest, Preferences, RouteRequest

LEARNED = LearnedValue(value_usd=0.5, low=0.2, high=0.9, choices=30, upgrades=20, explained=0.9)


def test_only_a_hash_of_a_key_is_kept_and_no_two_are_alike() -> None:
    made = [new_key("CI", "client", 0.0) for _ in range(100)]
    assert len({key for _, key in made}) == len({kept.id for kept, _ in made}) == 100
    for kept, key in made:
        secret = key.removeprefix(f"mk_{kept.id}_")
        assert len(secret) == 43  # 256 bits
        assert secret not in repr(kept)
        assert secret.encode() not in kept.encode()
        assert kept.digest == sha256(key.encode()).hexdigest()


def test_a_table_knows_good_keys_and_no_others() -> None:
    made = [new_key(role, role, 0.0) for role in ROLES]
    gone, gone_key = new_key("gone", "admin", 0.0)
    table = KeyTable.of([*(kept for kept, _ in made), gone.model_copy(update={"revoked_at": 1.0})])
    for (kept, key), role in zip(made, ROLES, strict=True):
        caller = table.find(key.encode())
        assert caller is not None
        assert (caller.id, caller.rank) == (kept.id, RANKS[role])
    for bad in (gone_key, "", made[0][1][:-1], made[0][0].digest, made[0][0].id):
        assert table.find(bad.encode()) is None
    assert gone_key not in repr(table)


@pytest.mark.parametrize(
    ("keys", "unreadable", "required"),
    [([], 0, False), ([new_key("x", "client", 0.0)[0].model_copy(update={"revoked_at": 1.0})], 0, True), ([], 1, True)],
)
def test_revoked_and_unreadable_keys_keep_the_door_closed(keys: list[ApiKey], unreadable: int, required: bool) -> None:
    assert KeyTable.of(keys, unreadable=unreadable).required == required


def test_a_scrape_token_requires_no_keys() -> None:
    table = KeyTable.of((), "a-scrape-token-of-ours")
    assert (table.required, table.scraped) == (False, True)
    scraper = table.find(b"a-scrape-token-of-ours")
    assert scraper is not None
    assert scraper.rank < RANKS["client"]


@pytest.mark.parametrize("name", ["", "x" * 101, "two\nlines", "\x1b[31mred"])
def test_a_name_is_one_short_printable_line(name: str) -> None:
    with pytest.raises(ValidationError):
        new_key(name, "client", 0.0)


# Preferences

_PARTS: dict[str, st.SearchStrategy[Any]] = {
    "quality": st.floats(0.1, 10.0),
    "cost": st.floats(0.0, 10.0),
    "latency": st.floats(0.0, 10.0),
    "quality_floor": st.none() | st.floats(0.0, 1.0),
    "max_cost_usd": st.none() | st.floats(0.0, 10.0),
}
_WEIGHED = st.fixed_dictionaries({}, optional=_PARTS)
_VALUED = st.fixed_dictionaries(
    {"value_usd": st.floats(0.01, 10.0)}, optional={name: _PARTS[name] for name in ("quality_floor", "max_cost_usd")}
)
_STATED = (_WEIGHED | _VALUED).map(lambda given: Preferences(**given))
WEIGHING = {"quality", "cost", "latency", "value_usd"}


@given(stated=_STATED, defaults=_STATED)
def test_each_part_comes_whole_from_the_request_or_from_the_key(stated: Preferences, defaults: Preferences) -> None:
    merged = completed(stated, defaults)
    for part in (WEIGHING, {"quality_floor"}, {"max_cost_usd"}):
        source = stated if stated.model_fields_set & part else defaults
        assert {name: getattr(merged, name) for name in part} == {name: getattr(source, name) for name in part}


@given(stated=_STATED)
def test_what_is_stored_of_a_key_comes_back_as_it_was(stated: Preferences) -> None:
    kept, _ = new_key("x", "client", 12.5, stated)
    assert ApiKey.model_validate_json(kept.encode()) == kept
    back = ApiKey.model_validate_json(kept.encode()).preferences
    assert back is not None
    assert back.model_fields_set == stated.model_fields_set  # what was left open stays open


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, Preferences(value_usd=0.2, quality_floor=0.6)),
        ({"preferences": {}}, Preferences(value_usd=0.2, quality_floor=0.6)),
        ({"preferences": {"max_cost_usd": 1.0}}, Preferences(value_usd=0.2, quality_floor=0.6, max_cost_usd=1.0)),
        ({"preferences": {"quality": 0.9}}, Preferences(quality=0.9, quality_floor=0.6)),
        ({"preferences": {"quality_floor": None}}, Preferences(value_usd=0.2, quality_floor=None)),
        ({"preferences": {"value_usd": None}}, Preferences(quality_floor=0.6)),
    ],
)
def test_a_request_states_what_it_wants_and_the_key_the_rest(body: dict[str, Any], expected: Preferences) -> None:
    request = RouteRequest.model_validate({"request": ExecuteRequest(prompt="x")} | body)
    got = settled(request, Preferences(value_usd=0.2, quality_floor=0.6))
    assert got.preferences == expected
    assert (got.request, got.episode) == (request.request, request.episode)


def test_what_was_learned_counts_only_where_it_is_turned_on_and_nothing_was_stated() -> None:
    kept, _ = new_key("x", "client", 0.0, Preferences(quality_floor=0.7))
    learned = kept.model_copy(update={"learned": LEARNED})
    assert learned.defaults == Preferences(quality_floor=0.7)
    on = learned.model_copy(update={"use_learned": True})
    assert on.defaults == Preferences(value_usd=0.5, quality_floor=0.7)
    assert on.model_copy(update={"preferences": None}).defaults == Preferences(value_usd=0.5)
    weighed = on.model_copy(update={"preferences": Preferences(quality=0.5, cost=0.5, latency=0.0)})
    assert weighed.defaults == Preferences(quality=0.5, cost=0.5, latency=0.0)
