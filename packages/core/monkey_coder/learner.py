"""The learner process: its composition root, and who may be active. Beside `train` the only way to torch.

One learner of a deployment is active, by a lease; the others wait. What a learner knows is a function of the outcomes
in the store, so one that is killed at any moment is replaced by one that reads them again and knows the same.
"""

from __future__ import annotations

import os
import platform
import secrets
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

from monkey_coder.catalog.catalog import load_catalog
from monkey_coder.catalog.table import ModelTable
from monkey_coder.errors import LearnerActiveError, StoreUnavailableError
from monkey_coder.heartbeat import LEASE, Heartbeat, LeaseLostError
from monkey_coder.learning import Learning, StoppedError, Tell, Workshop
from monkey_coder.live_catalog import stored_catalog
from monkey_coder.policies import open_shelf
from monkey_coder.quantum.learner_status import LearnerStatus
from monkey_coder.quantum.log_training import LogOptions, LogTrainer
from monkey_coder.settings import Settings


@contextmanager
def open_workshop(
    settings: Settings, tell: Tell, murmur: Tell, stop: threading.Event, options: LogOptions, seed: int, *, idle: bool
) -> Iterator[Workshop]:
    """Build everything that the learner needs, and close it in the end.

    Args:
        settings: From the environment.
        tell: Told what happens.
        murmur: Told how far something is that takes long.
        stop: Set when the process shall end.
        options: How to learn.
        seed: Of all randomness.
        idle: Whether to train only where nothing else runs, if the system can do that.

    Raises:
        CatalogError: The catalog cannot be used.
        StoreFormatError: What is stored is damaged or foreign.
        StoreUnavailableError: The store cannot be opened.
    """
    _one_thread()
    catalog = load_catalog(settings.catalog)
    with (
        open_shelf(settings, None) as (store, _),
        # One thread for arithmetic: who holds a lock of the store must not be kept waiting by whoever routes.
        ThreadPoolExecutor(1, "training", initializer=_only_where_nothing_else_runs if idle else None) as aside,
    ):

        def table() -> ModelTable:
            return stored_catalog(store, catalog)[0].catalog.table()

        def make_trainer() -> LogTrainer:
            return LogTrainer(table(), options, seed, time.time)

        yield Workshop(store, make_trainer, table, tell, stop, time.time, time.monotonic, aside=aside, murmur=murmur)


def learn(workshop: Workshop, owner: str, *, once: bool = False) -> LearnerStatus | None:
    """Learn until told to stop, or for one cycle; while another learner is active, wait.

    Args:
        workshop: With all that is needed.
        owner: Name of this process.
        once: Read what there is, train if there is enough new, judge, and return.

    Returns:
        How it stood in the end; None if this process never was the active learner.

    Raises:
        LearnerActiveError: `once`, and another learner is active.
        StoreUnavailableError: `once`, and the store does not answer.
    """
    last, said = None, ""
    while not workshop.stop.is_set():
        try:
            heart = Heartbeat(workshop.store, owner, workshop.now, workshop.clock)
            if heart.acquire():
                said = ""
                with heart, suppress(StoppedError):
                    Learning(workshop, heart).run(once=once)
                last = heart.status
                if once:
                    break
            else:
                other = workshop.store.lease_owner(LEASE)
                if once:
                    raise LearnerActiveError(f"{other} is the active learner of this deployment; end it first")
                said = _told(workshop, f"waiting: {other} is the active learner", said)
        except LeaseLostError:
            workshop.tell("another learner has taken over")
        except StoreUnavailableError as error:
            if once:
                raise
            said = _told(workshop, f"the store cannot be used just now: {error}", said)
        workshop.stop.wait(workshop.options.look_s)
    return last


def _told(workshop: Workshop, text: str, before: str) -> str:
    """Tell something, unless it was the last thing told."""
    if text != before:
        workshop.tell(text)
    return text


def log_options(least: int | None) -> LogOptions:
    """How to learn; `least` new outcomes are enough to train, where it is given."""
    return LogOptions() if least is None else LogOptions(least_new=least)


def owner_name() -> str:
    """A name that no other process has: host, process and a random part."""
    return f"{platform.node()}:{os.getpid()}:{secrets.token_hex(4)}"


def _only_where_nothing_else_runs() -> None:
    """Put the calling thread into the system's idle class, where there is one."""
    if hasattr(os, "SCHED_IDLE"):
        with suppress(OSError):  # not in every sandbox
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def _one_thread() -> None:
    """Keep torch from starting threads that would take turns with each other on cores that others need."""
    import torch

    torch.set_num_threads(1)
    with suppress(RuntimeError):  # too late once torch has used its threads
        torch.set_num_interop_threads(1)
