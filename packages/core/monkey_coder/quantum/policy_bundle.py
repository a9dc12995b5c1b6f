"""Numbered policies on disk: everything that serving needs, its model card, and which one is current.

    policies/current               numbers of the policies that were made current, the present one last
    policies/000001/success.safetensors, belief.safetensors, cost.safetensors, dqn.safetensors,
        memory.safetensors
    policies/000001/card.json, card.md, *.png
    policies/000001/manifest.json  format, trust in each strategy, and the SHA-256 of every other file

A policy directory appears whole or not at all, and is never changed afterwards. Numpy alone; nothing here runs code
from a file.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from monkey_coder.errors import NoEarlierPolicyError, PolicyError, UnknownPolicyError
from monkey_coder.quantum.belief import Belief
from monkey_coder.quantum.cost_model import CostModel
from monkey_coder.quantum.outcome_memory import OutcomeMemory
from monkey_coder.quantum.policy import Policy
from monkey_coder.quantum.policy_file import write_policy
from monkey_coder.quantum.served_policy import TrainedParts
from monkey_coder.quantum.state_encoder import ENCODING_VERSION
from monkey_coder.quantum.success_model import SuccessModel

BUNDLE_FORMAT: Final = 1
KEPT: Final = 10
"""Policies that are kept on disk; older ones are deleted, but for the current one."""

CARD: Final = "card.json"
"""The file that holds the model card."""

_CURRENT: Final = "current"
_MANIFEST: Final = "manifest.json"
_DRAFT: Final = ".draft-"
_DIGITS: Final = 6

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class PolicyBundle:
    """One policy, with all that belongs to it.

    Attributes:
        parts: What the DQN strategy serves; `parts.version` is the policy's number.
        memory: What the memory strategy starts from.
        reliability: How far each strategy deserved trust on held-out tasks, by its name, 0..1.
        card: The model card, as JSON values.
    """

    parts: TrainedParts
    memory: OutcomeMemory
    reliability: Mapping[str, float]
    card: Mapping[str, Any]

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read a policy directory, checking every file.

        Raises:
            PolicyError: Something is missing, damaged, or of another format or state encoding.
        """
        manifest = read_json(_read(directory, _MANIFEST), str(directory / _MANIFEST))
        if manifest.get("format") != BUNDLE_FORMAT:
            raise PolicyError(
                f"{directory} has bundle format {manifest.get('format')!r}, this version reads {BUNDLE_FORMAT}: retrain"
            )
        if manifest.get("encoding") != ENCODING_VERSION:
            raise PolicyError(
                f"{directory} was trained on state encoding {manifest.get('encoding')!r}, this engine speaks "
                f"{ENCODING_VERSION!r}: retrain"
            )
        try:
            for name, digest in manifest["files"].items():
                if sha256(_read(directory, name)).hexdigest() != digest:
                    raise PolicyError(f"{directory / name} is damaged: restore it, or choose another policy")
            parts = TrainedParts(
                success=SuccessModel.from_arrays(*_arrays(directory, "success", manifest)),
                belief=Belief.from_arrays(*_arrays(directory, "belief", manifest)),
                network=Policy.load(directory / "dqn.safetensors", ENCODING_VERSION) if manifest["network"] else None,
                noise=float(manifest["noise"]),
                planned=int(manifest["planned"]),
                version=int(directory.name),
                cost=CostModel.from_arrays(*_arrays(directory, "cost", manifest)) if manifest["cost"] else None,
            )
            memory = OutcomeMemory.from_arrays(*_arrays(directory, "memory", manifest))
            trust = {str(name): float(value) for name, value in manifest["reliability"].items()}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise PolicyError(
                f"{directory} cannot be read as a policy ({error!r}): choose another, or retrain"
            ) from error
        return cls(parts, memory, trust, read_json(_read(directory, CARD), str(directory / CARD)))


def publish(
    root: Path, bundle: PolicyBundle, files: Mapping[str, bytes], *, make_current: bool = True, keep: int = KEPT
) -> int:
    """Write a policy under the next free number; readers see all of it or none.

    Args:
        root: The directory of all policies; made if it is missing.
        bundle: What to write; its own number is ignored.
        files: Further files by name, such as plots.
        make_current: Serve it from now on.
        keep: Policies that stay on disk, at least 1; the current one always does.

    Returns:
        The number.
    """
    root.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=_DRAFT, dir=root) as scratch:
        draft = Path(scratch) / "policy"
        draft.mkdir()
        write(draft, bundle, files)
        number = _place(root, draft)
    if make_current:
        set_current(root, number)
    in_use = current(root)
    for old in numbers(root)[:-keep]:
        if old != in_use:
            shutil.rmtree(place_of(root, old))
    return number


def numbers(root: Path) -> tuple[int, ...]:
    """The numbers of all policies on disk, ascending."""
    if not root.is_dir():
        return ()
    return tuple(sorted(int(each.name) for each in root.iterdir() if each.is_dir() and each.name.isdecimal()))


def current(root: Path) -> int | None:
    """The number of the policy in use; None while there is none."""
    history = _history(root)
    return history[-1] if history else None


def load_policy(root: Path, number: int) -> PolicyBundle:
    """Read one policy.

    Raises:
        PolicyError: There is no such policy, or it cannot be used.
    """
    _require(root, number)
    return PolicyBundle.load(place_of(root, number))


def directory_of(root: Path, number: int) -> Path:
    """Where a policy lives.

    Raises:
        PolicyError: There is no such policy.
    """
    _require(root, number)
    return place_of(root, number)


def set_current(root: Path, number: int) -> None:
    """Serve another policy; web processes take it over at their next look.

    Raises:
        PolicyError: There is no such policy.
    """
    _require(root, number)
    history = _history(root)
    if not history or history[-1] != number:
        _write_history(root, (*history, number))


def rollback(root: Path) -> int:
    """Go back to the policy that was in use before the current one, and return its number.

    Raises:
        NoEarlierPolicyError: None was, or none of those is on disk any more.
    """
    present = set(numbers(root))
    history = _history(root)
    earlier = history[:-1]
    while earlier and (earlier[-1] not in present or earlier[-1] == history[-1]):
        earlier = earlier[:-1]
    if not earlier:
        raise NoEarlierPolicyError("there is no earlier policy to go back to: choose one with `policy set NUMBER`")
    _write_history(root, earlier)
    return earlier[-1]


def write(draft: Path, bundle: PolicyBundle, files: Mapping[str, bytes]) -> None:
    """Write all files of a policy into an empty directory, and its manifest last."""
    headers = {}
    parts: dict[str, SuccessModel | Belief | CostModel | OutcomeMemory | None] = {
        "success": bundle.parts.success,
        "belief": bundle.parts.belief,
        "cost": bundle.parts.cost,
        "memory": bundle.memory,
    }
    for name, part in parts.items():
        if part is None:
            continue
        arrays, headers[name] = part.to_arrays()
        plain = {key: np.ascontiguousarray(array) for key, array in arrays.items()}
        (draft / f"{name}.safetensors").write_bytes(save(plain))
    network = bundle.parts.network
    if network is not None:
        write_policy(draft / "dqn.safetensors", network.header, network.weights)
    for name, content in files.items():
        (draft / name).write_bytes(content)
    (draft / CARD).write_bytes(_as_json(bundle.card))
    manifest = {
        "format": BUNDLE_FORMAT,
        "encoding": ENCODING_VERSION,
        "network": network is not None,
        "cost": bundle.parts.cost is not None,
        "noise": bundle.parts.noise,
        "planned": bundle.parts.planned,
        "reliability": dict(bundle.reliability),
        "headers": headers,
        "files": {each.name: sha256(each.read_bytes()).hexdigest() for each in sorted(draft.iterdir())},
    }
    (draft / _MANIFEST).write_bytes(_as_json(manifest))
    for each in draft.iterdir():
        with each.open("rb") as file:
            os.fsync(file.fileno())


def _place(root: Path, draft: Path) -> int:
    """Give the draft the next free number, also while another process does the same."""
    number = max((*numbers(root), *_history(root)), default=0)
    while True:
        number += 1
        try:
            draft.rename(place_of(root, number))
        except OSError:
            if not place_of(root, number).exists():
                raise
        else:
            return number


def _arrays(directory: Path, name: str, manifest: Mapping[str, Any]) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    path = f"{name}.safetensors"
    try:
        return load(_read(directory, path)), manifest["headers"][name]
    except SafetensorError as error:
        raise PolicyError(
            f"{directory / path} cannot be read ({error}): restore it, or choose another policy"
        ) from error


def _read(directory: Path, name: str) -> bytes:
    try:
        return (directory / name).read_bytes()
    except OSError as error:
        raise PolicyError(f"{directory / name} cannot be read ({error}): choose another policy, or retrain") from error


def read_json(raw: bytes, called: str) -> dict[str, Any]:
    """Read a JSON object that belongs to a policy.

    Args:
        raw: As it is kept.
        called: What messages call it.

    Raises:
        PolicyError: It is none.
    """
    try:
        value = json.loads(raw)
    except ValueError as error:
        raise PolicyError(f"{called} is not JSON ({error}): restore it, or choose another policy") from error
    if not isinstance(value, dict):
        raise PolicyError(f"{called} holds no JSON object: restore it, or choose another policy")
    return value


def _as_json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


def place_of(root: Path, number: int) -> Path:
    """The directory that a policy of this number has, whether or not there is one."""
    return root / f"{number:0{_DIGITS}d}"


def _require(root: Path, number: int) -> None:
    known = numbers(root)
    if number not in known:
        raise UnknownPolicyError(number, str(root), known)


def _history(root: Path) -> tuple[int, ...]:
    """Numbers that were made current, oldest first."""
    path = root / _CURRENT
    try:
        return tuple(int(line) for line in path.read_text().split())
    except FileNotFoundError:
        return ()
    except (OSError, ValueError) as error:
        raise PolicyError(f"{path} cannot be read ({error}): write the number of a policy into it") from error


def _write_history(root: Path, history: tuple[int, ...]) -> None:
    draft = root / f"{_DRAFT}{_CURRENT}-{os.getpid()}"
    draft.write_text("".join(f"{number}\n" for number in history[-5 * KEPT :]))
    os.replace(draft, root / _CURRENT)  # noqa: PTH105 (says what it does: one atomic step)
