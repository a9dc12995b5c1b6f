"""The model card of a policy: what it learned from, how, and how well it did on tasks that were held out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from monkey_coder.errors import PolicyError

CARD_FORMAT: Final = 1

_NAMES: Final[Mapping[str, str]] = {
    "dqn": "DQN",
    "lookahead": "lookahead without the network",
    "memory": "memory",
    "best_single": "best single model",
}
_SHOWN_WEIGHTS: Final = (0.0, 0.1, 1.0, 10.0)


def data_facts(
    refs: tuple[str, ...], families: tuple[str, ...], outcomes: int, cost_ref: float, about: Mapping[str, Any]
) -> dict[str, Any]:
    """What the card says of the data.

    Args:
        refs: Models that were learned.
        families: Family of each task.
        outcomes: How many there are.
        cost_ref: USD of the dearest model.
        about: What the source says of itself: files, hashes.
    """
    return {
        "tasks": len(families),
        "models": list(refs),
        "outcomes": outcomes,
        "families": dict(sorted(Counter(families).items())),
        "cost_ref_usd": cost_ref,
        "source": dict(about),
    }


def summary(card: Mapping[str, Any], number: int, current: int | None) -> dict[str, Any]:
    """The few facts by which one tells policies apart, as JSON values.

    Args:
        card: Of the policy.
        number: Of the policy.
        current: Number of the one that serves.

    Raises:
        PolicyError: The card lacks some of them.
    """
    try:
        return {
            "policy": number,
            "current": number == current,
            "created": card.get("created"),
            "tasks": card["data"]["tasks"],
            "models": len(card["data"]["models"]),
            "attempts": card["options"]["attempts"],
            "gain_over_best_single": card["validation"]["gain_over_best_single"]["mean"],
        }
    except (KeyError, TypeError) as error:
        raise PolicyError(f"card.json of policy {number} lacks {error}: choose another policy, or retrain") from error


def to_markdown(card: Mapping[str, Any], number: int | None = None) -> str:
    """Write the card for people."""
    data, options, training = card["data"], card["options"], card["training"]
    title = "# Policy" if number is None else f"# Policy {number}"
    lines = [
        title,
        "",
        f"Trained on {data['tasks']:,} tasks with {data['outcomes']:,} outcomes of {len(data['models'])} models, for "
        f"episodes of up to {options['attempts']} attempts and a verifier that is wrong in {options['noise']:.0%} of "
        f"cases; seed {options['seed']}.",
        "",
        *_data_lines(data),
        "## On held-out tasks",
        "",
        f"{card['validation']['tasks']:,} tasks that neither belief nor value network has seen; the success model's "
        "word on each is from members that were not fitted on it. In brackets: 95% intervals by resampling tasks.",
        "",
    ]
    for attempts, played in card["validation"]["attempts"].items():
        lines += _table(attempts, played)
    for name, against in (("gain_over_lookahead", "the lookahead alone"), ("gain_over_best_single", "the best single")):
        gain = card["validation"][name]
        lines.append(
            f"- The DQN's utility against {against}, over all cost weights: {gain['mean']:+.4f} "
            f"[{gain['low']:+.4f}, {gain['high']:+.4f}]."
        )
    calibration = card["calibration"]
    lines += [
        "",
        "The held-out tasks also chose the weights of the value network, which flatters it a little against the "
        "lookahead. Compare policies on tasks of their own with `monkey-coder evaluate`.",
        "",
        "![frontier](frontier.png)",
        "",
        "## Calibration",
        "",
        f"Held-out outcomes: {calibration['outcomes']:,}; mean distance of foretold from seen "
        f"{calibration['calibration_error']:.3f}, Brier score {calibration['brier']:.3f}, log loss "
        f"{calibration['log_loss']:.4f} nats (families alone: {calibration['prior_log_loss']:.4f}).",
        "",
        "![calibration](reliability.png)",
        "",
        "## Trust in each strategy",
        "",
        *(f"- {name}: {value:.3f}" for name, value in sorted(card["trust"].items())),
        "",
        "## Training",
        "",
        f"{training['verdict']} Chosen: the weights of step {training['chosen_step']}"
        + (" (the lookahead was not beaten, so the network adds nothing)." if not training["chosen_step"] else "."),
        "",
        "![curves](curves.png)",
        "",
        "## Limits",
        "",
        "- It knows the models and the kinds of tasks above. Far from these the strategies abstain; models it does not "
        "know are judged by their declared prior success and by the difficulty of the request.",
        "- Outcomes that were never recorded are filled by what was expected of them, in the figures above.",
        "- Versions: " + ", ".join(f"{name} {value}" for name, value in card["versions"].items()) + ".",
        "",
    ]
    return "\n".join(lines)


def _data_lines(data: Mapping[str, Any]) -> list[str]:
    lines = ["## Data", ""]
    lines += [f"- `{file['name']}`: SHA-256 `{file['sha256']}`" for file in data["source"].get("files", ())]
    shown = list(data["families"].items())
    names = ", ".join(f"{name} ({count})" for name, count in shown[:12])
    lines.append(f"- kinds of tasks: {names}" + (f", and {len(shown) - 12} more" if len(shown) > 12 else ""))
    lines += [f"- models: {', '.join(data['models'])}", ""]
    return lines


def _table(attempts: str, played: Mapping[str, Any]) -> list[str]:
    rows = next(iter(played.values()))
    weights = [row["weight"] for row in rows if row["weight"] in _SHOWN_WEIGHTS]
    head = f"Utility with up to {attempts} attempt{'s' if attempts != '1' else ''}, by cost weight w"
    lines = [f"{head}:", "", "| strategy | " + " | ".join(f"w = {w:g}" for w in weights) + " |"]
    lines.append("|---|" + "---|" * len(weights))
    ours = [name for name in _NAMES if name in played]
    for name in (*ours, *sorted(played.keys() - set(ours))):
        figures = played[name]
        cells = [
            f"{row['utility']['mean']:.3f} [{row['utility']['low']:.3f}, {row['utility']['high']:.3f}]"
            for row in figures
            if row["weight"] in weights
        ]
        lines.append(f"| {_NAMES.get(name, name)} | " + " | ".join(cells) + " |")
    return [*lines, ""]
