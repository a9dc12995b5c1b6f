"""Numbered policies and which of them serves: on the shelf of a deployment's store, or in a directory of one's own.

Every process of a deployment looks at the store's shelf, on whatever host it runs. A directory is for policies that are
tried out beside it (`--out`).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Protocol

from typing_extensions import override

from monkey_coder.errors import NoEarlierPolicyError, PolicyError, StoreUnavailableError, UnknownPolicyError
from monkey_coder.quantum import policy_bundle as bundles
from monkey_coder.quantum.policy_blob import pack, unpack
from monkey_coder.quantum.policy_bundle import PolicyBundle, read_json
from monkey_coder.storage.port import Store

SWITCHES_KEPT: Final = 50
"""Latest changes of the serving policy that are remembered with their reasons."""

_KIND: Final = "policies"
_HISTORY: Final = "history"
_TRIES: Final = 20
"""Times that a change is made while others make one, too."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Said:
    """Who changes the serving policy, and why.

    Attributes:
        by: `train`, `learner`, `operator` or `regression`.
        why: In words.
    """

    by: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class Switch:
    """One change of the serving policy.

    Attributes:
        policy: Number of the one that serves from then on; None: none.
        at: Seconds since 1970.
        by: Who changed it.
        why: In words.
    """

    policy: int | None
    at: float
    by: str
    why: str


class Shelf(Protocol):
    """Policies by number. The numbers rise, and none is used twice."""

    @property
    def where(self) -> str:
        """What messages call it."""
        ...

    def numbers(self) -> tuple[int, ...]:
        """The numbers of all policies that are kept, ascending."""
        ...

    def current(self) -> int | None:
        """The number of the policy that serves; None while there is none."""
        ...

    def card(self, number: int) -> Mapping[str, Any]:
        """A policy's model card.

        Raises:
            PolicyError: There is no such policy, or its card is damaged.
        """
        ...

    def files(self, number: int) -> Mapping[str, bytes]:
        """All files of a policy, by name.

        Raises:
            PolicyError: There is no such policy, or it is damaged.
        """
        ...

    def load(self, number: int) -> PolicyBundle:
        """Read a policy, checking all of it.

        Raises:
            PolicyError: There is no such policy, or it cannot be used.
        """
        ...

    def put(self, bundle: PolicyBundle, files: Mapping[str, bytes]) -> int:
        """Keep a policy, drop the oldest beyond the bound, and return its number; it does not serve yet."""
        ...

    def set_current(self, number: int, said: Said) -> None:
        """Let a policy serve.

        Raises:
            PolicyError: There is no such policy.
        """
        ...

    def rollback(self, said: Said) -> int:
        """Go back to the policy that served before the current one, and return its number.

        Raises:
            NoEarlierPolicyError: None did, or none of those is kept any more.
        """
        ...


class DirectoryShelf(Shelf):
    """A directory of policies; see `policy_bundle` for its layout.

    Args:
        root: The directory; it need not exist.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    @override
    def where(self) -> str:
        return str(self._root)

    @override
    def numbers(self) -> tuple[int, ...]:
        return bundles.numbers(self._root)

    @override
    def current(self) -> int | None:
        return bundles.current(self._root)

    @override
    def card(self, number: int) -> Mapping[str, Any]:
        path = bundles.directory_of(self._root, number) / bundles.CARD
        try:
            return read_json(path.read_bytes(), str(path))
        except OSError as error:
            raise PolicyError(f"{path} cannot be read ({error}): restore it, or delete the policy") from error

    @override
    def files(self, number: int) -> Mapping[str, bytes]:
        return {each.name: each.read_bytes() for each in bundles.directory_of(self._root, number).iterdir()}

    @override
    def load(self, number: int) -> PolicyBundle:
        return bundles.load_policy(self._root, number)

    @override
    def put(self, bundle: PolicyBundle, files: Mapping[str, bytes]) -> int:
        return bundles.publish(self._root, bundle, files, make_current=False)

    @override
    def set_current(self, number: int, said: Said) -> None:
        bundles.set_current(self._root, number)

    @override
    def rollback(self, said: Said) -> int:
        return bundles.rollback(self._root)


class StoreShelf(Shelf):
    """The policies of a deployment. Its methods may wait for the store, and raise as it does.

    Args:
        store: Where they are.
        wall_clock: Seconds since 1970.
    """

    def __init__(self, store: Store, wall_clock: Callable[[], float]) -> None:
        self._store = store
        self._now = wall_clock

    @property
    @override
    def where(self) -> str:
        return "the store of this deployment"

    @override
    def numbers(self) -> tuple[int, ...]:
        return tuple(each.number for each in self._store.policies())

    @override
    def current(self) -> int | None:
        return self._store.current_policy()

    @override
    def card(self, number: int) -> Mapping[str, Any]:
        for each in self._store.policies():
            if each.number == number:
                return read_json(each.card, f"the card of policy {number}")
        raise self._absent(number)

    def cards(self) -> Mapping[int, Mapping[str, Any]]:
        """The cards of all policies, by number; of a damaged one {}."""
        found: dict[int, Mapping[str, Any]] = {}
        for each in self._store.policies():
            try:
                found[each.number] = read_json(each.card, f"the card of policy {each.number}")
            except PolicyError as error:
                _log.warning("%s", error)
                found[each.number] = {}
        return found

    @override
    def files(self, number: int) -> Mapping[str, bytes]:
        blob = self._store.policy(number)
        if blob is None:
            raise self._absent(number)
        return unpack(blob, f"policy {number}")

    @override
    def load(self, number: int) -> PolicyBundle:
        files = self.files(number)
        with TemporaryDirectory(prefix="policy-") as scratch:
            directory = bundles.place_of(Path(scratch), number)
            directory.mkdir()
            for name, content in files.items():
                (directory / name).write_bytes(content)
            try:
                return PolicyBundle.load(directory)
            except PolicyError as error:  # of a place that nobody finds there afterwards
                raise PolicyError(str(error).replace(str(directory), f"policy {number}")) from error

    @override
    def put(self, bundle: PolicyBundle, files: Mapping[str, bytes]) -> int:
        with TemporaryDirectory(prefix="policy-") as scratch:
            draft = Path(scratch)
            bundles.write(draft, bundle, files)
            content = {each.name: each.read_bytes() for each in draft.iterdir()}
        return self._store.put_policy(pack(content), content[bundles.CARD])

    @override
    def set_current(self, number: int, said: Said) -> None:
        for _ in range(_TRIES):
            if self.switch(number, self._store.current_policy(), said):
                return
        raise _contended()

    def switch(self, number: int | None, expected: int | None, said: Said) -> bool:
        """Let a policy serve (or none) in the place of the expected one; False when another one serves by now.

        Raises:
            PolicyError: There is no such policy.
        """
        if number == expected:
            return self._store.current_policy() == expected
        return self._step(number, expected, said, lambda served: [*served, number])

    @override
    def rollback(self, said: Said) -> int:
        for _ in range(_TRIES):
            now = self._store.current_policy()
            stack, target = self._earlier(now)
            if target is None:
                raise NoEarlierPolicyError(
                    "there is no earlier policy to go back to: choose one with `policy set NUMBER`, or do without one "
                    "with `policy rollback --to none`"
                )
            if self._step(target, now, said, partial(_always, stack)):
                return target
        raise _contended()

    def withdraw(self, said: Said) -> None:
        """Let no policy serve; `rollback` brings the present one back."""
        for _ in range(_TRIES):
            if self.switch(None, self._store.current_policy(), said):
                return
        raise _contended()

    def before(self) -> int | None:
        """The number of the policy that `undo` would go back to; None: to no policy."""
        return self._earlier(self._store.current_policy())[1]

    def undo(self, number: int, said: Said) -> bool:
        """Go back from a policy to the one before it, or to none; False when another one serves by now."""
        stack, target = self._earlier(number)
        return self._step(target, number, said, partial(_always, stack))

    def switches(self) -> Sequence[Switch]:
        """The latest changes of the serving policy, oldest first."""
        return [Switch(**each) for each in self._history()[1]["switches"]]

    def _step(
        self,
        number: int | None,
        expected: int | None,
        said: Said,
        change: Callable[[list[int | None]], list[int | None]],
    ) -> bool:
        try:
            if not self._store.set_current_policy(number, expected):
                return False
        except ValueError:
            assert number is not None
            raise self._absent(number) from None
        switch = asdict(Switch(number, self._now(), said.by, said.why))
        for _ in range(_TRIES):
            version, history = self._history()
            history = {
                "served": change(_ending_with(history["served"], expected))[-SWITCHES_KEPT:],
                "switches": [*history["switches"], switch][-SWITCHES_KEPT:],
            }
            if self._store.put_document(_KIND, _HISTORY, json.dumps(history).encode(), version):
                return True
        what = "no policy" if number is None else f"policy {number}"
        raise StoreUnavailableError(
            f"{what} serves from now on, but that could not be noted: others keep changing the history of policies. "
            "`policy rollback` may pass this change by; see `policy list`"
        )

    def _earlier(self, now: int | None) -> tuple[list[int | None], int | None]:
        """Numbers that served before the present one and are still kept, and the last of them."""
        present = set(self.numbers())
        earlier = _ending_with(self._history()[1]["served"], now)[:-1]
        while earlier and (earlier[-1] not in present or earlier[-1] == now):
            earlier.pop()
        return earlier, earlier[-1] if earlier else None

    def _history(self) -> tuple[int, dict[str, Any]]:
        """Version and content of what is remembered. A process may have died between a change and its note."""
        found = self._store.document(_KIND, _HISTORY)
        if found is None:
            return 0, {"served": [], "switches": []}
        try:
            history = json.loads(found.value)
            return found.version, {"served": list(history["served"]), "switches": list(history["switches"])}
        except (ValueError, KeyError, TypeError) as error:
            _log.warning("the history of policies cannot be read and begins anew: %r", error)
            return found.version, {"served": [], "switches": []}

    def _absent(self, number: int) -> UnknownPolicyError:
        return UnknownPolicyError(number, self.where, self.numbers())


def _always(stack: list[int | None], _: list[int | None]) -> list[int | None]:
    return stack


def _ending_with(served: list[int | None], now: int | None) -> list[int | None]:
    return list(served) if served[-1:] == [now] or (not served and now is None) else [*served, now]


def _contended() -> StoreUnavailableError:
    return StoreUnavailableError("others keep changing which policy serves; try again")
