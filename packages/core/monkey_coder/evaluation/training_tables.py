"""From outcome tables to what training learns from: names become model refs, and catalog models keep their facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import numpy as np

from monkey_coder.catalog.table import ModelTable
from monkey_coder.errors import SettingsError
from monkey_coder.evaluation.engine import PROVIDER, as_table
from monkey_coder.evaluation.preparation import describe_models
from monkey_coder.evaluation.tables import OutcomeTable, concatenate, read_table, task_type
from monkey_coder.ports import TextEmbedder
from monkey_coder.quantum.training_data import OutcomeData, outcomes_of_prompts


@dataclass(frozen=True)
class Matched:
    """Which catalog model each model of a table is.

    Attributes:
        refs: A ref for each model of the table, in its order.
        listed: Those that are in the catalog; the others can be learned from, and are never served.
    """

    refs: tuple[str, ...]
    listed: frozenset[str]


def match_models(names: Sequence[str], catalog: ModelTable, given: Mapping[str, str]) -> Matched:
    """Find the catalog model of each name of a table: as given, by its ref, or by the model part of exactly one ref.

    Args:
        names: Names in the table.
        catalog: The catalog.
        given: Refs by name, which go before.

    Raises:
        SettingsError: A given name is not in the table, a given ref is not in the catalog, or two names are one model.
    """
    for name, ref in given.items():
        if name not in names:
            raise SettingsError(
                f"--model {name}={ref}: the tables have no model {name!r}; they have {', '.join(names)}"
            )
        if ref not in catalog.index:
            raise SettingsError(f"--model {name}={ref}: {ref!r} is not in the catalog; see `monkey-coder catalog list`")
    by_model: dict[str, list[str]] = {}
    for ref in catalog.refs:
        by_model.setdefault(ref.partition("/")[2].lower(), []).append(ref)

    def find(name: str) -> str:
        if name in given:
            return given[name]
        if name in catalog.index:
            return name
        same = by_model.get(name.rpartition("/")[2].lower(), [])
        return same[0] if len(same) == 1 and same[0] not in given.values() else f"{PROVIDER}/{name}"

    refs = tuple(find(name) for name in names)
    for ref in set(refs):
        if refs.count(ref) > 1:
            same = [name for name, found in zip(names, refs, strict=True) if found == ref]
            raise SettingsError(f"{' and '.join(same)} are both {ref}: say which model each is with --model NAME=REF")
    return Matched(refs, frozenset(ref for ref in refs if ref in catalog.index))


def read_outcomes(
    paths: Sequence[Path], catalog: ModelTable, given: Mapping[str, str], embedder: TextEmbedder, *, skip_bad: bool
) -> OutcomeData:
    """Read tables for training.

    Args:
        paths: The files.
        catalog: Facts of the models that are served.
        given: Catalog refs by table names.
        embedder: For the prompts.
        skip_bad: Leave bad lines out.

    Raises:
        OutcomeTableError: A file cannot be read.
        SettingsError: See `match_models`.
    """
    table = concatenate([read_table(path, skip_bad=skip_bad) for path in paths])
    matched = match_models(table.models, catalog, given)
    about = {
        "kind": "outcome tables",
        "files": [{"name": path.name, "sha256": sha256(path.read_bytes()).hexdigest()} for path in paths],
        "bad_lines_left_out": table.skipped,
        "names": {name: ref for name, ref in zip(table.models, matched.refs, strict=True) if name != ref},
    }
    models = describe_models(table.models, table.scores, table.costs, {})
    data = outcomes_of_prompts(
        table.prompts,
        [task_type(name) for name in table.tasks],
        table.tasks,
        table.scores,
        table.costs,
        training_table(table, matched, catalog),
        embedder,
        about,
    )
    # What attempts at these tasks cost on the average, whatever the catalog's prices and guesses of length would say.
    return replace(data, expected_cost=np.tile(models.price.astype(np.float32), (len(data), 1)))


def training_table(table: OutcomeTable, matched: Matched, catalog: ModelTable) -> ModelTable:
    """The models of a table as the router knows them: listed ones from the catalog, others by their training means."""
    own = as_table(describe_models(table.models, table.scores, table.costs, {}), matched.refs)
    listed = np.array([ref in matched.listed for ref in matched.refs])
    place = np.array([catalog.index.get(ref, 0) for ref in matched.refs])
    return replace(
        own,
        input_usd=np.where(listed, catalog.input_usd[place], own.input_usd),
        output_usd=np.where(listed, catalog.output_usd[place], own.output_usd),
        request_usd=np.where(listed, catalog.request_usd[place], own.request_usd),
        context_window=np.where(listed, catalog.context_window[place], own.context_window),
        max_output=np.where(listed, catalog.max_output[place], own.max_output),
        capabilities=np.where(listed[:, None], catalog.capabilities[place], own.capabilities),
        success=np.where(listed, catalog.success[:, place], own.success),
        evidence=np.where(listed, catalog.evidence[:, place], own.evidence),
        latency_s=np.where(listed, catalog.latency_s[place], own.latency_s),
        cached_input_usd=np.where(listed, catalog.cached_input_usd[place], own.input_usd),
    )
