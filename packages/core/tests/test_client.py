"""The Python client: against a real server, and against one that is away, slow to come, or not ours."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from servers import PATIENCE_S, Server, serving

from monkey_coder.client import AsyncRoutingClient, EpisodeResult, RoutingClient, RoutingError, Tried
from monkey_coder.models import ExecuteRequest, FeedbackRequest, Preferences, RouteRequest, RoutingDecision

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "client.md"
PROMPT = "Fix the race in our LRU cache"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {"MONKEY_CODER_EXPLORE": "false"}  # which may try again what did not answer
    with serving(tmp_path_factory.mktemp("client"), settings=settings) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[RoutingClient]:
    with RoutingClient(server.url, timeout_s=PATIENCE_S) as running:
        yield running


def task(**preferences: Any) -> RouteRequest:
    request = ExecuteRequest(prompt=PROMPT, task_type="debugging")
    return RouteRequest(request=request, preferences=Preferences(**preferences))


class Attempts:
    """Calls of models that end as told, in turn; what was decided on is kept."""

    def __init__(self, *ends: Tried) -> None:
        self.ends = list(ends)
        self.decisions: list[RoutingDecision] = []

    def __call__(self, decision: RoutingDecision) -> Tried:
        self.decisions.append(decision)
        return self.ends[min(len(self.decisions), len(self.ends)) - 1]

    async def later(self, decision: RoutingDecision) -> Tried:
        await asyncio.sleep(0)
        return self(decision)


def stored(server: Server, decision_id: str) -> list[dict[str, Any]]:
    """The outcomes of a decision, as the store has them."""
    from monkey_coder.storage.opening import open_store

    store = open_store(server.state_dir, None, time.time)
    try:
        return [json.loads(row.payload) | {"model": row.model} for row in store.outcomes_of(decision_id)]
    finally:
        store.close()


FAILED, PASSED = Tried(success=False, cost_usd=0.01), Tried(success=True, cost_usd=0.02, output_tokens=80)


def test_an_episode_escalates_until_it_succeeds_and_reports_each_try(server: Server, client: RoutingClient) -> None:
    attempts = Attempts(FAILED, Tried(error_type="timeout"), PASSED)
    result = client.episode(task(), attempts)
    assert (result.ended, result.success) == ("success", True)
    assert result.spent_usd == pytest.approx(0.03)
    tried = [decision.ref for decision in attempts.decisions]
    assert len(set(tried)) == 3
    assert len({decision.episode_id for decision in attempts.decisions}) == 1
    reports = [stored(server, decision.decision_id) for decision in attempts.decisions]
    assert [[one["model"] for one in told] for told in reports] == [[ref] for ref in tried]
    assert [told[0].get("success") for told in reports] == [False, None, True]
    assert [told[0]["final"] for told in reports] == [False, False, True]
    assert reports[1][0]["error_type"] == "timeout"
    assert reports[2][0]["output_tokens"] == 80


def test_an_episode_ends_with_its_attempts(server: Server, client: RoutingClient) -> None:
    attempts = Attempts(Tried(quality=0.4))
    result = client.episode(PROMPT, attempts, max_attempts=2)
    assert (result.ended, result.success, len(result.tries)) == ("attempts", False, 2)
    assert result.spent_usd == pytest.approx(sum(decision.expected.cost_usd for decision in attempts.decisions))
    assert [stored(server, d.decision_id)[0]["final"] for d in attempts.decisions] == [False, True]


def test_an_episode_ends_with_its_budget_and_says_that_it_is_over(server: Server, client: RoutingClient) -> None:
    attempts = Attempts(Tried(success=False, cost_usd=0.9))
    result = client.episode(task(max_cost_usd=1.0), attempts, max_attempts=50)
    assert result.ended == "no_model"
    assert 1 <= len(result.tries) < 10
    last = stored(server, attempts.decisions[-1].decision_id)
    assert [one["final"] for one in last] == [False, True]


def test_without_any_model_an_episode_has_no_tries(client: RoutingClient) -> None:
    result = client.episode(task(max_cost_usd=0.0), Attempts(PASSED))
    assert result == EpisodeResult("no_model", ())


def test_what_an_attempt_raises_is_reported_and_goes_on(server: Server, client: RoutingClient) -> None:
    seen: list[RoutingDecision] = []

    def broken(decision: RoutingDecision) -> Tried:
        seen.append(decision)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        client.episode(task(), broken)
    assert stored(server, seen[0].decision_id)[0]["error_type"] == "other"


def test_feedback_says_whether_it_was_new(client: RoutingClient) -> None:
    decision = client.route(PROMPT)
    report = FeedbackRequest(decision_id=decision.decision_id, success=True, outcome_id="mine")
    assert client.feedback(report)
    assert not client.feedback(report)
    good, forged = client.feedback_batch([report, FeedbackRequest(decision_id="forged", success=True)])
    assert good.accepted
    assert forged.problem is not None
    assert forged.problem.code == "unknown_decision"


def test_what_the_engine_refuses_is_an_error_with_its_code(client: RoutingClient) -> None:
    for refused, status, code in (
        (lambda: client.feedback(FeedbackRequest(decision_id="forged", success=True)), 404, "unknown_decision"),
        (lambda: client.route(task(max_cost_usd=0.0)), 422, "no_eligible_model"),
    ):
        with pytest.raises(RoutingError) as caught:
            refused()
        assert (caught.value.problem.status, caught.value.problem.code) == (status, code)


async def test_the_asynchronous_client_does_the_same(server: Server) -> None:
    async with AsyncRoutingClient(server.url, api_key="unused", timeout_s=PATIENCE_S) as client:
        attempts = Attempts(FAILED, PASSED)
        result = await client.episode(task(), attempts.later)
        assert (result.ended, len(result.tries)) == ("success", 2)
        assert (await client.episode(task(max_cost_usd=0.0), attempts.later)).ended == "no_model"
        spent = Attempts(Tried(success=False, cost_usd=1.0))
        assert (await client.episode(task(max_cost_usd=1.0), spent.later)).ended == "no_model"
        decision = await client.route(PROMPT)
        report = FeedbackRequest(decision_id=decision.decision_id, quality=0.7)
        assert await client.feedback(report)
        assert [one.accepted for one in await client.feedback_batch([report])] == [True]

        async def broken(_: RoutingDecision) -> Tried:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await client.episode(task(), broken)
        with pytest.raises(RoutingError, match="unknown_decision"):
            await client.feedback(FeedbackRequest(decision_id="forged", success=True))


def test_the_program_on_the_page_runs(server: Server, tmp_path: Path) -> None:
    (program,) = re.findall(r"<!-- tested:[^\n]*\n```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"ROUTER_URL": server.url},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"success 0\.008 \S+/\S+ \S+/\S+\n", done.stdout)


def test_it_imports_httpx_and_the_models_alone() -> None:
    program = "import sys, monkey_coder.client; print(*sorted(m for m in sys.modules if m.startswith('monkey_coder')))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    own = ["monkey_coder.client", "monkey_coder.client_course"]
    assert done.stdout.split() == ["monkey_coder", *own, "monkey_coder.models"]


# A server that answers as told


def scripted(
    *answers: httpx.Response | httpx.TransportError,
) -> tuple[Callable[[httpx.Request], httpx.Response], list[str]]:
    left, seen = list(answers), []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.path)
        given = left.pop(0)
        if isinstance(given, httpx.TransportError):
            raise given
        return given

    return answer, seen


BUSY = {"title": "Busy", "status": 503, "code": "overloaded", "detail": "later"}
REPORT = FeedbackRequest(decision_id="d", success=True)


def busy(**headers: str) -> httpx.Response:
    return httpx.Response(503, json=BUSY, headers=headers)


def test_a_busy_server_is_asked_again_as_late_as_it_says() -> None:
    answer, seen = scripted(busy(**{"retry-after": "7"}), busy(), httpx.ConnectError("away"), httpx.Response(202))
    slept: list[float] = []
    with RoutingClient("http://engine", transport=httpx.MockTransport(answer), sleep=slept.append) as client:
        assert client.feedback(REPORT)
    assert len(seen) == 4
    assert slept[0] >= 7.0
    assert all(0.0 < pause < 1.0 for pause in slept[1:])


@pytest.mark.parametrize(
    ("given", "variable", "sent"),
    [
        (None, None, None),
        (None, "from-outside", "Bearer from-outside"),
        ("given", "from-outside", "Bearer given"),
        ("", "from-outside", None),
    ],
)
async def test_the_key_is_the_given_one_or_that_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, given: str | None, variable: str | None, sent: str | None
) -> None:
    monkeypatch.delenv("MONKEY_CODER_API_KEY", raising=False)
    if variable is not None:
        monkeypatch.setenv("MONKEY_CODER_API_KEY", variable)
    seen: list[str | None] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("authorization"))
        return httpx.Response(202)

    transport = httpx.MockTransport(answer)
    with RoutingClient("http://engine", given, transport=transport) as client:
        client.feedback(REPORT)
    async with AsyncRoutingClient("http://engine", given, transport=transport) as later:
        await later.feedback(REPORT)
    assert seen == [sent, sent]


@pytest.mark.parametrize(("last", "code"), [(busy, "overloaded"), (lambda: httpx.ConnectError("away"), "unreachable")])
async def test_patience_ends(last: Callable[[], httpx.Response | httpx.TransportError], code: str) -> None:
    answer, seen = scripted(busy(), busy(), last())
    with (
        RoutingClient(
            "http://engine", retries=2, transport=httpx.MockTransport(answer), sleep=lambda _: None
        ) as client,
        pytest.raises(RoutingError) as caught,
    ):
        client.feedback(REPORT)
    assert (caught.value.problem.code, len(seen)) == (code, 3)
    answer, seen = scripted(busy(), last())
    async with AsyncRoutingClient(
        "http://engine", retries=1, transport=httpx.MockTransport(answer), sleep=lambda _: asyncio.sleep(0)
    ) as later:
        with pytest.raises(RoutingError, match=code):
            await later.feedback(REPORT)
    assert len(seen) == 2


def test_somebody_elses_error_page_is_an_error_too() -> None:
    answer, _ = scripted(httpx.Response(502, text="<html>bad gateway</html>"))
    with (
        RoutingClient("http://engine", transport=httpx.MockTransport(answer)) as client,
        pytest.raises(RoutingError, match="bad gateway") as caught,
    ):
        client.route(PROMPT)
    assert (caught.value.problem.status, caught.value.problem.code) == (502, "http_error")
