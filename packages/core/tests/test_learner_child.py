"""A child process that is kept running: started again when it ends, and gone when its keeper is."""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path

import pytest
from servers import eventually

from monkey_coder.learner_child import LearnerChild

ENDS = "import sys, pathlib; p = pathlib.Path(sys.argv[1]); p.write_text(p.read_text() + 'x'); sys.exit(3)"
STAYS = "import sys, pathlib, time; pathlib.Path(sys.argv[1]).write_text('here')\nwhile True: time.sleep(60)"
ENDS_WITH_INPUT = "import sys, pathlib; pathlib.Path(sys.argv[1]).write_text('here'); sys.stdin.read()"


def child(script: str, mark: Path, patience_s: float = 30.0) -> LearnerChild:
    mark.write_text("")
    return LearnerChild(time.monotonic, [sys.executable, "-c", script, str(mark)], 0.01, patience_s)


def test_one_that_ends_is_started_again_after_ever_longer_pauses(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = child(ENDS, tmp_path / "mark")
    kept.start()
    eventually(lambda: len((tmp_path / "mark").read_text()) >= 3)
    kept.close()
    assert "the learner ended with 3 and is started again" in caplog.text


def test_one_that_cannot_be_started_is_told_of_and_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        kept = LearnerChild(time.monotonic, ["/no/such/program"], 0.01)
        kept.start()
        eventually(lambda: "the learner cannot be started" in caplog.text)
        kept.close()


@pytest.mark.parametrize(("script", "patience_s"), [(ENDS_WITH_INPUT, 30.0), (STAYS, 0.1)])
def test_it_ends_with_its_keeper_willing_or_not(tmp_path: Path, script: str, patience_s: float) -> None:
    kept = child(script, tmp_path / "mark", patience_s)
    kept.start()
    eventually(lambda: (tmp_path / "mark").read_text() == "here")
    began = time.monotonic()
    kept.close()
    assert time.monotonic() - began < 20.0
    assert kept.running is False
