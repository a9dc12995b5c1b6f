"""A person's wishes for a training run, as a small file: others write it, and the run looks at it between steps."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from monkey_coder.errors import SettingsError
from monkey_coder.ports import Clock
from monkey_coder.quantum.training_monitor import Overrides

CONTROL_FILE: Final = "training-control.json"
"""Its name in the state directory."""

POLL_S: Final = 0.5
"""How often a run looks at it, in seconds."""


def read_wishes(path: Path) -> Overrides:
    """Read the wishes; without a file there are none.

    Raises:
        SettingsError: The file is damaged, or a value is out of range.
    """
    try:
        return checked(Overrides(**json.loads(path.read_bytes())))
    except FileNotFoundError:
        return Overrides()
    except (OSError, TypeError, ValueError) as error:
        raise SettingsError(f"{path} cannot be read ({error}): delete it, and say again what you wish") from error


def write_wishes(path: Path, **changes: Any) -> Overrides:  # noqa: ANN401 - fields of Overrides
    """Change some wishes, in one step, and return all of them.

    Args:
        path: The file; it and its directory are made if they are missing.
        **changes: Fields of `Overrides`.

    Raises:
        SettingsError: A value is out of range, or the file is damaged.
    """
    wishes = checked(replace(read_wishes(path), **changes))
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}.part")
    draft.write_text(json.dumps(asdict(wishes)) + "\n")
    os.replace(draft, path)  # noqa: PTH105 (says what it does: one atomic step)
    return wishes


def checked(wishes: Overrides) -> Overrides:
    """Refuse wishes out of range.

    Raises:
        SettingsError: Which, and what it may be.
    """
    for name in ("paused", "stopped"):
        if not isinstance(getattr(wishes, name), bool):
            raise SettingsError(f"{name} is {getattr(wishes, name)!r}; it must be true or false")
    for name, most in (("learning_rate", 1.0), ("epsilon", 1.0)):
        value = getattr(wishes, name)
        if value is None:
            continue
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0.0 <= value <= most:
            raise SettingsError(f"{name} is {value!r}; it must lie in 0..{most:g}, or be null for the schedule's own")
    if wishes.learning_rate == 0.0:
        raise SettingsError("learning_rate is 0; it must be above 0: pause the run instead")
    return wishes


@dataclass
class FileControl:
    """Obeys a control file. A damaged file is reported once, and the wishes before it stay in force.

    Attributes:
        path: The file.
        clock: Monotonic seconds.
        sleep: Waits so many seconds.
        complain: Told what is wrong with the file.
    """

    path: Path
    clock: Clock
    sleep: Callable[[float], None]
    complain: Callable[[str], None]
    _now: Overrides = field(default_factory=Overrides)
    _next_look: float | None = None
    _trouble: str = ""

    def wait(self) -> Overrides:
        """Return the wishes of this moment, after waiting while the run is paused."""
        self._look()
        while self._now.paused and not self._now.stopped:
            self.sleep(POLL_S)
            self._look()
        return self._now

    def _look(self) -> None:
        now = self.clock()
        if self._next_look is not None and now < self._next_look:
            return
        self._next_look = now + POLL_S
        try:
            self._now, self._trouble = read_wishes(self.path), ""
        except SettingsError as error:
            if str(error) != self._trouble:
                self._trouble = str(error)
                self.complain(self._trouble)
