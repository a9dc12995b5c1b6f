"""Edits of prompts as people and tools make them: light ones, which ask for the same, and dangerous ones, which do not.

Each edit is a function of a prompt and a random generator that returns the edited prompt, or None where the prompt
has nothing to edit in that way. They know nothing of how the cache compares prompts.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

Edit = Callable[[str, np.random.Generator], str | None]

_FRESH = ("alpha", "tmp_value", "q", "item_2", "thing", "foo", "my_var", "z9", "node_ref", "counter")
_OPENINGS = (
    "Please {}",
    "Could you please {}",
    "Can you {}",
    "Hi, {}",
    "Hello! {}",
    "I'd like you to {}",
    "Kindly {}",
    "Hey there, could you {}",
    "Would you {}",
    "I would be grateful if you could {}",
)
_CLOSINGS = (
    " Thanks!",
    "\n\nThank you.",
    " Thanks in advance!",
    " Please.",
    " Thank you very much!",
    " Cheers",
    " TIA",
)
_REQUIREMENTS = (
    "Also handle empty input.",
    "The result must be sorted.",
    "Return the answer as JSON.",
    "Use recursion.",
    "Ignore case.",
    "Explain each step.",
    "It has to be thread-safe.",
    "Answer in one word.",
)
_OPPOSITES = (
    ("ascending", "descending"),
    ("maximum", "minimum"),
    ("max", "min"),
    ("first", "last"),
    ("greater", "less"),
    ("more", "fewer"),
    ("increase", "decrease"),
    ("before", "after"),
    ("True", "False"),
    ("include", "exclude"),
    ("largest", "smallest"),
    ("even", "odd"),
    ("left", "right"),
    ("add", "remove"),
    ("with", "without"),
    ("all", "some"),
)
_LANGUAGES = ("Python", "Java", "JavaScript", "Rust", "Go", "Ruby", "SQL", "C++", "TypeScript")
_ORDINARY = {
    "if",
    "while",
    "for",
    "return",
    "print",
    "in",
    "and",
    "or",
    "not",
    "def",
    "class",
    "except",
    "with",
    "elif",
}
_FILE = re.compile(r"\b([A-Za-z_][\w-]*)(\.(?:py|js|ts|java|go|rs|c|h|cpp|txt|json|ya?ml|csv|md|html|sql))\b")
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")


# Light


def reflow(prompt: str, rng: np.random.Generator) -> str | None:
    """Other white space between words, some of it doubled or turned into line breaks."""
    parts = prompt.split()
    if len(parts) < 2:
        return None
    spaces = rng.choice([" ", "  ", "\n"], size=len(parts) - 1, p=[0.8, 0.1, 0.1])
    return "".join(part + space for part, space in zip(parts, [*spaces, ""], strict=True))


def extra_lines(prompt: str, rng: np.random.Generator) -> str | None:
    """Line breaks doubled, and white space around the text."""
    return " " * int(rng.integers(0, 3)) + prompt.replace("\n", "\n\n") + "\n" * int(rng.integers(1, 3))


def polite_opening(prompt: str, rng: np.random.Generator) -> str | None:
    """A courtesy before the prompt."""
    opening = str(rng.choice(_OPENINGS))
    return opening.format(prompt if opening[-4] == "!" else prompt[0].lower() + prompt[1:])


def polite_closing(prompt: str, rng: np.random.Generator) -> str | None:
    """A courtesy after the prompt."""
    return prompt + str(rng.choice(_CLOSINGS))


def trailing_punctuation(prompt: str, rng: np.random.Generator) -> str | None:
    """Another mark at the end, or none."""
    stripped = prompt.rstrip(".!?")
    edited = stripped + str(rng.choice([".", "!", "?", ""]))
    return edited if stripped and edited != prompt else None


def renamed_variable(prompt: str, rng: np.random.Generator) -> str | None:
    """Another name for a variable that the prompt's code assigns, loops over or takes, wherever the name occurs."""
    found = set(re.findall(r"^[ \t]*([a-z_]\w*)[ \t]*=(?!=)", prompt, re.MULTILINE))
    found |= set(re.findall(r"^[ \t]*for[ \t]+([a-z_]\w*)[ \t]+in\b.*:", prompt, re.MULTILINE))
    for parameters in re.findall(r"^[ \t]*def \w+\(([^()]*)\)", prompt, re.MULTILINE):
        found |= set(re.findall(r"(?:^|,)\s*([a-z_]\w*)", parameters)) - {"self", "cls"}
    names = sorted(found)
    fresh = [name for name in _FRESH if not re.search(rf"\b{name}\b", prompt)]
    if not names or not fresh:
        return None
    return re.sub(rf"\b{rng.choice(names)}\b", str(rng.choice(fresh)), prompt)


def typo(prompt: str, rng: np.random.Generator) -> str | None:
    """Two letters exchanged inside one longer word."""
    words = [m for m in re.finditer(r"\b[a-z]{6,}\b", prompt) if m.end() - m.start() > 5]
    if not words:
        return None
    match = words[int(rng.integers(len(words)))]
    place = int(rng.integers(match.start() + 1, match.end() - 2))
    edited = prompt[:place] + prompt[place + 1] + prompt[place] + prompt[place + 2 :]
    return edited if edited != prompt else None


# Dangerous


def number(prompt: str, rng: np.random.Generator) -> str | None:
    """One number is another."""
    found = list(re.finditer(r"\b\d+\b", prompt))
    if not found:
        return None
    match = found[int(rng.integers(len(found)))]
    return prompt[: match.start()] + str(int(match[0]) + int(rng.integers(1, 10))) + prompt[match.end() :]


def negation_added(prompt: str, rng: np.random.Generator) -> str | None:
    """A `not` after a verb that takes one, or the whole made a `don't`."""
    found = list(re.finditer(r"\b(?:is|are|should|must|can|will|was|were|does|do)\b", prompt))
    if not found or rng.random() < 0.2:
        return "Don't " + prompt[0].lower() + prompt[1:]
    match = found[int(rng.integers(len(found)))]
    return f"{prompt[: match.end()]} not{prompt[match.end() :]}"


def negation_removed(prompt: str, rng: np.random.Generator) -> str | None:
    """A negation less."""
    found = list(re.finditer(r"\bnot |\bnever |\bno |(?<=[a-z])n't\b|\bwithout ", prompt))
    if not found:
        return None
    match = found[int(rng.integers(len(found)))]
    return prompt[: match.start()] + prompt[match.end() :]


def other_file(prompt: str, rng: np.random.Generator) -> str | None:
    """Another file, wherever it is named."""
    names = sorted({match[1] for match in _FILE.finditer(prompt)})
    if not names:
        return None
    return re.sub(
        rf"\b{re.escape(str(rng.choice(names)))}(?=\.\w)", str(rng.choice(["helpers", "main2", "api"])), prompt
    )


def other_class(prompt: str, rng: np.random.Generator) -> str | None:
    """Another class, wherever it is named."""
    names = sorted(set(re.findall(r"\b[A-Z][a-z]+(?:[A-Z][a-z]+)+\b|(?<=class )[A-Z]\w+", prompt)))
    if not names:
        return None
    return re.sub(rf"\b{rng.choice(names)}\b", str(rng.choice(["OrderHandler", "Widget", "UserStore"])), prompt)


def other_function(prompt: str, rng: np.random.Generator) -> str | None:
    """Another function, wherever it is named."""
    names = sorted(set(re.findall(r"\b([a-z_]\w{2,})\(", prompt)) - _ORDINARY)
    if not names:
        return None
    return re.sub(rf"\b{rng.choice(names)}\b", str(rng.choice(["load_users", "compute", "do_other"])), prompt)


def other_language(prompt: str, rng: np.random.Generator) -> str | None:
    """Another programming language."""
    named = [name for name in _LANGUAGES if re.search(rf"\b{re.escape(name)}(?!\w)", prompt, re.IGNORECASE)]
    if not named:
        return None
    old = str(rng.choice(named))
    other = str(rng.choice([name for name in _LANGUAGES if name != old]))
    return re.sub(rf"\b{re.escape(old)}(?!\w)", other, prompt, flags=re.IGNORECASE)


def opposite(prompt: str, rng: np.random.Generator) -> str | None:
    """A word turned into its opposite."""
    pairs = [*_OPPOSITES, *((b, a) for a, b in _OPPOSITES)]
    there = [(a, b) for a, b in pairs if re.search(rf"\b{a}\b", prompt)]
    if not there:
        return None
    old, new = there[int(rng.integers(len(there)))]
    return re.sub(rf"\b{old}\b", new, prompt, count=int(rng.integers(0, 2)))


def requirement_added(prompt: str, rng: np.random.Generator) -> str | None:
    """One more requirement at the end."""
    return f"{prompt} {rng.choice(_REQUIREMENTS)}"


def requirement_removed(prompt: str, rng: np.random.Generator) -> str | None:
    """One sentence less."""
    sentences = _SENTENCE.split(prompt)
    if len(sentences) < 2:
        return None
    gone = int(rng.integers(len(sentences)))
    return " ".join(sentence for place, sentence in enumerate(sentences) if place != gone)


def other_quotation(prompt: str, rng: np.random.Generator) -> str | None:
    """Another quoted string."""
    found = list(re.finditer(r"(?<=[\s(=\[,])(['\"])(\w[^'\"\n]{0,40})\1", prompt))
    if not found:
        return None
    match = found[int(rng.integers(len(found)))]
    return f"{prompt[: match.start(2)]}changed{prompt[match.end(2) :]}"


def other_operator(prompt: str, rng: np.random.Generator) -> str | None:
    """Another operator in code or a formula."""
    turned = {"<": ">", ">": "<", "+": "-", "-": "+", "*": "+", "==": "!="}
    found = list(re.finditer(r"(?<=[\w)\]] )(?:==|[<>+*-])(?= [\w(\[])", prompt))
    if not found:
        return None
    match = found[int(rng.integers(len(found)))]
    return prompt[: match.start()] + turned[match[0]] + prompt[match.end() :]


def other_word(prompt: str, rng: np.random.Generator) -> str | None:
    """Any longer word replaced by one from elsewhere."""
    found = list(re.finditer(r"\b[A-Za-z]{5,}\b", prompt))
    if not found:
        return None
    match = found[int(rng.integers(len(found)))]
    return (
        f"{prompt[: match.start()]}{rng.choice(['weekday', 'matrix', 'customer', 'sunlight'])}{prompt[match.end() :]}"
    )


LIGHT: Final[Mapping[str, Edit]] = {
    edit.__name__: edit
    for edit in (reflow, extra_lines, polite_opening, polite_closing, trailing_punctuation, renamed_variable)
}
"""What a cache should see through."""

HARD_LIGHT: Final[Mapping[str, Edit]] = {"typo": typo}
"""What asks for the same as well; a cache that misses it loses little."""

DANGEROUS: Final[Mapping[str, Edit]] = {
    edit.__name__: edit
    for edit in (
        number,
        negation_added,
        negation_removed,
        other_file,
        other_class,
        other_function,
        other_language,
        opposite,
        requirement_added,
        requirement_removed,
        other_quotation,
        other_operator,
        other_word,
    )
}
"""What a cache must never take for the original."""


def apply(edits: Mapping[str, Edit], prompt: str, rng: np.random.Generator) -> tuple[str, str] | None:
    """Edit a prompt in one of several ways, drawn among those that change it.

    Returns:
        The name of the edit and the edited prompt; None where no edit applies.
    """
    names = list(edits)
    for name in rng.permutation(names):
        edited = edits[name](prompt, rng)
        if edited is not None and edited != prompt:
            return str(name), edited
    return None


def read_rows(tables: Sequence[Path]) -> list[dict[str, Any]]:
    """Rows of outcome tables, one for each prompt (white space around it aside), in the order of the tables."""
    rows: dict[str, dict[str, Any]] = {}
    for table in tables:
        opened = gzip.open if table.suffix == ".gz" else open
        with opened(table, "rt", encoding="utf-8") as file:
            for line in file:
                if line.strip():
                    row = json.loads(line)
                    rows.setdefault(row["prompt"].strip(), row)
    return [row for prompt, row in rows.items() if prompt]
