"""What /metrics says of several processes; each of them is a real one here."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from servers import PATIENCE_S

from monkey_coder.quantum.metrics_exposition import DIRECTORY_VARIABLE, Exposition, settling

COUNTING = """
import sys
from prometheus_client import CollectorRegistry
from monkey_coder.ports import OutcomeEvent
from monkey_coder.quantum.metrics_collector import MetricsCollector
metrics = MetricsCollector(CollectorRegistry())
metrics.on_finished("decided", 3)
for size in (2, 100):
    metrics.on_batch(size, waiting=5)
metrics.on_provider("p", available=len(sys.argv) > 1, breaker="closed")
metrics.on_training(loss=0.5)
metrics.expect(["r"])
metrics.on_outcomes([OutcomeEvent("r", "p/m", float(len(sys.argv) > 1), 0.5)])
metrics.settle()
print("counted", flush=True)
sys.stdin.read()
"""

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start(tmp_path: Path):
    """Start processes that count the same and then wait."""
    started: list[subprocess.Popen[bytes]] = []

    def one(*arguments: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-c", COUNTING, *arguments],
            env=os.environ | {DIRECTORY_VARIABLE: str(tmp_path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"counted\n"
        return process

    yield one
    for process in started:
        process.communicate(timeout=PATIENCE_S)


def told(folder: Path) -> dict[str, float]:
    """Values by series, as anybody who shares the directory tells them."""
    text = Exposition(CollectorRegistry(), folder).render().decode()
    return {
        sample.name + "".join(f"[{value}]" for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_counts_are_added_up_and_ratios_follow_from_the_sums(tmp_path: Path, start: Start) -> None:
    start()
    start("good")
    both = told(tmp_path)
    assert both["quantum_route_requests_total[decided]"] == 6
    assert both["quantum_queue_depth"] == 10
    assert both["quantum_batch_size_bucket[2.0]"] == 2
    assert both["quantum_batch_size_bucket[+Inf]"] == both["quantum_batch_size_count"] == 4
    assert both["quantum_batch_size_sum"] == 204
    assert both["quantum_success_ratio[m][p]"] == 0.5
    assert both["quantum_cost_per_success_usd"] == 1.0
    assert both["quantum_provider_available[p]"] == 1  # the later word counts
    assert not any(name.endswith("_created") for name in both)


def test_a_process_that_is_gone_keeps_its_counts_and_leaves_no_queue(tmp_path: Path, start: Start) -> None:
    for arguments in ((), ("good",)):
        victim = start(*arguments)
        victim.kill()
        victim.wait()
    start()
    now = told(tmp_path)
    assert now["quantum_route_requests_total[decided]"] == 9
    assert now["quantum_batch_size_count"] == 6
    assert now["quantum_queue_depth"] == 5
    assert now["quantum_provider_available[p]"] == 0  # the dead one's word, good, is forgotten
    assert now["quantum_training_loss"] == 0.5


def test_promtool_has_nothing_to_say_against_the_sums(tmp_path: Path, start: Start) -> None:
    start()
    sums = Exposition(CollectorRegistry(), tmp_path).render()
    checked = subprocess.run(["promtool", "check", "metrics"], input=sums, capture_output=True)
    assert (checked.returncode, checked.stderr) == (0, b"")


async def test_series_are_kept_up_to_date_and_settled_at_the_end() -> None:
    settled = asyncio.Event()
    loop, times = asyncio.get_running_loop(), []

    def settle() -> None:
        times.append(time.monotonic())
        loop.call_soon_threadsafe(settled.set)

    async with settling(settle):
        await asyncio.wait_for(settled.wait(), PATIENCE_S)
        began = time.monotonic()
    assert times[-1] >= began
