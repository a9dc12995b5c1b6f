"""How soon does an acknowledged outcome show in the decisions of every web process?

Usage: measure_visibility.py [--processes 4] [--outcomes 20] [--store sqlite --store redis] [--workers] [--rate 0]

Starts so many real servers on one store; or with `--workers` one server with so many workers, which is watched over
four times as many connections, for the system deals them out. Meanwhile --rate decisions a second are asked for. Each
outcome is reported to one of them in turn; the clock starts when it is acknowledged, and stops in each process when
that process expects another success of the model. Prints a Markdown table, in seconds; 1 if any took more than two.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import numpy as np
from live_servers import live_servers, machine

LIMIT_S = 2.0
LOOK_EVERY_S = 0.005
ASKERS = 4


def main() -> int:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--outcomes", type=int, default=20)
    parser.add_argument("--store", action="append", choices=["sqlite", "redis"])
    parser.add_argument("--workers", action="store_true", help="one server with so many workers")
    parser.add_argument("--rate", type=float, default=0.0, help="decisions a second that are asked for meanwhile")
    options = parser.parse_args()
    servers, workers = (1, options.processes) if options.workers else (options.processes, 1)
    print(
        f"{servers} servers of {workers} processes, {options.outcomes} outcomes, {options.rate:g} decisions a second, "
        f"{machine()}\n"
    )
    print("| store | other decisions/s | median s | 95% s | worst s |\n|---|---|---|---|---|")
    worst = 0.0
    for store in options.store or ["sqlite", "redis"]:
        with (
            TemporaryDirectory() as scratch,
            live_servers(Path(scratch), servers, store, {"MONKEY_CODER_EXPLORE": "false"}, workers) as clients,
            connections(clients, 1 if workers == 1 else 4 * workers) as watched,
            asking(clients, options.rate) as answered,
        ):
            began, before = time.monotonic(), len(answered)
            seconds = measured(watched, options.outcomes)
            rate = (len(answered) - before) / (time.monotonic() - began)
        worst = max(worst, float(seconds.max()))
        figures = f"{np.median(seconds):.3f} | {np.quantile(seconds, 0.95):.3f} | {seconds.max():.3f}"
        print(f"| {store} | {rate:.0f} | {figures} |", flush=True)
    return int(worst > LIMIT_S)


@contextmanager
def connections(clients: list[httpx.Client], each: int) -> Iterator[list[httpx.Client]]:
    """So many clients of each server, every one with a connection of its own."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(httpx.Client(base_url=client.base_url, timeout=60.0))
            for client in clients
            for _ in range(each)
        ]


@contextmanager
def asking(clients: list[httpx.Client], rate: float) -> Iterator[list[int]]:
    """Ask for new decisions at a steady pace, of each server in turn, until the block ends; yields their statuses."""
    stop, answered = threading.Event(), list[int]()
    urls = [f"{client.base_url}/v1/quantum/route" for client in clients]

    def ask() -> None:
        number, due = 0, time.monotonic()
        with httpx.Client(timeout=60.0) as client:
            while not stop.is_set():
                body = {"request": {"prompt": f"Task {number}: tidy the build"}}
                answered.append(client.post(urls[number % len(urls)], json=body).raise_for_status().status_code)
                number, due = number + 1, due + ASKERS / rate
                stop.wait(max(0.0, due - time.monotonic()))

    with ThreadPoolExecutor(ASKERS) as askers:
        asked = [askers.submit(ask) for _ in range(ASKERS if rate else 0)]
        try:
            yield answered
        finally:
            stop.set()
    for each in asked:
        each.result()


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
