"""Replaces names that only the code inside a prompt knows by their order of appearance.

Two prompts that differ in what such a name is called ask for the same. Two prompts that differ in which file, class or
function they are about do not. What tells them apart is where a name is bound and who speaks of it. A name is local,
and may be called anything, when

- code in the prompt binds it as a variable: an assignment, a declaration, a loop, a parameter without a default;
- code uses it at least once more, and every occurrence is inside code;
- nothing else speaks of it: no sentence, quoted string, attribute, keyword argument or path;
- it does not carry a meaning of its own, as `ascending` or `max_size` do, and does not begin with a capital.

Names of functions, classes, modules, attributes and files are targets and stay as they are. Where in doubt a name
stays: that costs a cache hit and never a wrong one.

The text comes as tokens without white space, so that reflowing it changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_DECLARERS: Final = _words(
    "let const var val mut auto int long short float double char bool boolean string String byte unsigned "
    "size_t Integer Double Boolean i32 i64 u32 u64 usize f32 f64"
)
_FUNCTIONS: Final = frozenset(("def", "function", "func", "fn"))
_LOOP_ENDS: Final = frozenset(("in", "of"))
FENCE: Final = "```"
"""Token of a code fence."""
_LONGEST_HEAD: Final = 200
"""Tokens after which a list of parameters is given up."""

_SIGNS: Final = frozenset((FENCE, "{", ";", "+=", "==")) | _words("def elif const fn lambda print import")
"""Without any of these, an equals sign stands in a sentence or a setting."""
_MARKUP: Final = _words("SELECT UPDATE INSERT DELETE WHERE FROM select html </ />")
"""With any of these, what looks like a variable may be a column or an attribute."""
_BEFORE_ASSIGNED: Final = _words(") ] } : ; , \" ' ```") | {""}
"""Marks that may stand before an assigned name; words and numbers may as well."""

_KEYWORDS: Final = _words(
    "return yield if elif else while for in of and or not is as assert del await print case when switch "
    "new def class try except finally with import from const let var break continue pass raise throw"
)
_OPERATORS: Final = _words("= == != += -= *= /= %= := < > <= >= + % [ ]")
"""Beside a name, these make it a variable."""
_CODE: Final = _KEYWORDS | _DECLARERS | _OPERATORS | _words("( ) { } , : ; - * / & | ^ && ||") | {FENCE, ""}
"""Sentences have these as well, so that they must stand on both sides of a name."""
_SPOKEN_BESIDE: Final = frozenset("\"'\\#@$~")
"""Neighbours that make a name part of a string, path, comment or mark."""

_NEVER_LOCAL: Final = (
    _DECLARERS
    | _FUNCTIONS
    | _KEYWORDS
    | _words(
        "self this cls super True False None true false null undefined list dict set str tuple object len "
        "range sum sorted enumerate zip map filter open input type async import from class lambda try except "
        "with as pass break continue global nonlocal static public private protected void final"
    )
)
_CALLED: Final = _words("print len str int float list set tuple dict range sum sorted enumerate zip abs round any all")
_TELLING: Final = _words(
    "ascending descending asc desc min max minimum maximum first last left right up down top bottom increasing "
    "decreasing increment decrement reverse reversed forward backward before after inner outer odd even positive "
    "negative lower upper smallest largest shortest longest enabled disabled enable disable allow deny include "
    "exclude true false is has no not all some"
)
"""Parts of names that mean something, whatever the code does with them."""
_FILE_KINDS: Final = _words(
    "py js ts jsx tsx go rs java c cc cpp h hpp cs rb php md txt json yaml yml toml csv sql html css sh "
    "ini cfg xml lock ipynb log"
)


def rename_local_names(tokens: Sequence[str]) -> list[str]:
    """Put order of appearance in the place of local names.

    Args:
        tokens: Words and marks of a text, without white space.

    Returns:
        As many tokens; those of a local name are the control character 1 and its number, from 0.
    """
    present = set(tokens)
    if _SIGNS.isdisjoint(present) or not _MARKUP.isdisjoint(present) or {"update", "set"} <= present:
        return list(tokens)
    certain = {name for name in _parameters_of(tokens) if _may_be_local(name)}
    bound = {name for name in _bound(tokens) if _may_be_local(name)} | certain
    if not bound:
        return list(tokens)
    padded = ["", "", "", *tokens, "", ""]
    uses = dict.fromkeys(bound, 0)
    for place, word in enumerate(tokens, 3):
        if word in bound:
            strength = _strength(padded, place)
            if strength == 0:
                bound.discard(word)
            uses[word] += 1
            if strength > 1:
                certain.add(word)
    local = {name for name in bound & certain if uses[name] > 1}
    numbers: dict[str, str] = {}
    return [numbers.setdefault(word, f"\x01{len(numbers)}") if word in local else word for word in tokens]


def _may_be_local(name: str) -> bool:
    return (
        name not in _NEVER_LOCAL
        and (name[0].islower() or name[0] == "_")  # a capital is a class or a constant
        and _TELLING.isdisjoint(name.lower().split("_"))
    )


def _strength(padded: Sequence[str], place: int) -> int:
    """How surely an occurrence is a variable in code: 0 it is spoken of, 1 it may be, 2 it is."""
    before, after = padded[place - 1], padded[place + 1]
    if before == "." or before in _SPOKEN_BESIDE or after in _SPOKEN_BESIDE:
        return 0
    if after == "." and padded[place + 2] in _FILE_KINDS:
        return 0
    if after == "(":  # what is called is a function
        return 0
    if after == "=" and before in ("(", ","):  # a keyword argument, or a parameter with a default
        return 0
    if before in _OPERATORS or after in _OPERATORS:
        return 2
    if before == "(":
        called = padded[place - 2]
        if called in _CALLED or (called.isidentifier() and padded[place - 3] == "."):
            return 2
    return int((before in _CODE or before.isdigit()) and (after in _CODE or after == "."))


def _bound(tokens: Sequence[str]) -> Iterator[str]:
    """Names that look like bound variables; a name may come several times."""
    depth = 0
    for place, word in enumerate(tokens):
        if word in ("(", "[", "{"):
            depth += word == "("
        elif word == ")":
            depth = max(0, depth - 1)
        elif word == "=":
            yield from _assigned(tokens, place, depth)
        elif word == "for":
            yield from _loop_names(tokens, place + 1)
        elif word in _DECLARERS and place + 1 < len(tokens) and tokens[place + 1].isidentifier():
            yield tokens[place + 1]


def _parameters_of(tokens: Sequence[str]) -> Iterator[str]:
    """Parameters of all functions that the text defines."""
    for place, word in enumerate(tokens):
        if word in _FUNCTIONS:
            yield from _parameters(tokens, place)


def _assigned(tokens: Sequence[str], equals: int, depth: int) -> Iterator[str]:
    place = equals - 1
    before = tokens[place - 1] if place > 0 else ""
    if depth or not (before in _BEFORE_ASSIGNED or before[-1].isalnum() or before[-1] == "_"):
        return
    while place >= 0 and tokens[place].isidentifier():
        yield tokens[place]
        if place < 2 or tokens[place - 1] != ",":
            return
        place -= 2


def _parameters(tokens: Sequence[str], place: int) -> Iterator[str]:
    """Parameters without a default: what follows would change who calls the function how."""
    start = next((at for at in (place + 1, place + 2) if at < len(tokens) and tokens[at] == "("), None)
    if start is None:
        return
    for at in range(start + 1, min(len(tokens), start + _LONGEST_HEAD)):
        if tokens[at] == ")":
            return
        first = tokens[at - 1] in ("(", ",")
        if tokens[at].isidentifier() and at + 1 < len(tokens) and (first or tokens[at + 1] in (",", ")")):
            yield tokens[at]


def _loop_names(tokens: Sequence[str], place: int) -> Iterator[str]:
    names: list[str] = []
    for word in tokens[place : place + 8]:
        if word in _LOOP_ENDS:
            yield from names
            return
        if word.isidentifier():
            names.append(word)
        elif word not in (",", "("):
            return
