"""A short run of the machine; `scripts/measure_cache.py operations` makes a long one."""

from __future__ import annotations

from pathlib import Path

from cache_machine import CacheMachine
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from redis_process import patient_tier, running_redis


def test_two_processes_and_one_redis_serve_only_what_stands(tmp_path: Path) -> None:
    with running_redis(tmp_path, "--appendonly", "no") as server:
        tiers = [patient_tier(server.url) for _ in range(2)]
        CacheMachine.url, CacheMachine.tiers = server.url, tiers
        try:
            run_state_machine_as_test(
                CacheMachine,
                settings=settings(
                    max_examples=25, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck)
                ),
            )
        finally:
            for tier in tiers:
                tier.close()
