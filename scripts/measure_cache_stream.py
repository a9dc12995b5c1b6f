"""What does the decision cache do on a realistic stream, and what does it cost in success?

Usage: measure_cache_stream.py TABLE [--requests 20000] [--seed 0] [--seeds 3] [--zipf 1.0] [--rate 500]
                               [--reported 0] [--weight 0.1] [--infer]

A policy is trained on one half of the table (by SHA-256 of the prompt) and decides the other half through the real
engine, in process, with the real cache in front and no Redis. Prompts are asked for by Zipf's law, in an order drawn
for each seed; 60% as they are, 30% with a light edit and 10% with a dangerous one (`prompt_edits`, which knows nothing
of how the cache compares). A clock that stands for --rate requests a second lets entries expire as in production.
Of a share of the requests, --reported, the outcome is reported to the cache: lives grow shorter as more is learned,
what failed is dropped, and what succeeded lives longer. (The engine itself does not learn here.)

A request is *repeatable* when it is no dangerous edit and its prompt has been asked for before, edited lightly or not.
A hit is *wrong* when the decision was made for another meaning: a prompt for its dangerous edit, that edit for its
prompt, one dangerous edit for another, or any other prompt. Equal texts (white space aside), as where an edit of one
prompt is another prompt of the table, mean the same. Success is the outcome of the served
model on the prompt's row; without the cache, every request is decided. Its paired difference has a 95% bootstrap
interval over prompts.

Prints Markdown; 1 if a goal is missed.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from prompt_edits import DANGEROUS, LIGHT, apply

from monkey_coder.caching import cache_before
from monkey_coder.commands.evaluate import SMALL_DATA
from monkey_coder.errors import RouterError
from monkey_coder.evaluation.engine import snapshot_of
from monkey_coder.evaluation.learned import outcome_data
from monkey_coder.evaluation.preparation import Plan, Prepared, describe_tasks, prepare, view
from monkey_coder.evaluation.protocol import Tasks, TrainingView
from monkey_coder.models import TASK_TYPES, ExecuteRequest, Preferences, QuantumOptions, RouteRequest, RoutingDecision
from monkey_coder.quantum.cache_key import Keyring
from monkey_coder.quantum.cache_lifetimes import LearningPace
from monkey_coder.quantum.cache_manager import SUCCEEDED
from monkey_coder.quantum.embedding import StaticEmbedder
from monkey_coder.quantum.identifiers import SignedIds
from monkey_coder.quantum.prompt_similarity import PromptSimilarity
from monkey_coder.quantum.quantum_routing_manager import QuantumRoutingManager
from monkey_coder.quantum.routing_cache import RoutingCache
from monkey_coder.quantum.routing_strategies import configured_strategies
from monkey_coder.quantum.served_policy import ServedPolicy
from monkey_coder.quantum.similarity_index import LikenessIndex
from monkey_coder.quantum.snapshot import EngineSnapshot
from monkey_coder.quantum.thread_manager import ThreadManager
from monkey_coder.quantum.training_pipeline import preset, train

BATCH = 16
EDITED_LIGHTLY, EDITED_DANGEROUSLY = 0.3, 0.1
LEAST_HITS, MOST_WRONG, MOST_LOST = 0.80, 0.001, 0.005
RESAMPLES = 2000
BYTES = 256_000_000
SECRET = b"measuring a stream of prompts..."


@dataclass(frozen=True)
class Sent:
    """One request of the stream.

    Attributes:
        row: Of the prompt among the test rows.
        kind: "same", or the name of the edit.
        text: What was sent.
        meaning: Equal for texts that ask for the same.
        repeatable: Whether the meaning was asked for before and is no dangerous edit.
    """

    row: int
    kind: str
    text: str
    meaning: tuple[str, str]
    repeatable: bool


@dataclass
class Told:
    """What became of a stream."""

    hits: Counter[tuple[str, str]] = field(default_factory=Counter)
    asked: Counter[str] = field(default_factory=Counter)
    repeatable: list[bool] = field(default_factory=list)
    wrong: list[tuple[str, str, str]] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    with_cache: list[int] = field(default_factory=list)
    without: list[int] = field(default_factory=list)


def stream(prompts: tuple[str, ...], requests: int, zipf: float, rng: np.random.Generator) -> Iterator[Sent]:
    """Draw requests."""
    words = [" ".join(prompt.split()) for prompt in prompts]  # a table may have a prompt twice
    order = rng.permutation(len(prompts))
    share = 1.0 / np.arange(1, len(prompts) + 1) ** zipf
    seen: set[str] = set()
    for row in order[rng.choice(len(prompts), size=requests, p=share / share.sum())].tolist():
        draw, prompt = rng.random(), prompts[row]
        made = None
        if draw < EDITED_DANGEROUSLY:
            made = apply(DANGEROUS, prompt, rng)
            if made is not None:
                yield Sent(row, made[0], made[1], (words[row], made[1]), repeatable=False)
                continue
        elif draw < EDITED_DANGEROUSLY + EDITED_LIGHTLY:
            made = apply(LIGHT, prompt, rng)
        kind, text = ("same", prompt) if made is None else made
        yield Sent(row, kind, text, (words[row], ""), repeatable=words[row] in seen)
        seen.add(words[row])


def learned_snapshot(learning: TrainingView, embedder: StaticEmbedder) -> EngineSnapshot:
    """An engine that has learned from one half."""
    data = outcome_data(learning, embedder)
    trained = train(data, preset("small_data" if len(data) < SMALL_DATA else "balanced", attempts=1))
    plain = replace(snapshot_of(learning.models, {}, attempts=1), max_alternatives=10)
    policy = ServedPolicy.bind(trained.parts, plain.table.refs, plain.model_features)
    return replace(plain, strategies=configured_strategies(policy, trained.memory), reliability=trained.reliability)


@contextmanager
def managing(snapshot: EngineSnapshot, embedder: StaticEmbedder) -> Iterator[QuantumRoutingManager]:
    """The real engine, until the block ends."""
    threads = ThreadManager(len(snapshot.strategies), time.monotonic)
    try:
        yield QuantumRoutingManager(
            snapshot=lambda: snapshot,
            embedder=embedder,
            threads=threads,
            ids=SignedIds(SECRET, time.time, os.urandom),
            heuristic=_no_heuristic,
            clock=time.monotonic,
        )
    finally:
        threads.close()


def _no_heuristic(_: RouteRequest) -> RoutingDecision:
    raise RuntimeError("the engine failed, and nothing may stand in for it")


@dataclass(frozen=True)
class Caller:
    """Makes requests as one caller would.

    Attributes:
        tasks: The test rows.
        preferences: Of all requests.
        infer: Whether the kind of task is left to the engine.
    """

    tasks: Tasks
    preferences: Preferences
    infer: bool

    def request(self, row: int, text: str) -> RouteRequest:
        """Ask for a row's prompt in some wording."""
        kind = None if self.infer else TASK_TYPES[self.tasks.types[row]]
        return RouteRequest(
            request=ExecuteRequest(prompt=text, task_type=kind),
            preferences=self.preferences,
            quantum_config=QuantumOptions(explore=False, timeout_ms=1000),
        )


def play(
    sent: list[Sent],
    caller: Caller,
    manager: QuantumRoutingManager,
    prepared: Prepared,
    rate: float,
    reported: float,
) -> Told:
    """Send a stream through a fresh cache, and past it."""
    now, rng = [time.time()], np.random.default_rng(1)
    pace = LearningPace(lambda: now[0])
    keyring = Keyring("measured", SECRET)
    cache = cache_before(
        manager,
        keyring,
        BYTES,
        lambda: now[0],
        time.monotonic,
        np.random.default_rng(0),
        lifetimes=pace.lifetimes,
        similar=LikenessIndex(PromptSimilarity(keyring.secret)),
    )
    column = {name: place for place, name in enumerate(prepared.test.models)}
    told = Told()
    origins: dict[str, Sent] = {}
    plain: dict[tuple[int, str], int] = {}
    for start in range(0, len(sent), BATCH):
        part = sent[start : start + BATCH]
        now[0] += len(part) / rate
        replies = cache.decide([caller.request(each.row, each.text) for each in part])
        given = [_fields(reply) for reply in replies]
        made_for = {hit.decision_id: hit.entry.origin for hit in cache.untold}
        cache.untold.clear()
        for each, answer in zip(part, given, strict=True):
            if answer["cache"] == "miss":
                origins[answer["decision_id"]] = each
        for each, answer in zip(part, given, strict=True):
            source = origins[made_for.get(answer["decision_id"], answer["decision_id"])]
            chosen = column[answer["model"]]
            _note(told, each, answer, chosen, source)
            if rng.random() < reported:
                origin = made_for.get(answer["decision_id"], answer["decision_id"])
                _report(cache, pace, origin, answer, float(prepared.test.scores[each.row, chosen]))
        fresh = [each for each in part if (each.row, each.text) not in plain]
        decided = manager.decide([caller.request(each.row, each.text) for each in fresh])
        plain |= {(e.row, e.text): column[_fields(reply)["model"]] for e, reply in zip(fresh, decided, strict=True)}
        told.without.extend(plain[each.row, each.text] for each in part)
    return told


def _report(cache: RoutingCache, pace: LearningPace, origin: str, answer: dict[str, Any], score: float) -> None:
    """As `CacheManager.on_outcomes` does."""
    pace.note(1)
    change = cache.forget if score < SUCCEEDED else cache.confirm
    change(origin, f"{answer['provider']}/{answer['model']}")


def _note(told: Told, each: Sent, answer: dict[str, Any], column: int, source: Sent) -> None:
    tier = answer["cache"]
    told.asked[each.kind] += 1
    told.hits[each.kind, tier] += 1
    told.rows.append(each.row)
    told.with_cache.append(column)
    if source.meaning != each.meaning and source.text.split() != each.text.split():
        told.wrong.append((each.kind, source.text, each.text))
    if each.repeatable:
        told.repeatable.append(tier != "miss")


def _fields(reply: dict[str, Any] | bytes | RouterError) -> dict[str, Any]:
    if isinstance(reply, RouterError):
        raise reply
    return orjson.loads(reply) if isinstance(reply, bytes) else reply


def difference(told: list[Told], scores: np.ndarray, rng: np.random.Generator) -> tuple[float, float, float, float]:
    """Success without the cache, and the difference that it makes with its 95% interval; prompts are resampled."""
    rows = np.concatenate([t.rows for t in told])
    without = scores[rows, np.concatenate([t.without for t in told])]
    change = scores[rows, np.concatenate([t.with_cache for t in told])] - without
    count = np.bincount(rows, minlength=len(scores)).astype(float)
    total = np.bincount(rows, change, minlength=len(scores))
    draws = rng.multinomial(len(scores), np.full(len(scores), 1.0 / len(scores)), size=RESAMPLES)
    low, high = np.quantile((draws @ total) / np.maximum(draws @ count, 1.0), [0.025, 0.975])
    return float(without.mean()), float(change.mean()), float(low), float(high)


def report(told: list[Told], prepared: Prepared) -> bool:
    """Print everything; returns whether all goals are met."""
    kinds = ["same", *LIGHT, *DANGEROUS]
    tiers = ("local", "similar", "miss")
    hits = sum((t.hits for t in told), Counter())
    asked = sum((t.asked for t in told), Counter())
    print("| request | | sent | local | similar | miss |\n|---|---|---|---|---|---|")
    for kind in kinds:
        if asked[kind]:
            what = "dangerous" if kind in DANGEROUS else "light" if kind in LIGHT else ""
            shares = " | ".join(f"{100 * hits[kind, tier] / asked[kind]:.1f}%" for tier in tiers)
            print(f"| {kind} | {what} | {asked[kind]} | {shares} |")
    rates = [float(np.mean(t.repeatable)) for t in told]
    dangerous = sum(asked[kind] for kind in DANGEROUS)
    wrong = [each for t in told for each in t.wrong]
    everything = sum(asked.values())
    bound = 3.0 / dangerous if not wrong else float("nan")
    base, change, low, high = difference(told, prepared.test.scores, np.random.default_rng(0))
    print(f"\n- hit rate on the repeatable part: {np.mean(rates):.4f}; by seed {', '.join(f'{r:.4f}' for r in rates)}")
    print(
        f"- wrong hits: {len(wrong)} of {everything} requests, {dangerous} of them dangerous edits"
        + (f" (95% bound: {100 * bound:.3f}% of these)" if not wrong else "")
    )
    for kind, source, text in wrong[:5]:
        print(f"  - {kind}: {source[:300]!r} was given for {text[:300]!r}")
    served = Counter(np.concatenate([t.with_cache for t in told]).tolist())
    print(f"- {len(served)} models were served; the one served most, for {max(served.values()) / everything:.1%}")
    print(f"- success {base:.4f} without the cache; with it {change:+.4f} [{low:+.4f}, {high:+.4f}]")
    return bool(np.mean(rates) >= LEAST_HITS and len(wrong) <= MOST_WRONG * dangerous and abs(change) <= MOST_LOST)


def main() -> int:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0, help="The first one.")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--zipf", type=float, default=1.0)
    parser.add_argument("--rate", type=float, default=500.0)
    parser.add_argument("--reported", type=float, default=0.0, help="Share of the requests.")
    parser.add_argument("--weight", type=float, default=0.1)
    parser.add_argument("--infer", action="store_true", help="Leave the kind of task to the engine.")
    options = parser.parse_args()
    prepared = prepare(Plan(train=(options.table,), holdout=0.5))
    learning = view(prepared.parts[0], prepared)
    per_usd = learning.models.per_usd(options.weight) if prepared.has_costs else 0.0
    preferences = Preferences(value_usd=1.0 / per_usd) if per_usd else Preferences(quality=1.0, cost=0.0, latency=0.0)
    tasks = describe_tasks(prepared.test)
    embedder = StaticEmbedder.load()
    print(f"{options.table.name}: {len(tasks)} prompts, {len(prepared.test.models)} models, weight {options.weight}")
    print(
        f"{options.requests} requests a seed, {options.rate:g} a second, Zipf {options.zipf:g}, "
        f"{options.reported:.0%} reported\n"
    )
    told = []
    with managing(learned_snapshot(learning, embedder), embedder) as manager:
        caller = Caller(tasks, preferences, options.infer)
        for seed in range(options.seed, options.seed + options.seeds):
            rng = np.random.default_rng(seed)
            sent = list(stream(tasks.prompts, options.requests, options.zipf, rng))
            told.append(play(sent, caller, manager, prepared, options.rate, options.reported))
    return int(not report(told, prepared))


if __name__ == "__main__":
    sys.exit(main())
