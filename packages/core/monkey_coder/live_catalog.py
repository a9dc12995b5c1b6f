"""The catalog of a deployment that is running: the file, and what was changed since, which the store keeps.

Every change is a document of its own, named by its ref. All processes look at them a few times a second, so a change is
followed everywhere within two seconds, and outlives them all.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from difflib import get_close_matches
from typing import Any, Final

from pydantic import ValidationError

from monkey_coder.catalog.catalog import Catalog
from monkey_coder.catalog.changes import Changed, ModelChange, described, require_removable, with_changes
from monkey_coder.errors import StoreUnavailableError, UnknownModelError
from monkey_coder.storage.port import Document, Store

CHANGES: Final = "catalog_model"
"""Kind of the documents that hold changes, one per ref."""

KEPT: Final = 20
"""Earlier changes of a model that stay in the store."""

_TRIES: Final = 10
_log = logging.getLogger(__name__)


def today() -> date:
    """The UTC day."""
    return datetime.now(tz=UTC).date()


@dataclass(frozen=True)
class StoredChanges:
    """All changes as they stand.

    Attributes:
        version: Grows by one with each change, and is the same in every process; 1 when there was none.
        changes: By ref.
        problems: Documents that cannot be read, in words.
    """

    version: int
    changes: Mapping[str, ModelChange]
    problems: tuple[str, ...]

    @classmethod
    def of(cls, documents: Mapping[str, Document]) -> StoredChanges:
        """Read documents; one that another release wrote is passed over."""
        changes, problems = {}, []
        for ref, document in documents.items():
            try:
                changes[ref] = ModelChange.model_validate_json(document.value)
            except ValidationError as error:
                problems.append(f"the stored change of {ref} cannot be read: {error}")
        return cls(1 + sum(document.version for document in documents.values()), changes, tuple(problems))


def stored_catalog(store: Store, base: Catalog) -> tuple[Changed, int]:
    """The catalog with all changes that a store holds, and its version.

    Raises:
        StoreUnavailableError: The store does not answer.
    """
    stored = StoredChanges.of(store.documents(CHANGES))
    changed = with_changes(base, stored.changes, today())
    return Changed(changed.catalog, (*stored.problems, *changed.problems)), stored.version


def put_model(store: Store, ref: str, fields: Mapping[str, Any]) -> int:
    """Add a model, or replace it.

    Args:
        store: Of the deployment.
        ref: ``provider/model``.
        fields: As a catalog file has them; all that are required.

    Returns:
        The version of the catalog that holds it.

    Raises:
        CatalogError: The description is wrong; the message names each field.
        StoreUnavailableError: It could not be kept.
    """
    described(ref, fields, today())
    return _write(store, ref, ModelChange(action="put", fields=dict(fields)))


def remove_model(store: Store, base: Catalog, ref: str) -> int:
    """Take a model out; returns the version of the catalog without it.

    Args:
        store: Of the deployment.
        base: The catalog of the file.
        ref: The model.

    Raises:
        UnknownModelError: It is not in the catalog.
        CatalogError: It is the last one.
        StoreUnavailableError: It could not be kept.
    """
    require_removable(ref, stored_catalog(store, base)[0].catalog)
    return _write(store, ref, ModelChange(action="remove"))


def restore_model(store: Store, ref: str) -> int:
    """Leave a model to the catalog file again; returns the version of the catalog.

    Raises:
        UnknownModelError: It was not changed since the start.
        StoreUnavailableError: It could not be kept.
    """
    changed = store.documents(CHANGES)
    if ref not in changed:
        raise UnknownModelError("ref", ref, get_close_matches(ref, changed, n=3))
    return _write(store, ref, ModelChange(action="restore"))


def _write(store: Store, ref: str, change: ModelChange) -> int:
    for _ in range(_TRIES):
        stands = store.document(CHANGES, ref)
        version = 0 if stands is None else stands.version
        if store.put_document(CHANGES, ref, change.model_dump_json().encode(), version, KEPT):
            return StoredChanges.of(store.documents(CHANGES)).version
    raise StoreUnavailableError(f"others keep changing {ref}; try again")


class CatalogWatch:
    """Keeps a process at the catalog of the store. One thread at a time.

    Args:
        store: Where changes are.
        base: The catalog of the file.

    Attributes:
        now: The catalog that is served; may be read from any thread.
        version: Its version.
        publish: Told of each new catalog, with its version.
    """

    def __init__(self, store: Store, base: Catalog) -> None:
        self._store, self._base = store, base
        self._seen: Mapping[str, int] = {}
        self.now = base
        self.version = 1
        self.publish: Callable[[Catalog, int], None] = lambda _catalog, _version: None

    def look(self) -> None:
        """Serve what the store holds, if that changed since the last look.

        Raises:
            StoreUnavailableError: The store does not answer; what was served stays.
        """
        documents = self._store.documents(CHANGES)
        seen = {ref: document.version for ref, document in documents.items()}
        if seen == self._seen:
            return
        stored = StoredChanges.of(documents)
        changed = with_changes(self._base, stored.changes, today())
        for problem in (*stored.problems, *changed.problems):
            _log.error("a change of the catalog is passed over: %s", problem)
        self.publish(changed.catalog, stored.version)
        self._seen, self.now, self.version = seen, changed.catalog, stored.version
        _log.info("catalog version %d is served: %d models", stored.version, len(changed.catalog))

    @property
    def retired(self) -> frozenset[str]:
        """Models that were in the catalog, and are no more."""
        return frozenset((*self._base.refs, *self._seen)) - frozenset(self.now.refs)
