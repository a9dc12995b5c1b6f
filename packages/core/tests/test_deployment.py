"""One secret for a whole deployment: hosts that share a Redis agree on it, and keep it while Redis is away."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from contract import ask
from redis_process import running_redis
from servers import PATIENCE_S, serving

from monkey_coder.deployment import SECRET_BYTES, deployment_secret, local_secret
from monkey_coder.settings import Settings
from monkey_coder.storage.opening import open_store

FEEDBACK = "/v1/quantum/feedback"


def test_a_host_accepts_what_another_has_signed(tmp_path: Path) -> None:
    with running_redis(tmp_path) as redis:
        settings = {"MONKEY_CODER_REDIS_URL": redis.url}
        folders = [tmp_path / name for name in ("one", "two")]
        for folder in folders:
            folder.mkdir()
        with serving(folders[0], settings=settings) as one, serving(folders[1], settings=settings) as two:
            with (
                httpx.Client(base_url=one.url, timeout=PATIENCE_S) as first,
                httpx.Client(base_url=two.url, timeout=PATIENCE_S) as second,
            ):
                made = ask(first)["decision_id"]
                assert second.post(FEEDBACK, json={"decision_id": made, "success": True}).status_code == 202
            assert local_secret(one.state_dir) == local_secret(two.state_dir)  # for a start without Redis


def test_a_host_that_starts_while_redis_is_away_goes_by_its_copy(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with running_redis(tmp_path) as redis:
        host = Settings(state_dir=tmp_path / "late", redis_url=redis.url)
        store = open_store(host.state_dir, redis.url, lambda: 0.0)
        agreed = deployment_secret(Settings(state_dir=tmp_path / "early", redis_url=redis.url), store)
        assert deployment_secret(host, store) == agreed
        redis.kill()
        assert deployment_secret(host, store) == agreed
        store.close()
    assert "the copy of this host must do" in caplog.text


def test_what_redis_holds_is_taken_only_if_it_can_be_a_secret(tmp_path: Path) -> None:
    with running_redis(tmp_path) as redis:
        host = Settings(state_dir=tmp_path / "host", redis_url=redis.url)
        store = open_store(host.state_dir, redis.url, lambda: 0.0)
        store.put_document("deployment", "secret", b"short", 0)
        assert deployment_secret(host, store) == local_secret(host.state_dir)
        store.close()


def test_an_operators_own_secret_stays_out_of_every_store(tmp_path: Path) -> None:
    own = "ab" * SECRET_BYTES
    host = Settings(state_dir=tmp_path / "host", secret=own)
    store = open_store(host.state_dir, None, lambda: 0.0)
    assert deployment_secret(host, store) == bytes.fromhex(own)
    assert store.document("deployment", "secret") is None
    assert not (host.state_dir / "secret").exists()
    assert own not in repr(host)
    store.close()
