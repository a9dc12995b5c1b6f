"""`monkey-coder learn`: the learner process."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from typing import Annotated, Final

import typer

from monkey_coder.quantum.learner_status import LearnerStatus
from monkey_coder.settings import Settings

_LAST_WORDS_S: Final = 5.0
"""How long a learner whose parent is gone may take to end: nothing is lost if it is cut off."""


def learn(
    once: Annotated[
        bool, typer.Option("--once", help="One cycle: read what there is, train if there is enough new, and end.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")] = False,
    least: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="New outcomes that are enough to train; default 200.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of all randomness.")] = 0,
    nice: Annotated[
        int, typer.Option(min=0, max=19, help="How far to yield to other processes; 19: run where others do not.")
    ] = 19,
    owner: Annotated[str | None, typer.Option(hidden=True)] = None,
    until_eof: Annotated[bool, typer.Option("--until-eof", hidden=True)] = False,
) -> None:
    """Learn from the outcomes in the store, and publish policies that are not worse than the one that serves.

    One learner of a deployment is active; others wait for its end. `serve` starts one, unless told --no-learn.
    """
    settings = Settings.from_environment(os.environ)
    stop = threading.Event()
    _end_when_told(stop)
    if until_eof:
        threading.Thread(target=_end_with_parent, args=(stop,), daemon=True).start()
    logging.basicConfig(level=logging.WARNING, format="learner: %(levelname)s: %(message)s")

    def tell(text: str) -> None:
        line = json.dumps({"at": time.time(), "said": text}) if as_json else f"learner: {text}"
        typer.echo(line, err=until_eof)

    yield_to_others(nice)
    from monkey_coder import learner  # torch takes seconds to import, and other commands do without it

    log_options = learner.log_options(least)
    murmur = _say_nothing if until_eof else tell
    with learner.open_workshop(settings, tell, murmur, stop, log_options, seed, idle=nice > 0) as workshop:
        status = learner.learn(workshop, owner or learner.owner_name(), once=once)
    if once and status is not None:
        typer.echo(status.model_dump_json() if as_json else f"learner: {in_words(status)}")


def in_words(status: LearnerStatus) -> str:
    """How it stands after a cycle: what was read, how far it is to the next training, and what serves."""
    counts = status.counts
    serves = "no policy is served" if status.policy is None else f"policy {status.policy} is served"
    waiting = f", {counts['waiting']:,} more wait for their decision" if counts.get("waiting") else ""
    return (
        f"{counts.get('outcomes', 0):,} outcomes of {counts.get('decisions', 0):,} decisions{waiting}; "
        f"{counts.get('fresh', 0):,} since the last training, the next one needs {counts.get('needed', 0):,}; {serves}"
    )


def _say_nothing(_: str) -> None:
    """What takes long is of interest to those who look, not to the log of a server."""


def yield_to_others(nice: int) -> None:
    """Give this process a low priority, 1 to 19 being the lowest: whoever routes goes first. 0 changes nothing."""
    os.nice(nice)
    if nice and hasattr(os, "SCHED_BATCH"):  # not on every system
        with suppress(OSError):  # nor in every sandbox
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def _end_when_told(stop: threading.Event) -> None:
    """End at the next step when signalled, and at once when signalled again: it may be killed at any moment."""

    def end(number: int, _: object) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)


def _end_with_parent(stop: threading.Event) -> None:
    """End when standard input does: its other end is the parent's, and goes with it however it dies."""
    while sys.stdin.buffer.read(1):
        pass
    stop.set()
    time.sleep(_LAST_WORDS_S)
    os._exit(0)
