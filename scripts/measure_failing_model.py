"""Does a model that does nothing but fail lose its traffic, with one client and the default settings?

Usage: measure_failing_model.py [--decisions 700] [--seed 0] [--seeds 3] [--store sqlite] [--insist] [--batch 1]
                                [--repeat N] [--request JSON] [--preferences JSON] [--error TYPE]

For each seed a fresh real server: one client asks, one decision after the other, and reports each. The model that was
chosen first fails every time from then on; the others succeed as often as the catalog expects. Prints how many of the
last hundred decisions still went to it; 1 if more than 15 did. With `--insist` the client calls that model whatever is
decided, and reports that it did: then it fails every single time. --batch decisions are asked for together; with
--repeat there are only so many prompts, so that the cache answers; --request and --preferences go into every request
(say, '{"session_id": "one"}' or '{"cost": 0}'); with --error failures are calls without an answer.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import numpy as np
from live_servers import live_servers, machine

MOST_OF_LAST_100 = 15
THINGS = ("cache", "parser", "login page", "billing job", "search index", "message queue", "report", "installer")


def main() -> int:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--decisions", type=int, default=700)
    parser.add_argument("--seed", type=int, default=0, help="the first one")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--store", default="sqlite", choices=["sqlite", "redis"])
    parser.add_argument("--insist", action="store_true")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeat", type=int)
    parser.add_argument("--request", type=json.loads, default={})
    parser.add_argument("--preferences", type=json.loads, default={})
    parser.add_argument("--error")
    options = parser.parse_args()
    print(f"{options.decisions} decisions a seed, store {options.store}, {machine()}\n")
    print("| seed | model | failures | of decisions 1-100 | of the last 100 |\n|---|---|---|---|---|")
    most = 0
    for seed in range(options.seed, options.seed + options.seeds):
        with TemporaryDirectory() as scratch, live_servers(Path(scratch), 1, options.store) as (client,):
            failing, went, failures = used(client, options, np.random.default_rng(seed))
        last = went[-100:].count(failing)
        most = max(most, last)
        print(f"| {seed} | {failing} | {failures} | {went[:100].count(failing)} | {last} |", flush=True)
    return int(most > MOST_OF_LAST_100)


def used(client: httpx.Client, options: argparse.Namespace, rng: np.random.Generator) -> tuple[str, list[str], int]:
    """The model that fails, the model of each decision, and how often it failed."""
    failing, failures = "", 0
    went: list[str] = []
    while len(went) < options.decisions:
        for answer in decided(client, options, len(went), rng):
            ref = f"{answer['provider']}/{answer['model']}"
            failing = failing or ref
            went.append(ref)
            called = failing if options.insist else ref
            failures += called == failing
            success = called != failing and bool(rng.random() < answer["expected"]["success"])
            said: dict[str, Any] = {"success": success}
            if called == failing and options.error:
                said = {"error_type": options.error}
            report = {"decision_id": answer["decision_id"], "model": called, **said}
            client.post("/v1/quantum/feedback", json=report).raise_for_status()
    return failing, went, failures


def decided(
    client: httpx.Client, options: argparse.Namespace, first: int, rng: np.random.Generator
) -> list[dict[str, Any]]:
    """Answers to the next requests, of which the first has a number."""
    bodies = []
    for number in range(first, first + options.batch):
        thing = THINGS[int(rng.integers(len(THINGS)))]
        shown = number if options.repeat is None else int(rng.integers(options.repeat))
        request = {"prompt": f"Review change {shown} of our {thing}", "task_type": "code_review", **options.request}
        bodies.append({"request": request, "preferences": options.preferences})
    if options.batch == 1:
        return [client.post("/v1/quantum/route", json=bodies[0]).raise_for_status().json()]
    answers = client.post("/v1/quantum/route/batch", json={"requests": bodies}).raise_for_status().json()["results"]
    return [answer["decision"] for answer in answers]


if __name__ == "__main__":
    sys.exit(main())
