"""What every store promises about policies, documents and leases, asked of each of them."""

from __future__ import annotations

import threading
import time

import pytest

from monkey_coder.storage.port import PolicyCard

ANY_BYTES = bytes(range(256))


# Policies


def test_policies_are_numbered_and_the_last_ten_are_kept(open_again) -> None:
    store = open_again()
    assert [store.put_policy(b"weights %d" % number, b"card %d" % number) for number in range(1, 13)] == [*range(1, 13)]
    assert [(card.number, card.card) for card in open_again().policies()] == [
        (number, b"card %d" % number) for number in range(3, 13)
    ]
    assert store.policy(2) is None
    assert store.policy(3) == b"weights 3"
    assert all(abs(card.time_s - time.time()) < 60 for card in store.policies())


def test_the_current_policy_is_changed_by_compare_and_set(open_again) -> None:
    one, other = open_again(), open_again()
    first, second = one.put_policy(ANY_BYTES, b""), one.put_policy(b"", b"")
    assert one.current_policy() is None
    assert one.set_current_policy(first, None)
    assert not other.set_current_policy(second, None)
    assert other.current_policy() == first
    assert other.set_current_policy(second, first)
    assert other.set_current_policy(None, second)
    assert one.current_policy() is None
    assert one.policy(first) == ANY_BYTES


def test_a_policy_that_is_not_kept_cannot_serve(store) -> None:
    with pytest.raises(ValueError, match="policy 7 is not kept"):
        store.set_current_policy(7, None)
    assert store.policies() == []


def test_the_policy_that_serves_outlives_the_last_ten(store) -> None:
    store.set_current_policy(store.put_policy(b"serving", b""), None)
    for _ in range(15):
        store.put_policy(b"challenger", b"")
    assert store.policy(1) == b"serving"
    assert [card.number for card in store.policies()] == [1, *range(7, 17)]
    assert isinstance(store.policies()[0], PolicyCard)


# Documents


def test_a_document_is_changed_by_compare_and_set(open_again) -> None:
    one, other = open_again(), open_again()
    assert one.put_document("breaker", "a", b"closed", 0)
    assert not other.put_document("breaker", "a", b"open", 0)
    assert other.put_document("breaker", "a", b"open", 1)
    assert not one.put_document("breaker", "a", b"half", 1)
    found = one.document("breaker", "a")
    assert found is not None
    assert (found.version, found.value) == (2, b"open")
    assert abs(found.time_s - time.time()) < 60
    assert not one.put_document("breaker", "new", b"", 3)
    assert one.document("breaker", "new") is None


def test_history_is_kept_as_long_as_asked(store) -> None:
    for version in range(6):
        assert store.put_document("configuration", "routing", b"%d" % version, version, keep=3)
    kept = [(old.version, old.value) for old in store.document_history("configuration", "routing")]
    assert kept == [(6, b"5"), (5, b"4"), (4, b"3"), (3, b"2")]
    assert store.document("configuration", "routing", 4) == store.document_history("configuration", "routing")[2]
    assert store.document("configuration", "routing", 6) == store.document("configuration", "routing")
    assert store.document("configuration", "routing", 2) is None
    assert store.put_document("configuration", "routing", b"6", 6)
    assert [old.version for old in store.document_history("configuration", "routing")] == [7]


def test_all_documents_of_a_kind_at_once(store) -> None:
    for kind, name in [("breaker", "b"), ("breaker", "a:1"), ("key", "b"), ("breaker:a", "1")]:
        store.put_document(kind, name, f"{kind} {name}".encode(), 0, keep=1)
    store.put_document("breaker", "b", b"newer", 1, keep=1)
    assert {name: found.value for name, found in store.documents("breaker").items()} == {
        "a:1": b"breaker a:1",
        "b": b"newer",
    }
    assert store.documents("unknown") == {}
    assert [old.version for old in store.document_history("breaker", "a:1")] == [1]
    assert store.document_history("breaker", "unknown") == []


def test_of_many_writers_at_once_each_change_is_made_once(open_again) -> None:
    def count(store) -> None:
        for _ in range(20):
            done = False
            while not done:
                found = store.document("counter", "n")
                version, value = (found.version, int(found.value)) if found else (0, 0)
                done = store.put_document("counter", "n", b"%d" % (value + 1), version)

    threads = [threading.Thread(target=count, args=[open_again()]) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert open_again().document("counter", "n").value == b"60"


# Leases


def test_a_lease_has_one_holder_until_it_ends(open_again) -> None:
    one, other = open_again(), open_again()
    assert one.acquire_lease("learner", "one", 60.0)
    assert one.acquire_lease("learner", "one", 60.0)
    assert not other.acquire_lease("learner", "other", 60.0)
    assert not other.renew_lease("learner", "other", 60.0)
    assert other.lease_owner("learner") == "one"
    assert one.renew_lease("learner", "one", 0.2)
    time.sleep(0.25)
    assert other.lease_owner("learner") is None
    assert not one.renew_lease("learner", "one", 60.0)
    assert other.acquire_lease("learner", "other", 60.0)
    assert not one.acquire_lease("learner", "one", 60.0)


def test_a_renewed_lease_holds_longer(store) -> None:
    for first_s in (0.2, 2.0, 20.0):
        assert store.acquire_lease("learner", "one", first_s)
        if store.renew_lease("learner", "one", 60.0):
            break  # or else the machine was so busy that the lease was over
    time.sleep(first_s + 0.05)
    assert store.lease_owner("learner") == "one"


def test_a_lease_is_given_back_by_its_holder_alone(store) -> None:
    store.acquire_lease("learner", "one", 60.0)
    store.release_lease("learner", "other")
    assert store.lease_owner("learner") == "one"
    store.release_lease("learner", "one")
    assert store.acquire_lease("learner", "other", 60.0)
    assert store.acquire_lease("another", "one", 60.0)
