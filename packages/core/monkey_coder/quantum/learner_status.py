"""What the learner says of itself: one document in the store, for every process that asks, and for people."""

from __future__ import annotations

import logging
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from monkey_coder.storage.port import Documents

Doing = Literal["reading", "idle", "training", "judging", "paused", "ended"]

SILENT_AFTER_S: Final = 60.0
"""A learner that said nothing for so long is taken for gone. It speaks every two seconds, but yields to others."""
VERDICTS_KEPT: Final = 20

_KIND: Final = "learner"
_STATUS: Final = "status"
_log = logging.getLogger(__name__)


class TrainingRun(BaseModel):
    """How the last training went.

    Attributes:
        ended_at: Seconds since 1970.
        seconds: How long it took.
        tasks: Episodes that it learned from.
        outcomes: Outcomes in them.
        loss: Of the value network at its last step; None where there was none.
        note: How it ended, in words.
    """

    model_config = ConfigDict(frozen=True)

    ended_at: float
    seconds: float
    tasks: int = 0
    outcomes: int = 0
    loss: float | None = None
    note: str = ""


class VerdictTold(BaseModel):
    """What became of a trained policy.

    Attributes:
        at: Seconds since 1970.
        publish: Whether it was found fit to serve.
        policy: Its number, if it serves from then on.
        against: Number of the policy that it was compared with; None: with no policy.
        reason: In one sentence.
        figures: The estimates, as JSON values.
    """

    model_config = ConfigDict(frozen=True)

    at: float
    publish: bool
    policy: int | None = None
    against: int | None = None
    reason: str = ""
    figures: dict[str, Any] = {}


class LearnerStatus(BaseModel):
    """The learner at one moment.

    Attributes:
        owner: Host, process and a random part.
        doing: What it is at.
        note: More of that, in words.
        started_at: Seconds since 1970.
        heartbeat_at: When this was said.
        position: Of the newest outcome that it has taken in.
        lag_s: Age of the newest outcome that it has taken in while there are others; 0 when there is none.
        counts: Outcomes, decisions and episodes so far, those that wait, and how many the next training needs.
        policy: Number of the policy that serves; None: none.
        guard: How the policy that serves does live, against the one before it.
        training: The last training.
        verdicts: The latest verdicts, oldest first.
    """

    model_config = ConfigDict(frozen=True)

    owner: str
    doing: Doing = "reading"
    note: str = ""
    started_at: float
    heartbeat_at: float
    position: str = ""
    lag_s: float = 0.0
    counts: dict[str, Any] = {}
    policy: int | None = None
    guard: dict[str, Any] = {}
    training: TrainingRun | None = None
    verdicts: tuple[VerdictTold, ...] = ()

    def alive(self, now: float) -> bool:
        """Whether it spoke lately, and did not say that it ends."""
        return self.doing != "ended" and now - self.heartbeat_at < SILENT_AFTER_S

    def lost(self, now: float) -> bool:
        """Whether it went silent without saying that it ends."""
        return self.doing != "ended" and not self.alive(now)


def read_status(store: Documents) -> LearnerStatus | None:
    """What the learner said last; None where none ever ran, or another release's did.

    Raises:
        StoreUnavailableError: The store does not answer.
    """
    found = store.document(_KIND, _STATUS)
    if found is None:
        return None
    try:
        return LearnerStatus.model_validate_json(found.value)
    except ValidationError as error:
        _log.warning("the status of the learner cannot be read: %s", error)
        return None


class StatusBoard:
    """Where one learner writes its status. One thread at a time.

    Args:
        store: Of the deployment.
    """

    def __init__(self, store: Documents) -> None:
        self._store = store
        self._version: int | None = None

    def write(self, status: LearnerStatus) -> bool:
        """Replace the status; False when another learner has written since, and nothing was changed.

        Raises:
            StoreUnavailableError: The store does not answer.
        """
        if self._version is None:
            found = self._store.document(_KIND, _STATUS)
            self._version = 0 if found is None else found.version
        if self._store.put_document(_KIND, _STATUS, status.model_dump_json().encode(), self._version):
            self._version += 1
            return True
        self._version = None
        return False
