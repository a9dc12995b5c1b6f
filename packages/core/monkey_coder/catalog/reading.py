"""Reads a catalog file from YAML, and says what is wrong with it: where, and how to mend it."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from difflib import get_close_matches
from typing import Any, Final

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from typing_extensions import override

from monkey_coder.catalog.schema import CatalogFile, ModelSpec, PriceSpec, ProviderSpec, Quality, Sources
from monkey_coder.errors import CatalogError
from monkey_coder.models import Value

_PARTS: Final[Mapping[str, type[Value]]] = {"quality": Quality, "prices": PriceSpec, "sources": Sources}
_FORMS: Final = {
    "models": "a model is named provider/model, without spaces",
    "providers": "a provider is named in lower case letters, digits, - and _",
    "health_url": "write a whole address, such as https://api.example.com/health",
    "regions": "a tag is lower case letters, digits, - and _, such as eu or zero_retention",
    "price_id": "write provider:model as genai-prices names them, such as openai:gpt-5-mini",
}


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Safe YAML that refuses a key that is given twice, where YAML itself would take the last one."""

    @override
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key.value!r} is given twice; keep one of them", key.start_mark
                )
            seen.add(key.value)
        mapping: dict[Hashable, Any] = super().construct_mapping(node, deep)
        return mapping


def parse_yaml(text: str, origin: str) -> dict[str, Any]:
    """Parse a catalog file.

    Args:
        text: The file.
        origin: What to call it in errors.

    Returns:
        The top-level mapping, not yet checked any further.

    Raises:
        CatalogError: Not YAML, a key given twice, or no mapping at the top.
    """
    try:
        raw = yaml.load(text, Loader=_Loader)  # noqa: S506 -- a subclass of the safe loader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise CatalogError(f"{origin}: {place}{error.problem or 'not valid YAML'}") from error
    except yaml.YAMLError as error:
        raise CatalogError(f"{origin}: not valid YAML: {error}") from error
    except ValueError as error:  # such as the date 2026-99-99
        raise CatalogError(f"{origin}: a value cannot be read: {error}") from error
    if not isinstance(raw, dict):
        raise CatalogError(f"{origin}: must be a mapping with the keys extends and models, not {_kind(raw)}")
    return raw


def check_catalog(
    models: Mapping[Any, Any], origin: str, known_refs: Iterable[str] = (), providers: Mapping[Any, Any] | None = None
) -> CatalogFile:
    """Check a merged catalog.

    Args:
        models: Raw models by ref.
        origin: What to call the file in errors.
        known_refs: Models of the extended catalog, to recognise a misspelt ref.
        providers: Raw facts about providers, by name.

    Returns:
        The checked catalog, models in the same order.

    Raises:
        CatalogError: At least one field is wrong; the message names all of them.
    """
    try:
        return CatalogFile.model_validate({"models": dict(models), "providers": dict(providers or {})})
    except ValidationError as error:
        lines = _describe_all(error.errors(include_url=False), tuple(known_refs))
    if len(lines) == 1:
        raise CatalogError(f"{origin}: {lines[0]}")
    raise CatalogError("\n  ".join([f"{origin}: {len(lines)} problems", *lines]))


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint with the closest known name, or an empty string."""
    matches = get_close_matches(name, list(known), n=1)
    return f"; did you mean {matches[0]!r}?" if matches else ""


def _describe_all(details: list[ErrorDetails], known_refs: tuple[str, ...]) -> list[str]:
    """One line per problem; all fields a model lacks share one, and a bad ref hides what is below it."""
    bad_refs = {detail["loc"][1] for detail in details if detail["loc"][-1] == "[key]"}  # of models and providers
    lacking: dict[str, list[str]] = {}
    lines: list[str] = []
    for detail in details:
        location = detail["loc"]
        if location[-1] != "[key]" and len(location) > 1 and location[1] in bad_refs:
            continue
        if detail["type"] == "missing":
            lacking.setdefault(".".join(str(part) for part in location[:-1]), []).append(str(location[-1]))
        else:
            lines.append(_describe(detail))
    for place, names in lacking.items():
        ref = place.removeprefix("models.")
        hint = did_you_mean(ref, known_refs) if ref not in known_refs else ""
        lines.append(f"{place}: lacks {', '.join(names)}; add {'it' if len(names) == 1 else 'them'}{hint}")
    return lines


def _describe(detail: ErrorDetails) -> str:
    """One problem as ``models.REF.FIELD: what is wrong; the mend``."""
    location = [str(part) for part in detail["loc"] if part != "[key]"]
    place, kind, given = ".".join(location), detail["type"], detail["input"]
    field = location[2] if len(location) > 2 else location[0]
    if kind == "too_short" and place == "models":
        return "models: the catalog is empty; add at least one model"
    if kind == "extra_forbidden":
        part: type[Value] = _PARTS.get(field, ModelSpec) if len(location) > 3 else ModelSpec
        if location[0] == "providers":
            part = ProviderSpec
        known = list(part.model_fields)
        hint = did_you_mean(location[-1], known) or f"; known are {', '.join(known)}"
        return f"{place}: is not a field{hint}"
    if kind == "literal_error":
        expected = detail.get("ctx", {}).get("expected", "")
        known = [word.strip(" '") for word in expected.replace(" or ", ",").split(",")]
        return f"{place}: {given!r} is not one of {', '.join(known)}{did_you_mean(str(given), known)}"
    if kind == "string_pattern_mismatch":
        return f"{place}: {given!r} has the wrong form; {_FORMS[field]}"
    if kind in ("model_type", "dict_type"):
        whole = ProviderSpec if location[0] == "providers" else ModelSpec
        known = list(_PARTS.get(field, whole).model_fields)
        return f"{place}: must be a mapping with the fields {', '.join(known)}, not {given!r}"
    if kind == "tuple_type":
        return f"{place}: must be a list in brackets, such as [a, b], not {given!r}"
    if kind in ("int_type", "int_from_float"):
        return f"{place}: must be a whole number in digits, such as 200_000, not {given!r}"
    message = detail["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    told = "" if isinstance(given, dict) else f", not {given!r}"
    return f"{place}: {message}{told}"


def _kind(value: object) -> str:
    return "an empty file" if value is None else f"a {type(value).__name__}"
