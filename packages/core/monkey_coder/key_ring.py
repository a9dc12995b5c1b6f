"""The API keys of a deployment: kept in its store, followed by every process, and learned from.

Each key is a document. A process looks for changes twice a second, so that a new key is good, and a revoked one
refused, within a second everywhere. While the store is away the keys that were known stay good; the latest are also
kept in a file of the state directory, so that a process that starts then does not stand open.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from monkey_coder.api_keys import ApiKey, Change, KeyTable, LearnedValue
from monkey_coder.errors import RouterError, StoreFormatError, StoreUnavailableError, UnknownKeyError
from monkey_coder.private_file import written_beside
from monkey_coder.quantum.decision_record import DecisionRecord, decode
from monkey_coder.quantum.outcome_record import DECIDED_MODEL, OutcomeRecord
from monkey_coder.quantum.revealed_value import Choice, revealed_value
from monkey_coder.storage.port import Document, Documents, Store

KIND: Final = "api_key"
"""Kind of the documents that hold keys, by id."""
FILE_NAME: Final = "api_keys.json"
LOOK_EVERY_S: Final = 0.5
LEARN_FROM: Final = 5_000
"""Latest decisions that preferences are learned from."""

_TRIES: Final = 10
_log = logging.getLogger(__name__)


def stored_keys(store: Documents) -> tuple[ApiKey, ...]:
    """All keys, revoked ones too, oldest first; those that cannot be read are left out.

    Raises:
        StoreUnavailableError: The store does not answer.
    """
    read = (_read(name, document) for name, document in store.documents(KIND).items())
    return tuple(sorted(filter(None, read), key=lambda key: (key.created_at, key.id)))


def add_key(store: Documents, key: ApiKey) -> None:
    """Keep a new key.

    Raises:
        StoreUnavailableError: It could not be kept.
    """
    if not store.put_document(KIND, key.id, key.encode(), 0):
        raise StoreUnavailableError("another key has this id, which happens once in a lifetime; try again")


def change_key(store: Documents, key_id: str, change: Change) -> ApiKey:
    """Change what is kept of a key; changes that others make at the same time are not lost.

    Raises:
        UnknownKeyError: There is no such key.
        StoreFormatError: What is stored of it cannot be read.
        StoreUnavailableError: It could not be kept.
    """
    for _ in range(_TRIES):
        document = store.document(KIND, key_id)
        if document is None:
            raise UnknownKeyError(key_id)
        stands = _read(key_id, document)
        if stands is None:
            raise StoreFormatError(f"the API key {key_id} cannot be read; another release may have written it")
        changed = change(stands)
        if store.put_document(KIND, key_id, changed.encode(), document.version):
            return changed
    raise StoreUnavailableError(f"others keep changing the key {key_id}; try again")


class KeyRing:
    """The keys as one process knows them. `look` belongs to one thread at a time; `table` may be read from any.

    Args:
        store: Where keys are.
        file: Where the latest are kept for a start without the store.
        scrape_token: Good for metrics and health alone, or None.

    Attributes:
        table: The keys of this moment, swapped whole.
    """

    def __init__(self, store: Store, file: Path, scrape_token: str | None = None) -> None:
        self._store, self._file, self._scrape_token = store, file, scrape_token
        self._seen: Mapping[str, int] | None = None
        self.table = KeyTable.of((), scrape_token)

    def begin(self) -> None:
        """Read the keys for the first time; where the store has none, or is away, those that this host knew last.

        Raises:
            StoreFormatError: The store has none, and the file is damaged.
        """
        try:
            self.look()
        except RouterError as error:
            _log.warning("API keys cannot be read just now, those known last are good: %s", error)
        if self.table.required:
            return
        try:
            keys = [ApiKey.model_validate_json(line) for line in self._file.read_bytes().splitlines()]
        except FileNotFoundError:
            return
        except (OSError, ValidationError) as damage:
            raise StoreFormatError(
                f"the store does not show its API keys, and {self._file} cannot be read; bring the store back, or "
                "restore the file"
            ) from damage
        self.table = KeyTable.of(keys, self._scrape_token, unreadable=1)  # the file itself says that there are keys

    def look(self) -> None:
        """Take over what has changed. A store that lost its keys opens no door: those known stay.

        Raises:
            StoreUnavailableError: The store does not answer; all stays as it was.
        """
        found = self._store.documents(KIND)
        versions = {name: document.version for name, document in found.items()}
        if versions == self._seen or not found:
            return
        keys = [key for name, document in found.items() if (key := _read(name, document)) is not None]
        self.table = KeyTable.of(keys, self._scrape_token, unreadable=len(found) - len(keys))
        self._seen = versions
        self._keep(keys)

    async def run(self, executor: ThreadPoolExecutor) -> None:
        """Look again and again until cancelled."""
        loop = asyncio.get_running_loop()
        failing = False
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                await loop.run_in_executor(executor, self.look)
                failing = False
            except Exception as error:  # noqa: BLE001 - whatever the store has, those known last stay good
                if not failing:
                    _log.warning("API keys cannot be read just now, those known last are good: %r", error)
                failing = True

    def _keep(self, keys: list[ApiKey]) -> None:
        try:
            written_beside(self._file, b"\n".join(key.encode() for key in keys)).replace(self._file)
        except OSError as error:
            _log.warning("API keys are not kept for a start without the store: %s", error)


@asynccontextmanager
async def following_keys(ring: KeyRing) -> AsyncIterator[None]:
    """Know the keys, then follow their changes until the block ends."""
    async with AsyncExitStack() as stack:
        executor = ThreadPoolExecutor(1, thread_name_prefix="keys")
        stack.callback(executor.shutdown)
        await asyncio.get_running_loop().run_in_executor(executor, ring.begin)
        jobs = await stack.enter_async_context(asyncio.TaskGroup())
        task = jobs.create_task(ring.run(executor), name="keys")
        stack.callback(task.cancel)
        yield


def learn_preferences(store: Store) -> dict[str, LearnedValue]:
    """Estimate what a solved task is worth to the holder of each key, and keep it; may take seconds.

    Returns:
        The estimates by key id; keys whose choices say too little are left as they were.

    Raises:
        StoreUnavailableError: The store does not answer.
    """
    found: dict[str, LearnedValue] = {}
    choices = _choices(store)
    for key in stored_keys(store):
        revealed = revealed_value(choices.get(key.id, ()))
        if key.revoked_at is None and revealed is not None:
            learned = LearnedValue(
                value_usd=revealed.value_usd,
                low=revealed.low,
                high=revealed.high,
                choices=revealed.choices,
                upgrades=revealed.upgrades,
                explained=revealed.explained,
            )
            change_key(store, key.id, partial(_with_learned, learned))
            found[key.id] = learned
    return found


def _with_learned(learned: LearnedValue, key: ApiKey) -> ApiKey:
    return key.model_copy(update={"learned": learned})


def _choices(store: Store) -> Mapping[str, list[Choice]]:
    """By reporter: where another model answered, and nothing was heard of the decided one.

    Where the decided one was tried as well, the other came after a failure, which tells nothing of preferences.
    """
    found: dict[str, list[Choice]] = defaultdict(list)
    for row in store.recent_decisions(0.0, LEARN_FROM):
        try:
            record = decode(row.payload)
            used = {outcome.model: OutcomeRecord.decode(outcome.payload) for outcome in store.outcomes_of(row.id)}
        except StoreFormatError:
            continue  # of another release: nothing to learn from
        if DECIDED_MODEL in used or record.served in used or len(used) != 1:
            continue
        ((model, outcome),) = used.items()
        choice = _choice(record, model)
        if choice is not None:
            found[outcome.reporter].append(choice)
    return found


def _choice(record: DecisionRecord, model: str) -> Choice | None:
    if model not in record.refs or record.cost_weight <= 0.0:
        return None
    chosen, decided = record.refs.index(model), record.refs.index(record.served)
    if not record.candidates[chosen]:
        return None
    return Choice(
        success=float(record.success[chosen] - record.success[decided]),
        cost_usd=float(record.cost_usd[chosen] - record.cost_usd[decided]),
        value_usd=1.0 / record.cost_weight,
    )


def _read(name: str, document: Document) -> ApiKey | None:
    try:
        return ApiKey.model_validate_json(document.value)
    except ValidationError as error:
        _log.warning("the API key %s cannot be read, and opens nothing: %s", name, error.errors(include_input=False))
        return None
