"""How soon does an acknowledged outcome show in the decisions of every web process?

Usage: measure_visibility.py [--processes 4] [--outcomes 20] [--store sqlite --store redis]

Starts so many real servers on one store. Each outcome is reported to one of them in turn; the clock starts when it is
acknowledged, and stops in each process when that process expects another success of the model. Prints a Markdown table,
in seconds; 1 if any took more than two.
"""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import numpy as np
from live_servers import live_servers, machine

LIMIT_S = 2.0
LOOK_EVERY_S = 0.005


def main() -> int:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--outcomes", type=int, default=20)
    parser.add_argument("--store", action="append", choices=["sqlite", "redis"])
    options = parser.parse_args()
    print(f"{options.processes} processes, {options.outcomes} outcomes, {machine()}\n")
    print("| store | median s | 95% s | worst s |\n|---|---|---|---|")
    worst = 0.0
    for store in options.store or ["sqlite", "redis"]:
        with (
            TemporaryDirectory() as scratch,
            live_servers(Path(scratch), options.processes, store, {"MONKEY_CODER_EXPLORE": "false"}) as clients,
        ):
            seconds = measured(clients, options.outcomes)
        worst = max(worst, float(seconds.max()))
        print(
            f"| {store} | {np.median(seconds):.3f} | {np.quantile(seconds, 0.95):.3f} | {seconds.max():.3f} |",
            flush=True,
        )
    return int(worst > LIMIT_S)


def measured(clients: list[httpx.Client], outcomes: int) -> np.ndarray:
    """(outcomes, processes) seconds from the acknowledgement of each outcome until each process shows it."""
    refs = [model["ref"] for model in clients[0].get("/v1/quantum/models").raise_for_status().json()["models"]]
    seconds = np.zeros((outcomes, len(clients)))
    with ThreadPoolExecutor(len(clients)) as watchers:
        for number in range(outcomes):
            ref, client = refs[number % len(refs)], clients[number % len(clients)]
            decision_id, before = asked(client, ref)
            while any(asked(each, ref)[1] != before for each in clients):
                _, before = asked(client, ref)
            report = {"decision_id": decision_id, "model": ref, "success": False}
            if client.post("/v1/quantum/feedback", json=report).status_code != 202:
                raise SystemExit("an outcome was not acknowledged")
            acknowledged = time.monotonic()
            shown = watchers.map(lambda each, ref=ref, before=before: shown_at(each, ref, before), clients)
            seconds[number] = [max(0.0, at - acknowledged) for at in shown]
    return seconds


def asked(client: httpx.Client, ref: str) -> tuple[str, float]:
    """Id of a decision between one model, and the success that is expected of it."""
    request = {"prompt": "Fix the race in our cache", "task_type": "debugging", "allowed_models": [ref]}
    answer = client.post("/v1/quantum/route", json={"request": request}).raise_for_status().json()
    return answer["decision_id"], answer["expected"]["success"]


def shown_at(client: httpx.Client, ref: str, before: float) -> float:
    """When a process expects something else of a model than before."""
    while asked(client, ref)[1] == before:
        time.sleep(LOOK_EVERY_S)
    return time.monotonic()


if __name__ == "__main__":
    sys.exit(main())
