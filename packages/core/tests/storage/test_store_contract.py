"""What every store promises about decisions and outcomes, asked of each of them."""

from __future__ import annotations

import math
import threading
import time

import pytest

from monkey_coder.storage.port import BEGINNING, START, Appended, DecisionRow, OutcomeRow, Retention

DAY_S = 86_400.0
ANY_BYTES = bytes(range(256))


def report(decision="d", model="a/one", at=1.0, payload=b"good", outcome_id=None) -> OutcomeRow:
    return OutcomeRow(decision, model, at, payload, outcome_id)


def rows_of(streamed) -> list[OutcomeRow]:
    return [outcome.row for outcome in streamed]


def all_decisions(store, page) -> list[DecisionRow]:
    rows, place = [], BEGINNING
    while got := store.decisions(place, page):
        assert len(got) <= page
        rows += got
        place = got[-1].place
    return rows


# Decisions


def test_a_decision_is_readable_from_every_process(open_again) -> None:
    open_again().append_decisions([DecisionRow("d/1 ü{x}", 5.0, ANY_BYTES), DecisionRow("empty", 5.0, b"")])
    reader = open_again()
    assert reader.decision("d/1 ü{x}") == ANY_BYTES
    assert reader.decision("empty") == b""
    assert reader.decision("unknown") is None


def test_many_decisions_are_read_at_once_without_those_that_are_not_there(store) -> None:
    rows = [DecisionRow(f'd"{number}, ü', float(number), b"%d" % number) for number in range(1_200)]
    store.append_decisions(rows)
    assert store.decision_payloads([]) == {}
    asked = [row.id for row in rows[1:]] + ["unknown"]
    assert store.decision_payloads(asked) == {row.id: row.payload for row in rows[1:]}


def test_a_known_decision_stays_as_it_is(store) -> None:
    store.append_decisions([DecisionRow("d", 1.0, b"first")])
    store.append_decisions([DecisionRow("d", 2.0, b"second"), DecisionRow("e", 2.0, b"new")])
    assert all_decisions(store, 10) == [DecisionRow("d", 1.0, b"first"), DecisionRow("e", 2.0, b"new")]


@pytest.mark.parametrize("page", [1, 3, 1_000])
def test_iterates_by_time_and_id_even_where_many_share_a_time(store, page) -> None:
    rows = [DecisionRow(f"d{number % 7}-{number}", float(number // 10), b"%d" % number) for number in range(40)]
    store.append_decisions(rows)
    assert all_decisions(store, page) == sorted(rows, key=lambda row: row.place)


def test_iteration_starts_anywhere_in_time(store) -> None:
    rows = [DecisionRow(f"d{number}", float(number), b"") for number in range(5)]
    store.append_decisions(rows)
    assert store.decisions((2.0, ""), 10) == rows[2:]
    assert store.decisions((2.0, "d2"), 10) == rows[3:]
    assert store.decisions((2.0, "no such id"), 10) == rows[3:]
    assert store.decisions((9.0, ""), 10) == []


def test_recent_decisions_come_newest_first(store) -> None:
    rows = [DecisionRow(f"d{number}", float(number), b"") for number in range(5)]
    store.append_decisions(rows)
    assert store.recent_decisions(2.0, 10) == [rows[4], rows[3], rows[2]]
    assert store.recent_decisions(0.0, 2) == [rows[4], rows[3]]
    assert store.recent_decisions(9.0, 2) == []


@pytest.mark.parametrize("row", [DecisionRow("d", math.nan, b""), DecisionRow("\ud800", 1.0, b"")], ids=["nan", "text"])
def test_a_bulk_with_an_impossible_decision_is_refused_as_a_whole(store, row) -> None:
    with pytest.raises(ValueError):
        store.append_decisions([DecisionRow("fine", 1.0, b""), row])
    assert store.decision("fine") is None


def test_more_decisions_than_one_step_writes(store) -> None:
    rows = [DecisionRow(f"d{number:05}", float(number), b"x") for number in range(1_234)]
    store.append_decisions(rows)
    assert all_decisions(store, 500) == rows


# Outcomes


def test_outcomes_reach_every_reader_in_order(open_again) -> None:
    rows = [report(f"d{number}", payload=ANY_BYTES) for number in range(5)]
    assert open_again().append_outcomes(rows) == [Appended.NEW] * 5
    for reader in (open_again(), open_again()):
        first = reader.read_outcomes(START, 2)
        rest = reader.read_outcomes(first[-1].position, 10)
        assert rows_of([*first, *rest]) == rows
        assert reader.read_outcomes(rest[-1].position, 10) == []


def test_the_same_outcome_id_counts_once(open_again) -> None:
    first = report(at=1.0, outcome_id="once")
    again = [first, report(at=9.0, payload=b"bad", outcome_id="once"), report("other", outcome_id="once")]
    assert open_again().append_outcomes([first]) == [Appended.NEW]
    assert open_again().append_outcomes(again) == [Appended.DUPLICATE] * 3
    assert rows_of(open_again().read_outcomes(START, 10)) == [first]


def test_an_outcome_id_may_be_any_text(store) -> None:
    names = ["a", "a\0b", "a\0c", "\0", "", 'ü"\\%']
    rows = [report(outcome_id=name) for name in names]
    assert store.append_outcomes(rows) == [Appended.NEW] * len(rows)
    assert [store.append_outcomes([row])[0] for row in rows] == [Appended.DUPLICATE] * len(rows)
    assert rows_of(store.read_outcomes(START, 100)) == rows


def test_other_outcome_ids_and_models_are_other_outcomes(store) -> None:
    rows = [
        report(outcome_id="1"),
        report(outcome_id="2"),
        report(),
        report(model="b/two"),
        report("da", "/one"),
        report("d", "a/one2"),
    ]
    assert store.append_outcomes(rows) == [Appended.NEW] * len(rows)
    assert rows_of(store.read_outcomes(START, 10)) == rows


def test_a_later_report_replaces_the_earlier_and_says_which(store) -> None:
    first, second, third = report(at=1.0), report(at=2.0, payload=b"bad"), report(at=3.0, payload=b"good again")
    results = store.append_outcomes([first, second]) + store.append_outcomes([third])
    assert results == [Appended.NEW, Appended.REPLACED, Appended.REPLACED]
    streamed = store.read_outcomes(START, 10)
    assert [(outcome.row, outcome.replaces) for outcome in streamed] == [
        (first, None),
        (second, first),
        (third, second),
    ]
    assert store.outcomes_of("d") == [first, second, third]


def test_a_report_that_arrives_out_of_order_is_kept_but_does_not_count(store) -> None:
    newest, older, same_time = report(at=5.0), report(at=4.0, payload=b"bad"), report(at=5.0, payload=b"bad")
    assert store.append_outcomes([newest, older, same_time]) == [Appended.NEW, Appended.LATE, Appended.LATE]
    assert rows_of(store.read_outcomes(START, 1)) == [newest]
    assert rows_of(store.read_outcomes(START, 10)) == [newest]
    assert store.outcomes_of("d") == [newest, older, same_time]


def test_readers_get_past_reports_that_do_not_count(store) -> None:
    late = [report(at=-number, payload=b"late") for number in range(1, 30)]
    store.append_outcomes([report(), *late, report("next")])
    first = store.read_outcomes(START, 1)
    assert rows_of(store.read_outcomes(first[0].position, 1)) == [report("next")]


def test_the_very_same_report_again_changes_nothing(store) -> None:
    assert store.append_outcomes([report(), report()]) == [Appended.NEW, Appended.DUPLICATE]
    assert store.outcomes_of("d") == [report()]
    assert store.outcomes_of("unknown") == []


def test_times_of_reports_are_kept_to_the_last_bit(store) -> None:
    at = 1_762_345_678.123457
    store.append_outcomes([report(at=at)])
    assert store.append_outcomes([report(at=math.nextafter(at, 0), payload=b"bad")]) == [Appended.LATE]
    assert store.append_outcomes([report(at=math.nextafter(at, math.inf))]) == [Appended.REPLACED]
    assert store.read_outcomes(START, 1)[0].row.occurred_at == at


def test_an_impossible_outcome_is_refused(store) -> None:
    with pytest.raises(ValueError, match="finite"):
        report(at=math.inf)
    with pytest.raises(ValueError):
        store.append_outcomes([report(), report("\ud800")])
    assert store.read_outcomes(START, 10) == []


def test_more_outcomes_than_one_step_writes(store) -> None:
    rows = [report(f"d{number}") for number in range(1_100)]
    assert store.append_outcomes(rows) == [Appended.NEW] * len(rows)
    assert rows_of(store.read_outcomes(START, 2_000)) == rows


# Retention


def trim_all(store, now_s, max_rows=10) -> int:
    total = 0
    while removed := store.trim(now_s, max_rows):
        total += removed
    return total


def test_the_oldest_go_when_there_are_too_many(open_again) -> None:
    store = open_again(Retention(max_decisions=5, max_outcomes=4))
    now = time.time()
    decisions = [DecisionRow(f"d{number:02}", now + number, b"") for number in range(30)]
    outcomes = [report(f"d{number}") for number in range(20)]
    store.append_decisions(decisions)
    store.append_outcomes(outcomes)
    assert store.trim(now, max_rows=10) == 20
    assert trim_all(store, now) == 30 + 20 - 5 - 4 - 20
    assert all_decisions(store, 100) == decisions[-5:]
    assert rows_of(store.read_outcomes(START, 100)) == outcomes[-4:]
    assert store.decision("d00") is None
    assert store.outcomes_of("d0") == []


def test_what_is_too_old_goes(open_again) -> None:
    store = open_again(Retention(max_decision_age_s=10 * DAY_S, max_outcome_age_s=20 * DAY_S))
    now = time.time()
    store.append_decisions([DecisionRow("old", now - 11 * DAY_S, b""), DecisionRow("young", now - 9 * DAY_S, b"")])
    store.append_outcomes([report("d")])
    assert trim_all(store, now) == 1
    assert [row.id for row in all_decisions(store, 10)] == ["young"]
    assert trim_all(store, now + 19 * DAY_S) == 1
    assert rows_of(store.read_outcomes(START, 10)) == [report("d")]
    assert trim_all(store, now + 21 * DAY_S) == 1
    assert store.read_outcomes(START, 10) == []
    assert store.trim(now + 21 * DAY_S) == 0


def test_trimming_forgets_identities_of_what_went_and_no_others(open_again) -> None:
    store = open_again(Retention(max_outcomes=2))
    replaced, kept = report("d", at=1.0), report("d", at=2.0, payload=b"bad")
    store.append_outcomes([report("gone", outcome_id="gone"), replaced, kept, report("d", at=0.5)])
    assert trim_all(store, time.time()) == 2
    assert store.append_outcomes([report("d", at=1.5)]) == [Appended.LATE]
    assert store.append_outcomes([report("gone", outcome_id="gone")]) == [Appended.NEW]
    assert [row.occurred_at for row in store.outcomes_of("d")] == [2.0, 0.5, 1.5]


def test_two_that_trim_at_once_remove_nothing_twice(open_again) -> None:
    retention = Retention(max_decisions=300, max_outcomes=200)
    one = open_again(retention)
    now = time.time()
    one.append_decisions([DecisionRow(f"d{number}", now + number, b"") for number in range(1_000)])
    one.append_outcomes([report(f"d{number}") for number in range(1_000)])
    threads = [threading.Thread(target=trim_all, args=[open_again(retention), now, 50]) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(all_decisions(one, 1_000)) == 300
    assert len(one.read_outcomes(START, 1_000)) == 200


# All of it


def test_threads_share_one_store(store) -> None:
    def work(name) -> None:
        for number in range(25):
            store.append_decisions([DecisionRow(f"{name}-{number}", float(number), b"x")])
            store.append_outcomes([report(f"{name}-{number}")])
            assert store.decision(f"{name}-{number}") == b"x"

    threads = [threading.Thread(target=work, args=[name]) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(all_decisions(store, 1_000)) == 100
    assert len(store.read_outcomes(START, 1_000)) == 100


def test_a_healthy_store_answers(store) -> None:
    store.ping()
    assert list(store.warnings()) == []


def test_nothing_is_kept_twice_by_opening_again(open_again) -> None:
    open_again().append_outcomes([report()])
    assert open_again().append_outcomes([report()]) == [Appended.DUPLICATE]
