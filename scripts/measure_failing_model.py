"""Does a model that does nothing but fail lose its traffic, with one client and the default settings?

Usage: measure_failing_model.py [--decisions 700] [--seeds 3] [--store sqlite] [--insist]

For each seed a fresh real server: one client asks, one decision after the other, and reports each. The model that was
chosen first fails every time from then on; the others succeed as often as the catalog expects. Prints how many of the
last hundred decisions still went to it; 1 if more than 15 did. With `--insist` the client calls that model whatever is
decided, and reports that it did: then it fails every single time.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import numpy as np
from live_servers import live_servers, machine

MOST_OF_LAST_100 = 15
THINGS = ("cache", "parser", "login page", "billing job", "search index", "message queue", "report", "installer")


def main() -> int:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--decisions", type=int, default=700)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--store", default="sqlite", choices=["sqlite", "redis"])
    parser.add_argument("--insist", action="store_true")
    options = parser.parse_args()
    print(f"{options.decisions} decisions a seed, store {options.store}, {machine()}\n")
    print("| seed | model | failures | of decisions 1-100 | of the last 100 |\n|---|---|---|---|---|")
    most = 0
    for seed in range(options.seeds):
        with TemporaryDirectory() as scratch, live_servers(Path(scratch), 1, options.store) as (client,):
            failing, went, failures = used(client, options.decisions, np.random.default_rng(seed), options.insist)
        last = went[-100:].count(failing)
        most = max(most, last)
        print(f"| {seed} | {failing} | {failures} | {went[:100].count(failing)} | {last} |", flush=True)
    return int(most > MOST_OF_LAST_100)


def used(client: httpx.Client, decisions: int, rng: np.random.Generator, insist: bool) -> tuple[str, list[str], int]:
    """The model that fails, the model of each decision, and how often it failed."""
    failing, went, failures = "", [], 0
    for number in range(decisions):
        thing = THINGS[int(rng.integers(len(THINGS)))]
        request = {"prompt": f"Review change {number} of our {thing}", "task_type": "code_review"}
        answer = client.post("/v1/quantum/route", json={"request": request}).raise_for_status().json()
        ref = f"{answer['provider']}/{answer['model']}"
        failing = failing or ref
        went.append(ref)
        called = failing if insist else ref
        failures += called == failing
        success = called != failing and bool(rng.random() < answer["expected"]["success"])
        report = {"decision_id": answer["decision_id"], "model": called, "success": success}
        client.post("/v1/quantum/feedback", json=report).raise_for_status()
    return failing, went, failures


if __name__ == "__main__":
    sys.exit(main())
