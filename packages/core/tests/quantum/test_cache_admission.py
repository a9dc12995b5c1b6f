"""The door of the cache: a stream of strangers must not pay for it, and one that repeats must not wait for it."""

from __future__ import annotations

from builders import Fixed, ask
from caching import house
from hypothesis import given
from hypothesis import strategies as st

from monkey_coder.quantum.cache_admission import SAMPLE, WINDOW, Admission


def test_a_stream_of_strangers_is_kept_out_until_requests_repeat() -> None:
    door, names = Admission(), [number.to_bytes(4) for number in range(40_000)]
    assert door.admit(names[:WINDOW], 0) == set(names[:WINDOW])
    batches = [names[start : start + 16] for start in range(WINDOW, 2 * WINDOW, 16)]
    strangers = [len(door.admit(batch, 0)) for batch in batches]
    assert set(strangers) == {0, 16}  # all of a batch, or none
    assert sum(strangers) == WINDOW // SAMPLE
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
    for start in range(0, 100_000, 50):
        door.admit([number.to_bytes(4) for number in range(start, start + 50)], 0)
    assert len(door._seen) + len(door._before) <= 40_000


def test_behind_a_closed_door_strangers_cost_no_entry_and_the_second_time_they_do() -> None:
    with house(Fixed("sure", [0.2, 0.8, 0.3])) as home:
        home.cache.admission.open = False
        assert [home.one(ask())["cache"] for _ in range(3)] == ["miss", "miss", "local"]


@given(sizes=st.lists(st.integers(1, 128), min_size=50, max_size=200))
def test_the_share_of_strangers_that_is_let_in_does_not_depend_on_how_they_come(sizes: list[int]) -> None:
    door, met, admitted = Admission(), 0, 0
    door.open = False
    for size in sizes:
        admitted += len(door.admit([number.to_bytes(4) for number in range(met, met + size)], hits=-(10**9)))
        met += size
    assert abs(admitted - met / SAMPLE) <= 128
