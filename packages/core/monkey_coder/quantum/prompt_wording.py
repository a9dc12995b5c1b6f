"""The wording of a prompt with all that is immaterial left out: what near-identical prompts have in common.

Immaterial is a closed list, and nothing else: white space; courtesy ("please", "could you", "thanks in advance"); the
mark that ends a sentence; the capital a word begins with; typographic quotes; and what a local variable inside the
prompt's code is called (`local_names`). So two prompts of one wording agree on every number, negation, identifier,
path, quoted string and language, and on the order of all words.
"""

from __future__ import annotations

import re
from typing import Final

from monkey_coder.quantum.local_names import FENCE, rename_local_names


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


MOST_CHARS: Final = 16_384
"""Longer prompts are not compared, which bounds the time."""

_PATTERN: Final = (
    r"\w+(?:['/]\w+)*|(?<!\S)/\w+(?:/\w+)*"  # words; don't, src/main and /tmp are one each
    r"|[<>=!+\-*/%&|^:]=+|=>|->|</|/>"  # operators of several characters, and tags
    r"|\.\s|(?<=[A-Za-z][A-Za-z])[!?]\s"  # ends of sentences, left out below; 5! is no end
    r"|```|[^\w\s`]"  # fences, left out below, and every other mark; inline code marks do not matter
)
_ASCII_TOKENS: Final = re.compile(_PATTERN, re.ASCII).findall
_TOKENS: Final = re.compile(_PATTERN).findall
_LEFT_OUT: Final = frozenset((FENCE, *(mark + space for mark in ".!?" for space in " \n\t\r")))
_ENDS: Final = frozenset(".!?,;:")
_BINDING: Final = frozenset(("=", "def", "const", "var", "fn"))
_QUOTES: Final = frozenset("\"'")
_PLEASE_WORDS: Final = frozenset(("please", "pls", "plz", "kindly"))
_OPENERS: Final = _words("hi hello hey greetings dear good could can would will i i'd help thanks thank")
_CLOSERS: Final = _words("thanks thank thx cheers regards appreciated appreciate")
_TAIL: Final = 16
"""Words at the end among which closing courtesies are looked for."""
_OPENING: Final = re.compile(
    r"(?: |,|(?:hi|hello|hey|greetings|dear)(?: there| all| everyone| team| assistant)?(?: [,!])*(?= |$)"
    r"|good (?:morning|afternoon|evening)(?: [,!])*(?= |$)"
    r"|(?:could|can|would|will) you(?: be so kind as to| kindly)?(?= )"
    r"|(?:i would|i'd) (?:like|love|appreciate it if|be grateful if) you(?: to| could| would)(?= )"
    r"|i (?:need|want) you to(?= )|help me(?: to)?(?= )"
    r"|(?:thanks|thank you)(?: in advance)?(?: [,!])*(?= |$))+",
    re.IGNORECASE,
)
_CLOSING: Final = re.compile(
    r"(?:(?:^| )(?:,|!|many thanks|(?:thanks|thank you)(?: a lot| so much| very much| again)?|thx|cheers"
    r"|(?:best |kind )?regards|(?:much|greatly) appreciated"
    r"|(?:i|i'd)(?: would)?(?: really)? appreciate (?:it|that|your help)"
    r"|(?:any|your) help (?:is|would be) (?:much |greatly |very )?appreciated)"
    r"(?: in advance)?(?: for (?:your|the|any|all your) (?:help|time|support))?)+$",
    re.IGNORECASE,
)
_TYPOGRAPHIC: Final = str.maketrans(
    {
        "\u2018": "'",
        "\u2019": "'",
        "\u201c": '"',
        "\u201d": '"',
        "\u00a0": " ",
        "\u2013": "-",
        "\u2014": "-",
        "\ufeff": "",
        "\u200b": "",
    }
)


def wording(prompt: str) -> str | None:
    """Bring a prompt into the form that near-identical ones share.

    Returns:
        Its material words and marks, separated by spaces; None where the prompt is too long to be compared.
    """
    if len(prompt) > MOST_CHARS:
        return None
    ascii_only = prompt.isascii()
    found = _ASCII_TOKENS(prompt) if ascii_only else _TOKENS(prompt.translate(_TYPOGRAPHIC))
    if not _BINDING.isdisjoint(found):
        found = rename_local_names(found)
    tokens = [t.lower() if t.istitle() and len(t) > 1 else t for t in found if t not in _LEFT_OUT]
    tokens = _without_ends(tokens)
    if not _PLEASE_WORDS.isdisjoint(tokens):
        tokens = _without_please(tokens)
    return " ".join(_without_courtesy(tokens) or tokens)


def _without_please(tokens: list[str]) -> list[str]:
    """Leave out the word, and the comma beside it; what is quoted stays."""
    kept: list[str] = []
    quoted = False
    after_please = False
    for word in tokens:
        quoted ^= word in _QUOTES
        if word in _PLEASE_WORDS and not quoted:
            if kept and kept[-1] == ",":
                kept.pop()
            after_please = True
        elif not (after_please and word == ","):
            kept.append(word)
            after_please = False
    return kept or tokens


def _without_courtesy(tokens: list[str]) -> list[str]:
    """Leave out how a prompt greets and thanks, and what then ends it."""
    if tokens and tokens[0].lower() in _OPENERS:
        text = " ".join(tokens)
        opening = _OPENING.match(text)
        tokens = tokens if opening is None else text[opening.end() :].split(" ")
    if not _CLOSERS.isdisjoint(tokens[-_TAIL:]):
        tail = _CLOSING.sub("", " ".join(tokens[-_TAIL:]))
        tokens = [*tokens[:-_TAIL], *tail.split(" ")]
    tokens = _without_ends([word for word in tokens if word])
    if tokens:
        tokens[0] = tokens[0][0].lower() + tokens[0][1:]  # after a courtesy, nobody writes the capital
    return tokens


def _without_ends(tokens: list[str]) -> list[str]:
    """Leave out the marks that end the whole text; the `!` of a factorial belongs to it."""
    length = len(tokens)
    while length and tokens[length - 1] in _ENDS and not _is_factorial(tokens, length - 1):
        length -= 1
    return tokens[:length]


def _is_factorial(tokens: list[str], place: int) -> bool:
    before = tokens[place - 1] if place else ""
    return tokens[place] == "!" and (before == ")" or before.isdigit() or (len(before) == 1 and before.isalpha()))
