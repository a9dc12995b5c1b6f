"""From a training run to a policy on a shelf: its card, its plots, and what training can go on from."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

from monkey_coder.quantum.model_card import to_markdown
from monkey_coder.quantum.policy_bundle import PolicyBundle

if TYPE_CHECKING:  # torch takes seconds to import, and who only looks at policies does without it
    from monkey_coder.quantum.training_pipeline import TrainedPolicy

AGENT_FILE: Final = "agent.pt"
"""In a policy: what training goes on from, as plain tensors; serving never reads it."""


def as_policy(
    trained: TrainedPolicy, now: datetime, *, plots: bool = True, about: Mapping[str, Any] | None = None
) -> tuple[PolicyBundle, dict[str, bytes]]:
    """A trained policy as shelves take it.

    Args:
        trained: As training left it.
        now: Goes into the card.
        plots: Draw the plots of the card, which takes a second; they can be drawn from the card later.
        about: What else the card shall say, as JSON values.

    Returns:
        The policy, and its further files by name.
    """
    card = {**trained.card, "created": now.isoformat(timespec="seconds"), **(about or {})}
    files = {"card.md": to_markdown(card).encode()}
    if plots:
        from monkey_coder.quantum.training_plots import draw_card  # here: matplotlib is heavy

        files |= draw_card(card)
    with TemporaryDirectory() as scratch:
        path = Path(scratch) / AGENT_FILE
        trained.agent.save(path)
        files[AGENT_FILE] = path.read_bytes()
    return PolicyBundle(trained.parts, trained.memory, trained.reliability, card), files
