"""The latest decisions are known by their ids, in bounded memory, however many models each of them is about."""

from __future__ import annotations

import pytest
from builders import Fixed, ask, engine

from monkey_coder.quantum.recent_decisions import RecentDecisions


@pytest.mark.parametrize(
    ("recent", "kept"),
    [(RecentDecisions(size=10), 10), (RecentDecisions(size=1_000, most_models=30), 10), (RecentDecisions(), 40)],
    ids=["decisions", "models", "unbounded"],
)
def test_the_oldest_go_when_there_are_too_many_decisions_or_too_many_models_in_them(
    recent: RecentDecisions, kept: int
) -> None:
    with engine(Fixed("only", [0.5, 0.4, 0.3]), listeners=[recent]) as manager:
        ids = [manager.decide([ask()])[0]["decision_id"] for _ in range(40)]  # of three models each
    known = [name for name in ids if recent.get(name) is not None]
    assert kept <= len(known) <= max(kept, kept * 11 // 10)
    assert known == ids[-len(known) :]
