"""Entries: they come back from bytes as they were, or not at all; and they stand as long as what they rest on."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import orjson
import pytest
from builders import CHEAP, DEAR, MIDDLE, SECRET, Model, table
from caching import KEYRING, entry
from hypothesis import example, given
from hypothesis import strategies as st

from monkey_coder.quantum.cache_entry import (
    MOST_DRIFT,
    MOST_INFLATION,
    BadEntryError,
    CachedDecision,
    answer_json,
    decode,
    encode,
)
from monkey_coder.quantum.cache_key import KEY_BYTES, Keyring

KEY = b"k" * KEY_BYTES
PAYLOAD = encode(entry(), KEY, KEYRING)
NOT_TOLD = {"hits", "of_other", "stood"}


def known(made: CachedDecision) -> dict[str, Any]:
    values = {field.name: getattr(made, field.name) for field in fields(made) if field.name not in NOT_TOLD}
    return values | {"prior": made.prior.tolist()}


def flaw(payload: bytes, key: bytes = KEY, keyring: Keyring = KEYRING) -> str:
    with pytest.raises(BadEntryError) as caught:
        decode(payload, key, keyring)
    return caught.value.flaw


@given(
    st.builds(
        entry,
        origin=st.text(max_size=40),
        margin=st.floats(0.0, 1.0),
        agreement=st.floats(0.0, 1.0),
        policy_version=st.none() | st.integers(1, 1000),
        unavailable=st.lists(st.text(max_size=20)).map(tuple),
        confirmed=st.integers(0, 1000),
        padding=st.integers(0, 2000),
    )
)
def test_an_entry_survives_its_bytes(made: CachedDecision) -> None:
    assert known(decode(encode(made, KEY, KEYRING), KEY, KEYRING)) == known(made)


@given(st.data())
def test_no_damaged_bytes_are_taken_for_an_entry(data: st.DataObject) -> None:
    payload = bytearray(PAYLOAD)
    how = data.draw(st.sampled_from(["flip", "cut", "grow", "noise"]))
    place = data.draw(st.integers(0, len(payload) - 1))
    if how == "flip":
        payload[place] ^= 1 << data.draw(st.integers(0, 7))
    elif how == "cut":
        del payload[place:]
    elif how == "grow":
        payload += data.draw(st.binary(min_size=1, max_size=50))
    else:
        payload = bytearray(data.draw(st.binary(max_size=300)))
    assert flaw(bytes(payload)) in {"foreign", "future", "truncated", "corrupt"}


@given(st.binary(max_size=200))
@example(b"QRC\x01" + bytes(60))
def test_bytes_that_begin_like_an_entry_are_none(noise: bytes) -> None:
    assert flaw(PAYLOAD[:4] + noise) in {"foreign", "truncated", "corrupt"}


def test_what_is_wrong_is_named() -> None:
    assert flaw(b"") == flaw(b"something else that is long enough to be an entry ......") == "foreign"
    assert flaw(PAYLOAD[:20]) == flaw(PAYLOAD[:-1]) == "truncated"
    assert flaw(PAYLOAD[:3] + bytes([99]) + PAYLOAD[4:]) == "future"
    assert flaw(PAYLOAD, keyring=Keyring("newer", SECRET)) == "foreign"
    assert flaw(PAYLOAD, keyring=Keyring("test", b"another secret" * 2)) == "corrupt"
    assert flaw(PAYLOAD, key=b"l" * KEY_BYTES) == "corrupt"  # put under another key by somebody


def test_a_header_that_is_signed_but_not_ours_is_no_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monkey_coder.quantum.cache_entry._TOLD", ("origin",))
    assert flaw(encode(entry(), KEY, KEYRING)) == "corrupt"


def test_an_answer_is_made_whole_again() -> None:
    answer = orjson.loads(answer_json(entry(), "d1", None, "redis", ("store",), 0.0204))
    own = {"decision_id": "d1", "episode_id": "d1", "cache": "redis", "degraded": ["store"]}
    assert answer == orjson.loads(entry().answer) | own | {"execution_time_ms": 0.02, "propensity": 1.0}
    assert orjson.loads(answer_json(entry(), "d", 'e"\n', "local", (), 0.0))["episode_id"] == 'e"\n'
    assert orjson.loads(answer_json(entry(), "d", None, "miss", (), 0.0, 0.98))["propensity"] == 0.98


def models(*changed: Model) -> Any:
    known_ones = {model.ref: model for model in (CHEAP, MIDDLE, DEAR)} | {model.ref: model for model in changed}
    return table(*known_ones.values())


def test_an_entry_stands_while_nothing_has_changed() -> None:
    made = entry()
    assert made.fitted(models(), 0.0) is made
    assert made.fitted(models(replace(CHEAP, success=0.4 + MOST_DRIFT * 3)), 0.0) is made  # nobody tells of that one


@pytest.mark.parametrize(
    ("made", "changed", "price"),
    [
        (entry(), (replace(MIDDLE, available=False),), 0.0),
        (entry(unavailable=("tiny/cheap",), had="011"), (), 0.0),
        (entry(unavailable=("gone/away",)), (), 0.0),
        (entry(), (replace(CHEAP, success=0.4 + 0.11),), 0.0),
        (entry(), (replace(DEAR, success=0.9 + 2 * MOST_DRIFT),), 0.0),
        (entry(), (replace(MIDDLE, success=0.6 - 2 * MOST_DRIFT),), 0.0),
        (entry(margin=0.001), (replace(CHEAP, success=0.41),), 0.0),
        (entry(price=2.0), (), 2.0 * (1.0 + 1.1 * MOST_INFLATION)),
        (entry(price=2.0), (), 0.0),
        (entry(), (), 0.1),
        (entry(ref="gone/away"), (), 0.0),
        (entry(prior=np.zeros(2, dtype=np.float32)), (), 0.0),
    ],
    ids=range(12),
)
def test_an_entry_falls_with_what_it_rests_on(made: CachedDecision, changed: tuple[Model, ...], price: float) -> None:
    assert made.fitted(models(*changed), price) is None


def test_a_runner_up_that_cannot_be_had_leaves_the_chain() -> None:
    fitted = entry().fitted(models(replace(DEAR, available=False)), 0.0)
    assert fitted is not None
    answer = orjson.loads(fitted.answer)
    assert (answer["alternatives"], fitted.alternatives) == ([], ())
    assert [(each["model"], each["reason"]) for each in answer["excluded"]] == [("big/dear", "unavailable")]
    assert fitted.fitted(models(), 0.0) is None  # it is back, and was never compared
    assert fitted.fitted(models(replace(DEAR, available=False)), 0.0) is fitted


def test_what_was_excluded_for_another_reason_stays_so() -> None:
    told = {"model": "big/dear", "reason": "budget", "detail": "..."}
    answer = orjson.dumps(orjson.loads(entry().answer) | {"alternatives": [], "excluded": [told]})
    fitted = entry(answer=answer, alternatives=()).fitted(models(replace(DEAR, available=False)), 0.0)
    assert fitted is not None
    assert orjson.loads(fitted.answer)["excluded"] == [told]
    assert fitted.unavailable == ()
