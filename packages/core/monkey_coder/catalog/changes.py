"""Changes of the catalog while the engine runs: models that are added, replaced, removed, or left to the file again.

Pure: where changes are kept, and who follows them, is `monkey_coder.live_catalog`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from difflib import get_close_matches
from typing import Any, Final, Literal, Self

from pydantic import model_validator

from monkey_coder.catalog.catalog import Catalog, CatalogModel, build_catalog
from monkey_coder.errors import CatalogError, UnknownModelError
from monkey_coder.models import Value

ORIGIN: Final = "run-time change"
"""What changed models are said to come from in errors."""


class ModelChange(Value):
    """One change of one model, as it is stored.

    Attributes:
        action: ``put`` adds or replaces it, ``remove`` takes it out, ``restore`` leaves it to the catalog file.
        fields: For ``put`` all fields of the model, as a catalog file has them.
    """

    action: Literal["put", "remove", "restore"]
    fields: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _fields_fit_the_action(self) -> Self:
        if (self.action == "put") != (self.fields is not None):
            raise ValueError("fields go with the action put, and with no other")
        return self


@dataclass(frozen=True)
class Changed:
    """A catalog after changes.

    Attributes:
        catalog: What is served.
        problems: Changes that cannot be used, in words; they are passed over.
    """

    catalog: Catalog
    problems: tuple[str, ...]


def with_changes(base: Catalog, changes: Mapping[str, ModelChange], on: date) -> Changed:
    """Apply changes to a catalog: replaced models keep their place, new ones come last, in order of their refs.

    Args:
        base: As loaded from its file.
        changes: By ref.
        on: The UTC day whose prices count.
    """
    models = {model.ref: model for model in base.models}
    problems: list[str] = []
    for ref, change in sorted(changes.items()):
        try:
            if change.action == "put":
                models[ref] = described(ref, change.fields or {}, on)
            elif change.action == "remove":
                models.pop(ref, None)
        except CatalogError as error:
            problems.append(str(error))
    if not models:
        problems.append("every model is removed; those of the catalog file are served until there is one")
        models = {model.ref: model for model in base.models}
    return Changed(replace(base, models=tuple(models.values())), tuple(problems))


def described(ref: str, fields: Mapping[str, Any], on: date) -> CatalogModel:
    """Build one model from the fields that a catalog file would have.

    Raises:
        CatalogError: The ref or a field is wrong, or there is no price; the message names all mistakes.
    """
    (model,) = build_catalog({ref: dict(fields)}, ORIGIN, on).models
    return model


def require_removable(ref: str, catalog: Catalog) -> None:
    """Make sure that a model can be taken out.

    Raises:
        UnknownModelError: It is not in the catalog.
        CatalogError: It is the last one.
    """
    if ref not in catalog.refs:
        raise UnknownModelError("ref", ref, get_close_matches(ref, catalog.refs, n=3))
    if len(catalog) == 1:
        raise CatalogError(f"{ref} is the only model that is left; add another one before it is removed")
