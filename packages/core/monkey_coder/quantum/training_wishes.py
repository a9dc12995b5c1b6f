"""A person's wishes for training, as a document in the store: anybody writes them, and every run looks between steps.

They hold for the learner and for `monkey-coder train` alike, on whatever host they run.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

from monkey_coder.errors import RouterError, SettingsError, StoreUnavailableError
from monkey_coder.ports import Clock
from monkey_coder.quantum.training_monitor import Overrides
from monkey_coder.storage.port import Documents

POLL_S: Final = 0.5
"""How often a run looks, in seconds."""

_KIND: Final = "training"
_NAME: Final = "wishes"
_TRIES: Final = 20


def read_wishes(store: Documents) -> Overrides:
    """Read the wishes; without a document there are none.

    Raises:
        SettingsError: The document is damaged, or a value is out of range.
        StoreUnavailableError: The store does not answer.
    """
    return _read(store)[1]


def write_wishes(store: Documents, **changes: Any) -> Overrides:  # noqa: ANN401 - fields of Overrides
    """Change some wishes, in one step, and return all of them.

    Args:
        store: Of the deployment.
        **changes: Fields of `Overrides`.

    Raises:
        SettingsError: A value is out of range.
        StoreUnavailableError: The store does not answer.
    """
    for _ in range(_TRIES):
        try:
            version, now = _read(store)
        except SettingsError:  # whoever says what they wish mends it
            found = store.document(_KIND, _NAME)
            version, now = 0 if found is None else found.version, Overrides()
        wishes = checked(replace(now, **changes))
        if wishes == now and version:
            return now
        if store.put_document(_KIND, _NAME, json.dumps(asdict(wishes)).encode(), version):
            return wishes
    raise StoreUnavailableError("others keep changing the wishes for training; try again")


def _read(store: Documents) -> tuple[int, Overrides]:
    found = store.document(_KIND, _NAME)
    if found is None:
        return 0, Overrides()
    try:
        return found.version, checked(Overrides(**json.loads(found.value)))
    except (TypeError, ValueError) as error:
        raise SettingsError(
            f"the wishes for training cannot be read ({error}): say again what you wish, for example with "
            "`monkey-coder policy resume`"
        ) from error


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
class WishControl:
    """Obeys the wishes. Trouble with them is reported once, and those before it stay in force.

    Attributes:
        store: Where they are.
        clock: Monotonic seconds.
        sleep: Waits so many seconds; may raise to end the run.
        complain: Told what is wrong.
    """

    store: Documents
    clock: Clock
    sleep: Callable[[float], None]
    complain: Callable[[str], None]
    _now: Overrides = field(default_factory=Overrides)
    _next_look: float | None = None
    _trouble: str = ""

    def wait(self) -> Overrides:
        """Return the wishes of this moment, after waiting while the run is paused."""
        self.look()
        while self._now.paused and not self._now.stopped:
            self.sleep(POLL_S)
            self.look()
        return self._now

    def look(self) -> Overrides:
        """Return the wishes of this moment, at once."""
        now = self.clock()
        if self._next_look is not None and now < self._next_look:
            return self._now
        self._next_look = now + POLL_S
        try:
            self._now, self._trouble = read_wishes(self.store), ""
        except RouterError as error:
            if str(error) != self._trouble:
                self._trouble = str(error)
                self.complain(self._trouble)
        return self._now
