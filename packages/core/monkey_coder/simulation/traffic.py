"""What a simulated team asks for: classes of tasks, and prompts that say which class they are of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from monkey_coder.models import TaskType


@dataclass(frozen=True, slots=True)
class TrafficClass:
    """One kind of work.

    Attributes:
        name: Of the class; the engine never sees it.
        task_type: What callers call it. Several classes share one, and only their prompts tell them apart.
        share: Of the traffic, before scaling to a sum of 1.
        value_usd: What a solved task is worth.
        verified: Whether callers can check answers, and come back when one fails.
        input_tokens: Usual length of prompt and files.
        output_tokens: Usual length of an answer.
        jobs: What is asked for, with the places `{thing}` and `{part}`.
    """

    name: str
    task_type: TaskType
    share: float
    value_usd: float
    verified: bool
    input_tokens: int
    output_tokens: int
    jobs: tuple[str, ...]


CLASSES: Final = (
    TrafficClass("scripts", "code_generation", 0.14, 0.3, True, 400, 500, (
        "Write a small bash script that rotates the log files of the {thing}",
        "Write a Python script that reads a CSV export of the {thing} and prints totals per {part}",
        "I need a one-off command line tool that renames the {part} files of the {thing}",
    )),
    TrafficClass("services", "code_generation", 0.12, 2.0, True, 6_000, 2_500, (
        "Implement an asynchronous worker pool with back-pressure for the {thing}, in Rust with tokio",
        "Add optimistic locking and idempotent retries to the {part} endpoint of the {thing} service",
        "Build a streaming gRPC service in Go that shards the {thing} by {part}",
    )),
    TrafficClass("web bugs", "debugging", 0.14, 0.8, True, 3_000, 900, (
        "The React page of the {thing} shows a stale {part} after navigation, here is the component",
        "TypeError: cannot read properties of undefined (reading '{part}') in the {thing} view",
        "Our Django view of the {thing} returns 500 when {part} is empty, traceback below",
    )),
    TrafficClass("native bugs", "debugging", 0.08, 4.0, True, 9_000, 1_800, (
        "Segmentation fault in the C++ allocator of the {thing}, address sanitizer report below",
        "Deadlock between the {part} mutex and the {thing} condition variable under load, gdb backtraces attached",
        "Use after free when the {thing} kernel driver unmaps the {part} buffer",
    )),
    TrafficClass("unit tests", "testing", 0.13, 0.25, True, 2_000, 1_200, (
        "Write pytest unit tests for the {part} parser of the {thing}",
        "Cover the edge cases of the {thing} {part} class with Jest",
    )),
    TrafficClass("documentation", "documentation", 0.12, 0.1, False, 1_500, 600, (
        "Write docstrings for the public functions of the {thing} module",
        "Write a README section that explains how to configure the {part} of the {thing}",
    )),
    TrafficClass("refactoring", "refactoring", 0.08, 1.5, True, 8_000, 3_000, (
        "Split the {thing} class of two thousand lines into cohesive modules without changing behaviour",
        "Replace the callbacks of the {thing} {part} by async and await throughout",
    )),
    TrafficClass("query review", "code_review", 0.08, 0.6, False, 2_500, 700, (
        "Review this SQL migration of the {thing} table: is the {part} index used, and does it lock?",
        "Review the query plan of the {thing} report and its join over {part}",
    )),
    TrafficClass("audits", "security", 0.04, 5.0, False, 7_000, 1_500, (
        "Audit the {thing} login flow for session fixation and injection through {part}",
        "Find vulnerabilities in how the {thing} service validates signed {part} tokens",
    )),
    TrafficClass("questions", "general", 0.07, 0.1, False, 200, 300, (
        "What is the difference between a {part} and a {thing}?",
        "Which library would you use for a {thing} with {part} in Python?",
    )),
)  # fmt: skip

LEVELS: Final = (
    (" It is a trivial change; keep it short.", 0.3, 1.0),
    ("", 0.5, 0.0),
    (" Careful: this is intricate, has many edge cases and must hold under concurrent load.", 0.2, -1.2),
)
"""How hard a task is: what the prompt says of it, its share, and by how many logits it moves every model's chances."""

THINGS: Final = (
    "billing",
    "invoice",
    "search",
    "checkout",
    "inventory",
    "telemetry",
    "calendar",
    "chat",
    "payroll",
    "map",
)
PARTS: Final = ("customer", "session", "cursor", "currency", "timezone", "header", "cache", "batch", "token", "page")


def prompt(kind: TrafficClass, level: int, rng: np.random.Generator) -> str:
    """Write the prompt of a task.

    Args:
        kind: Its class.
        level: Index into `LEVELS`.
        rng: Picks the words.
    """
    job = kind.jobs[rng.integers(len(kind.jobs))]
    thing, part = THINGS[rng.integers(len(THINGS))], PARTS[rng.integers(len(PARTS))]
    return f"{job.format(thing=thing, part=part)}.{LEVELS[level][0]}"
