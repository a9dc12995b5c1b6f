"""Requests that are remembered for warming: bounded, and never those of a session."""

from __future__ import annotations

from builders import route_request

from monkey_coder.quantum.cache_patterns import PatternMemory


def test_the_one_noted_longest_ago_goes_first() -> None:
    memory = PatternMemory(max_requests=2)
    requests = {name: route_request(name) for name in ("one", "two", "three")}
    memory.note(b"1", requests["one"])
    memory.note(b"2", requests["two"])
    memory.note(b"1", requests["one"])
    memory.note(b"3", requests["three"])
    assert memory.get(b"1") == requests["one"]
    assert memory.get(b"2") is None
    assert memory.get(b"3") == requests["three"]
    assert len(memory) == 2


def test_all_prompts_together_stay_within_their_bound() -> None:
    memory = PatternMemory(max_chars=1_000)
    for number in range(200):
        memory.note(str(number).encode(), route_request("x" * 10))
    assert memory.chars <= 1_000
    assert len(memory) == 100
    memory.clear()
    assert (len(memory), memory.chars) == (0, 0)


def test_long_prompts_and_those_of_sessions_are_not_remembered() -> None:
    memory = PatternMemory(max_chars=1_000)
    memory.note(b"long", route_request("x" * 11))
    memory.note(b"session", route_request("short", session_id="s"))
    assert len(memory) == 0
