"""Explanations for a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from monkey_coder.quantum.explanation import Explanation, FlipAxis


def print_explanation(explanation: Explanation, console: Console) -> None:
    """Print why, why not, what each strategy thinks, and where the choice would flip."""

    def say(text: str, style: str | None = None) -> None:
        console.print(text, style=style, highlight=False, soft_wrap=True, markup=False)

    say("\nWhy", "bold")
    for sentence in explanation.why:
        say(sentence)
    if explanation.instead is not None:
        say(f"\nWhy not {explanation.instead.model}", "bold")
        for sentence in explanation.instead.reasons:
            say(sentence)
    if explanation.models:
        say("\nWhat each strategy thinks, in utility", "bold")
        console.print(_opinions(explanation))
    say("\nWhere it would flip", "bold")
    for axis in explanation.flips:
        for sentence in _flips(axis):
            say(sentence)
    for note in explanation.notes:
        say(f"Note: {note}.", "yellow")


def _opinions(explanation: Explanation) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("model", overflow="fold")
    voters = [strategy for strategy in explanation.strategies if strategy.voted]
    for strategy in voters:
        table.add_column(strategy.strategy, justify="right")
    for model in explanation.models:
        if model.rank is not None:
            utility = {opinion.strategy: opinion.utility for opinion in model.opinions}
            cells = [f"{utility[s.strategy]:.3f}{'*' if s.model == model.model else ''}" for s in voters]
            table.add_row(model.model, *cells)
    table.caption = "* its first choice"
    table.caption_justify = "left"
    return table


def _flips(axis: FlipAxis) -> list[str]:
    sentences = [flip.sentence for flip in (axis.lower, axis.higher) if flip is not None]
    if sentences:
        return sentences
    name = {"cost_weight": "the cost weight", "quality_floor": "the quality floor"}.get(
        axis.quantity, f"the price of {axis.model}"
    )
    if axis.lowest == axis.highest:
        return [f"Moving {name} could not change the choice."]
    return [f"Nothing flips with {name} between {axis.lowest:.4g} and {axis.highest:.4g} (it is {axis.now:.4g})."]
