"""Routing beside feedback: python packages/core/tests/benchmarks/bench_feedback.py.

Routes at a constant rate, in turn without and with reports coming in at another, and compares the latencies within each
round. Every report is about a decision of its own; those that were acknowledged are counted in the store afterwards.
`--batch N` sends N reports a request. Prints a table, or JSON with `--json`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import httpx
from load import allow_many_connections, open_loop
from open_loop import WORDS, Load, percentiles
from subjects import Subject, engine

from monkey_coder.storage.opening import open_store
from monkey_coder.storage.port import START

MANY = 256
"""Decisions asked for at once."""


def decided(url: str, count: int, seed: int) -> list[str]:
    """Ids of so many decisions of the server."""
    ids: list[str] = []
    with httpx.Client(base_url=url, timeout=60.0) as client:
        while len(ids) < count:
            prompts = [f"Task {seed}-{len(ids) + n}: {' '.join(WORDS[n % 20 :])}" for n in range(MANY)]
            asked = {"requests": [{"request": {"prompt": prompt}} for prompt in prompts]}
            answer = client.post("/v1/quantum/route/batch", json=asked).raise_for_status().json()
            ids += [result["decision"]["decision_id"] for result in answer["results"]]
    return ids[:count]


def feedback_requests(ids: Sequence[str], host: str, batch: int) -> list[bytes]:
    """HTTP requests with one report on each decision, `batch` of them together."""
    path = "/v1/quantum/feedback" if batch == 1 else "/v1/quantum/feedback/batch"
    reports = [{"decision_id": made, "success": n % 3 > 0, "latency_ms": 900.0} for n, made in enumerate(ids)]
    made = []
    for start in range(0, len(reports), batch):
        lot = reports[start : start + batch]
        body = json.dumps(lot[0] if batch == 1 else {"reports": lot}).encode()
        head = f"POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
        made.append(head.encode() + b"\r\n\r\n" + body)
    return made


def send(url: str, ids: Sequence[str], rate: float, batch: int) -> dict[str, Any]:
    """Report at a constant rate, and say what the server said to it."""
    requests = feedback_requests(ids, urlsplit(url).netloc, batch)
    record = asyncio.run(Load(url, requests, rate / batch, 64).run())
    statuses = Counter(record.status)
    return {"sent": len(requests), "accepted": statuses[202], **percentiles(record.latency)}


def stored(state_dir: Path) -> int:
    """Outcomes in the store of a deployment."""
    count, position = 0, START
    with closing(open_store(state_dir, None, time.time)) as store:
        while rows := store.read_outcomes(position, 10_000):
            count, position = count + len(rows), rows[-1].position
    return count


def measure(subject: Subject, given: argparse.Namespace) -> list[dict[str, Any]]:
    """Rounds of routing alone and routing beside feedback."""
    rounds = []
    for turn in range(given.rounds):
        ids = decided(subject.url, round(given.feedback * given.seconds), turn)
        alone = open_loop(subject, given.rate, given.connections, given.seconds, seed=2 * turn)
        command = [sys.executable, __file__, "--send", subject.url, "--feedback", str(given.feedback)]
        with subprocess.Popen(
            [*command, "--batch", str(given.batch)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as sender:
            assert sender.stdin is not None
            sender.stdin.write("\n".join(ids))
            sender.stdin.close()
            time.sleep(0.5)
            beside = open_loop(subject, given.rate, given.connections, given.seconds - 1.0, seed=2 * turn + 1)
            assert sender.stdout is not None
            reports = json.loads(sender.stdout.read())
        rounds.append({"alone": alone, "beside": beside, "feedback": reports})
    return rounds


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rate", type=float, default=1500.0, help="requests to route per second")
    parser.add_argument("--feedback", type=float, default=2000.0, help="reports per second")
    parser.add_argument("--batch", type=int, default=1, help="reports in a request")
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--send", metavar="URL", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.send:
        print(json.dumps(send(given.send, sys.stdin.read().split(), given.feedback, given.batch)))  # noqa: T201
        return 0
    allow_many_connections()
    with TemporaryDirectory() as state:
        settings = {"MONKEY_CODER_STATE_DIR": state}
        with engine("engine", workers=given.workers, settings=settings) as subject:
            rounds = measure(subject, given)
        acknowledged = sum(r["feedback"]["accepted"] for r in rounds) * given.batch
        kept = stored(Path(state))
    ratios = [r["beside"]["p95_ms"] / r["alone"]["p95_ms"] for r in rounds]
    result = {"rounds": rounds, "p95_ratio": median(ratios), "acknowledged": acknowledged, "stored": kept}
    if given.json:
        print(json.dumps(result))  # noqa: T201 - what it is for
        return 0
    for r, ratio in zip(rounds, ratios, strict=True):
        for name in ("alone", "beside"):
            part = r[name]
            print(f"{name:8s} {part['rate']:8.0f}/s  p50 {part['p50_ms']:7.2f}  p95 {part['p95_ms']:7.2f}  "  # noqa: T201
                  f"p99 {part['p99_ms']:7.2f} ms  errors {part['errors']}  refused {part['refused']}")  # fmt: skip
        part = r["feedback"]
        print(f"feedback {part['accepted']} of {part['sent']} accepted, p95 {part['p95_ms']:.2f} ms; ratio {ratio:.2f}")  # noqa: T201
    print(f"median ratio of the p95 of routing {median(ratios):.2f}; acknowledged {acknowledged}, stored {kept}")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
