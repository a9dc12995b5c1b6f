"""The door of the cache: a stream of strangers must not pay for it, and one that repeats must not wait for it."""

from __future__ import annotations

from builders import Fixed, ask
from caching import house

from monkey_coder.quantum.cache_admission import SAMPLE, WINDOW, Admission


def test_a_stream_of_strangers_is_kept_out_until_requests_repeat() -> None:
    door, names = Admission(), [number.to_bytes(4) for number in range(40_000)]
    assert door.admit(names[:WINDOW], 0) == set(names[:WINDOW])
    strangers = door.admit(names[WINDOW : 2 * WINDOW], 0)
    assert len(strangers) == WINDOW // SAMPLE
    again = door.admit(names[WINDOW : WINDOW + 100], 0)
    assert again >= set(names[WINDOW : WINDOW + 100])
    door.admit(names[3 * WINDOW : 4 * WINDOW], 0)
    assert door.admit(names[5 * WINDOW : 6 * WINDOW], 0) == set(names[5 * WINDOW : 6 * WINDOW])  # open again


def test_hits_keep_the_door_open() -> None:
    door, names = Admission(), [number.to_bytes(4) for number in range(10 * WINDOW)]
    for part in range(5):
        batch = names[part * WINDOW : (part + 1) * WINDOW]
        assert door.admit(batch, hits=100 * (part + 1)) == set(batch)


def test_strangers_do_not_pile_up() -> None:
    door = Admission()
    door.open = False
    door.admit([number.to_bytes(4) for number in range(100_000)], 0)
    assert len(door._seen) + len(door._before) <= 40_000


def test_behind_a_closed_door_strangers_cost_no_entry_and_the_second_time_they_do() -> None:
    with house(Fixed("sure", [0.2, 0.8, 0.3])) as home:
        home.cache.admission.open = False
        assert [home.one(ask())["cache"] for _ in range(3)] == ["miss", "miss", "local"]
