"""What the text of a task tells about it before any model is asked: how hard, of what kind, and how long.

Shared by the Gary8D router and the state encoder, on the hot path of every decision: pure, without state, and
bounded, because only the head and the tail of a long prompt are read (`HEAD_CHARS`, `TAIL_CHARS`).

Complexity is a sum of whole points (so that it is the same in every process, whatever the order of summing)
that saturates: ``1 - exp(-points / 100)``, where words that speak for an easy task divide the points.
"""

from __future__ import annotations

import math
import re
import unicodedata
from bisect import bisect
from collections.abc import Mapping, Sequence, Set
from types import MappingProxyType
from typing import Final, NamedTuple

from monkey_coder.core.vocabulary import GENERAL, NOTHING, VOCABULARY, KnownWord
from monkey_coder.models import (
    COMPLEXITY_LEVELS,
    TASK_TYPES,
    ComplexityLevel,
    ContextType,
    ExecuteRequest,
    Persona,
    SourceFile,
    TaskAnalysis,
    TaskType,
)

HEAD_CHARS: Final = 2048
"""Characters that are read from the start of a prompt."""
TAIL_CHARS: Final = 1024
"""Characters that are read from its end, when it is longer than both together."""

LEVEL_FLOORS: Final = (0.0, 0.2, 0.4, 0.6, 0.8)
"""Lowest complexity of each of `COMPLEXITY_LEVELS`."""

CHARS_PER_TOKEN: Final = 4
"""How many characters make a token, for prompts and for files."""

OUTPUT_TOKENS: Final[Mapping[TaskType, int]] = MappingProxyType(
    {
        "code_generation": 1200,
        "code_review": 800,
        "debugging": 1000,
        "refactoring": 1500,
        "testing": 1500,
        "documentation": 1000,
        "architecture": 1800,
        "security": 1200,
        "performance": 1200,
        "general": 600,
    }
)
"""Tokens of answer to expect of a task of middling complexity (0.5); judgements, not measurements."""


class SlashCommand(NamedTuple):
    """What a slash command at the start of a prompt stands for."""

    persona: Persona
    task_types: tuple[TaskType, ...]
    """Types it leaves open, the default first."""


SLASH_COMMANDS: Final[Mapping[str, SlashCommand]] = MappingProxyType(
    {
        "dev": SlashCommand("developer", ("code_generation", "debugging", "refactoring")),
        "arch": SlashCommand("architect", ("architecture",)),
        "review": SlashCommand("reviewer", ("code_review",)),
        "security": SlashCommand("security_analyst", ("security",)),
        "perf": SlashCommand("performance_expert", ("performance",)),
        "test": SlashCommand("tester", ("testing",)),
        "docs": SlashCommand("technical_writer", ("documentation",)),
    }
)

PERSONA_OF: Final[Mapping[ContextType, Persona]] = MappingProxyType(
    {
        "code_generation": "developer",
        "debugging": "developer",
        "refactoring": "developer",
        "code_review": "reviewer",
        "architecture": "architect",
        "security": "security_analyst",
        "performance": "performance_expert",
        "documentation": "technical_writer",
        "testing": "tester",
    }
)

_TYPE_POINTS: Final[Mapping[TaskType, int]] = {
    "code_generation": 15,
    "code_review": 18,
    "debugging": 22,
    "refactoring": 18,
    "testing": 15,
    "documentation": 8,
    "architecture": 35,
    "security": 30,
    "performance": 25,
    "general": 10,
}
_CODE, _DEBUGGING = TASK_TYPES.index("code_generation"), TASK_TYPES.index("debugging")

_SATURATION: Final = 100.0  # points at which complexity reaches 1 - 1/e
_EASING: Final = 60.0  # points of easy words that halve the points
_MOST_EASY: Final = 120
_MOST_VOCABULARY: Final = 140
_MOST_SMALL_WORDS: Final = 30  # weak words are many in any long text, so that together they count for little
_SMALL_WORD: Final = 12
_PER_DOUBLING: Final = 5  # points for every doubling of the length beyond 200 characters
_TRACE_POINTS: Final = 15  # at least what debugging is below architecture, so that a trace never makes a task easier
_TRACE_VOTES: Final = 8
_BLOCK_POINTS, _MOST_BLOCKS = 5, 3
_STEP_POINTS, _MOST_STEPS = 4, 8
_FILE_POINTS, _MOST_FILES = 5, 10
_LEAD_WORDS: Final = 8  # where an order usually says what it wants
_LEAD_BONUS: Final = 4
_LEAD_VOTES: Final = 3  # weaker words are as common in a lead as anywhere
_DOUBT: Final = 5.0  # fewer votes than this are no evidence

_WORDS = re.compile(r"\w+").findall  # so that an identifier is one word
_SPACED = bytes([byte if chr(byte).isalnum() or byte == ord("_") else ord(" ") for byte in range(128)]) + bytes(128)
_STEPS = re.compile(r"^[ \t]*(?:\d{1,3}[.)]|[-*•])[ \t]+\S", re.MULTILINE).findall
_SLASH = re.compile(r"\s*/([A-Za-z]+)(?![^\s:,.;!?-])").match
_STEMS = re.compile("|".join(sorted(VOCABULARY.stems, key=lambda stem: (-len(stem), stem)))).findall
_TRACES: Final = (
    "traceback (most recent",
    '", line ',
    "\n    at ",
    "\n\tat ",
    "exception in thread",
    "goroutine ",
    "panicked at",
    "segmentation fault",
    "caused by: ",
    "core dumped",
    "stack backtrace:",
)
_TRACE_WORDS = frozenset(
    ("traceback", "line", "at", "exception", "goroutine", "panicked", "fault", "caused", "dumped", "backtrace")
)


def analyse(request: ExecuteRequest) -> TaskAnalysis:
    """Read a task.

    An explicit `task_type` wins, then a slash command, then what the words speak for. The context type is the
    task type; for `general` it is the type that the words come nearest to, `code_generation` if none.

    Args:
        request: The task; any Unicode text is fine.

    Returns:
        Complexity and level, task and context type, and how much of the evidence spoke for an inferred type:
        winner's votes / (all votes + 5); 1 when the caller named it, by field or by command.
    """
    prompt = request.prompt
    window, byte_length = _window(prompt)
    pieces = window.split("```")
    words = _words(pieces[0] if len(pieces) == 1 else "\n".join(pieces[::2]))
    if "_" in window:  # _emphasis_ is no part of a word
        words = [word.strip("_") for word in words]
    known = list(map(VOCABULARY.words.get, words))
    entries = _entries(words, known)
    if not window.isascii():
        entries |= {VOCABULARY.stems[stem] for stem in _STEMS(window)}
    in_code: set[int] = set()
    if len(pieces) > 1:
        coded = _words("\n".join(pieces[1::2]))
        in_code = _entries(coded, list(map(VOCABULARY.words.get, coded)))
    trace = not _TRACE_WORDS.isdisjoint(words) and any(mark in window for mark in _TRACES)

    votes, large, small, easy = _said(entries)
    _add_votes(votes, known[:_LEAD_WORDS], trace, coded=len(pieces) > 1)
    task, context, evidence = _kind(request, votes)

    if not in_code <= entries:
        _, large, small, _ = _said(entries | in_code)
    points = _TYPE_POINTS[task] + min(large + min(small, _MOST_SMALL_WORDS), _MOST_VOCABULARY)
    points += round(_PER_DOUBLING * math.log2(1.0 + (byte_length + _chars(request.files)) / 200.0))
    points += _TRACE_POINTS * trace + _BLOCK_POINTS * min(len(pieces) // 2, _MOST_BLOCKS)
    points += _FILE_POINTS * min(len(request.files), _MOST_FILES)
    if "\n" in window:
        points += _STEP_POINTS * min(len(_STEPS(window)), _MOST_STEPS)
    complexity = 1.0 - math.exp(-points / (_SATURATION * 2.0 ** (min(easy, _MOST_EASY) / _EASING)))
    return TaskAnalysis(complexity, level_of(complexity), task, context, evidence)


def level_of(complexity: float) -> ComplexityLevel:
    """Name the level of a complexity 0..1, by `LEVEL_FLOORS`."""
    return COMPLEXITY_LEVELS[bisect(LEVEL_FLOORS, complexity) - 1]


def slash_command(prompt: str) -> SlashCommand | None:
    """Return the command that a prompt starts with, or None; case and leading space do not matter.

    A path is no command: "/dev/null" has something other than space or punctuation after its first word.
    """
    found = _SLASH(prompt)
    return SLASH_COMMANDS.get(found[1].lower()) if found else None


def persona_for(request: ExecuteRequest, analysis: TaskAnalysis) -> Persona:
    """Choose who answers: the persona the caller named, else the slash command's, else the context type's."""
    if request.persona is not None:
        return request.persona
    command = slash_command(request.prompt)
    return command.persona if command else PERSONA_OF[analysis.context_type]


def estimate_tokens(request: ExecuteRequest, analysis: TaskAnalysis) -> tuple[int, int]:
    """Estimate the size of a task.

    Args:
        request: The task; its `input_tokens` and `expected_output_tokens` stand as they are when given.
        analysis: What `analyse` said about it.

    Returns:
        Tokens of prompt and files (characters / 4, rounded up), and tokens of the answer: `OUTPUT_TOKENS` of the
        task type, times 0.5 for a complexity of 0, rising to 1.5 for a complexity of 1.
    """
    given, expected = request.input_tokens, request.expected_output_tokens
    if given is None:
        given = -(-(len(request.prompt) + _chars(request.files)) // CHARS_PER_TOKEN)
    if expected is None:
        expected = round(OUTPUT_TOKENS[analysis.task_type] * (0.5 + analysis.complexity))
    return given, expected


def _window(prompt: str) -> tuple[str, float]:
    """Return the part that is read, in lower case and canonical form, and the length of the whole in bytes.

    Bytes rather than characters, since a Chinese character says about as much as three letters.
    """
    window = prompt
    if len(prompt) > HEAD_CHARS + TAIL_CHARS:
        window = f"{prompt[:HEAD_CHARS]}\n{prompt[-TAIL_CHARS:]}"
    if window.isascii():
        return window.lower(), float(len(prompt))
    bytes_per_char = len(window.encode("utf-8", "surrogatepass")) / len(window)
    return unicodedata.normalize("NFKC", window).lower(), len(prompt) * bytes_per_char


def _chars(files: Sequence[SourceFile]) -> int:
    return sum([file.chars for file in files]) if files else 0


def _words(text: str) -> list[str]:
    """Return the runs of letters, digits and underscores."""
    if text.isascii():  # the same, in a third of the time
        return text.encode().translate(_SPACED).decode().split()
    return _WORDS(text)


def _entries(words: Sequence[str], known: Sequence[KnownWord | None]) -> set[int]:
    """Return the vocabulary entries that occur, each once, from the words and what is known of each."""
    found: set[int] = set()
    for place, here in enumerate(known, start=1):
        if here is not None:
            entry, phrases = here
            found.add(entry)
            if phrases and place < len(words):
                found.add(phrases.get(words[place], NOTHING))
    return found


def _said(entries: Set[int]) -> tuple[list[int], int, int, int]:
    """Add up what entries say: votes for each task type, points of the large and of the small hard words, easy ones."""
    votes = [0] * len(TASK_TYPES)
    large = small = easy = 0
    for entry in entries:
        topic, weight, hard, eases = VOCABULARY.facts[entry]
        votes[topic] += weight
        easy += eases
        if hard > _SMALL_WORD:
            large += hard
        else:
            small += hard
    return votes, large, small, easy


def _add_votes(votes: list[int], lead: Sequence[KnownWord | None], trace: bool, coded: bool) -> None:
    """Let the first words count double, the first of them that speaks more, and a trace and code speak, too."""
    bonus = _LEAD_BONUS
    for here in lead:
        if here is not None:
            topic, weight, _, _ = VOCABULARY.facts[here[0]]
            if weight >= _LEAD_VOTES:
                votes[topic] += weight + bonus
                bonus = 0
    if trace:
        votes[_DEBUGGING] += _TRACE_VOTES
    if coded and not any(votes):
        votes[_CODE] += 1
    votes[GENERAL] = 0


def _kind(request: ExecuteRequest, votes: list[int]) -> tuple[TaskType, ContextType, float]:
    command = slash_command(request.prompt)
    best = max(votes)
    spoken = TASK_TYPES[votes.index(best)] if best else "code_generation"
    if request.task_type is not None:
        task, evidence = request.task_type, 1.0
    elif command:
        task, evidence = (spoken if best and spoken in command.task_types else command.task_types[0]), 1.0
    elif best >= _DOUBT:
        task, evidence = spoken, best / (sum(votes) + _DOUBT)
    else:
        task, evidence = "general", best / (sum(votes) + _DOUBT)
    context = task if task != "general" else spoken
    return task, context if context != "general" else "code_generation", evidence
