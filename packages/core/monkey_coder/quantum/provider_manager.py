"""Which providers and models can be had (T2.3.2): circuit breakers fed by feedback, and what operators override.

Every web process folds the same stream of outcomes, and so comes to the same breakers without asking anybody. What it
cannot know alone it is told: which providers it may send probes to, which ones active checks do not reach, and what an
operator set, which is above the rest.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np

from monkey_coder.catalog.table import ModelTable
from monkey_coder.ports import BoolArray, DecisionEvent, Repeat
from monkey_coder.quantum.circuit_breaker import BreakerOptions, BreakerState, CircuitBreaker

Override = Literal["auto", "drained", "available"]

UNREACHABLE: Final = frozenset({"rate_limited", "timeout", "provider_error", "auth", "other"})
"""Errors that speak against the provider; `context_overflow` and `content_filtered` speak of the request."""

PROVIDER_OPTIONS: Final = BreakerOptions(failures=10)
"""More patient than a model's: one broken model of a provider opens its own breaker first."""


@dataclass(frozen=True, slots=True)
class BreakerReport:
    """One breaker as an operator sees it.

    Attributes:
        name: Provider, or model ref.
        state: What it is.
        failures: Failures in a row.
        opened_at: Seconds since 1970; None while closed.
        retry_at: When it lets probes through; None while closed.
    """

    name: str
    state: BreakerState
    failures: int
    opened_at: float | None
    retry_at: float | None


@dataclass(frozen=True, slots=True)
class ProviderReport:
    """One provider as an operator sees it.

    Attributes:
        breaker: The provider's own.
        available: Whether decisions may go there, all told.
        override: What an operator set.
        last_error: Type of the latest error; None when there was none since this process began to follow.
        healthy: False while active checks do not reach it; True without such checks.
        models: Breakers of its models.
    """

    breaker: BreakerReport
    available: bool
    override: Override
    last_error: str | None
    healthy: bool
    models: tuple[BreakerReport, ...]


@dataclass(slots=True)
class CallReport:
    """What became of one call.

    Attributes:
        model: Ref of the model that was called.
        error_type: What went wrong, or None when it answered.
        decided_at: Tells when the decision was made, in seconds since 1970; asked only where it matters.
        at: When the report came.
    """

    model: str
    error_type: str | None
    decided_at: Callable[[], float]
    at: float


class ProviderManager:
    """Keeps a breaker per provider and per model. Safe to call from any thread.

    Args:
        refs: The models.
        clock: Seconds since 1970: breakers are shared between processes by way of the times of outcomes.
        rng: For the jitter of back-offs.
        model_options: Of the models' breakers.
        provider_options: Of the providers' breakers.
        on_exhausted: Told when a half-open breaker has given out its last probe, in the thread that decides;
            whoever serves a table should make a new one.
    """

    def __init__(
        self,
        refs: Sequence[str],
        clock: Callable[[], float],
        rng: np.random.Generator,
        model_options: BreakerOptions | None = None,
        provider_options: BreakerOptions = PROVIDER_OPTIONS,
        on_exhausted: Callable[[], None] = lambda: None,
    ) -> None:
        self._refs: tuple[str, ...] = ()
        self._now = clock
        self._rng = rng
        self._model_options, self._provider_options = model_options or BreakerOptions(), provider_options
        self._on_exhausted = on_exhausted
        self._lock = threading.Lock()
        self._overrides: Mapping[str, Override] = {}
        self._last_error: dict[str, str] = {}
        self._models: dict[str, CircuitBreaker] = {}
        self._providers: dict[str, CircuitBreaker] = {}
        self._permitted: frozenset[str] | None = None
        self._unhealthy: frozenset[str] = frozenset()
        self._troubled = False  # whether any breaker is not closed: spares the request path a look at them
        self.watch(refs)

    @property
    def providers(self) -> tuple[str, ...]:
        """All providers, in the order of the models."""
        return tuple(self._providers)

    def watch(self, refs: Sequence[str]) -> None:
        """Watch these models from now on; those that were watched before keep their breakers."""
        with self._lock:
            self._refs = tuple(refs)
            self._models = {
                ref: self._models.get(ref) or CircuitBreaker(self._model_options, self._rng) for ref in self._refs
            }
            self._providers = {
                name: self._providers.get(name) or CircuitBreaker(self._provider_options, self._rng)
                for name in dict.fromkeys(_provider(ref) for ref in self._refs)
            }
            self._look_for_trouble()

    def on_outcomes(self, reports: Iterable[CallReport]) -> None:
        """Take in reports, in order; models that are not watched are ignored."""
        changed = False
        with self._lock:
            for report in reports:
                model, error = self._models.get(report.model), report.error_type
                if model is None or (error is not None and error not in UNREACHABLE):
                    continue
                name = _provider(report.model)
                provider = self._providers[name]
                if error is None and model.quiet and provider.quiet:
                    continue  # most are, and tell nothing new
                decided_at = report.decided_at()
                for breaker in (model, provider):
                    breaker.record(error is None, decided_at, report.at)
                if error is not None:
                    self._last_error[name] = error
                changed = True
            if changed:
                self._look_for_trouble()

    def on_decided(self, events: Sequence[DecisionEvent]) -> None:
        """Count decisions for what is half-open as probes."""
        if self._troubled:
            self._note_probes([event.answer for event in events])

    def on_repeated(self, repeats: Sequence[Repeat]) -> None:
        """Count answers from the cache likewise."""
        if self._troubled:
            self._note_probes([repeat.said for repeat in repeats])

    def _note_probes(self, answers: Sequence[Mapping[str, Any]]) -> None:
        now, exhausted = self._now(), False
        with self._lock:
            for answer in answers:
                provider = answer["provider"]
                model = self._models.get(f"{provider}/{answer['model']}")
                for breaker in (model, self._providers.get(provider)):
                    if breaker is not None and breaker.state(now) == "half_open":
                        breaker.note_decision(now)
                        exhausted |= not breaker.allows(now)
        if exhausted:
            self._on_exhausted()

    def half_open(self) -> dict[str, bool]:
        """Providers where a breaker would let probes through now, each with whether this process has some out."""
        if not self._troubled:
            return {}
        now = self._now()
        with self._lock:
            found: dict[str, bool] = {}
            for name, breaker in (*self._providers.items(), *self._models.items()):
                if breaker.state(now) == "half_open":
                    found[_provider(name)] = found.get(_provider(name), False) or breaker.probing(now)
            return found

    def permit_probes(self, names: Collection[str] | None) -> None:
        """Say which providers this process may send probes to; None, as in the beginning: all."""
        with self._lock:
            self._permitted = None if names is None else frozenset(names)

    def unhealthy(self, names: Collection[str]) -> None:
        """Replace the set of providers that active checks do not reach; only an operator can let decisions go there."""
        with self._lock:
            self._unhealthy = frozenset(names)

    def override(self, states: Mapping[str, Override]) -> None:
        """Replace all that operators set, by provider; what is absent is automatic."""
        with self._lock:
            self._overrides = dict(states)

    def available(self, refs: Sequence[str]) -> BoolArray:
        """(M,) whether decisions may go to each model now; one that is not watched may be chosen."""
        now = self._now()
        with self._lock:
            providers = {name: self._provider_available(name, now) for name in self._providers}
            return np.array([self._model_available(ref, providers, now) for ref in refs], dtype=np.bool_)

    def table(self, base: ModelTable) -> ModelTable:
        """The same models, as far as they can be had now."""
        return replace(base, available=base.available & self.available(base.refs))

    def report(self) -> tuple[ProviderReport, ...]:
        """How every provider is doing."""
        now = self._now()
        with self._lock:
            return tuple(
                ProviderReport(
                    _report(name, breaker, now),
                    self._provider_available(name, now),
                    self._overrides.get(name, "auto"),
                    self._last_error.get(name),
                    name not in self._unhealthy,
                    tuple(_report(ref, self._models[ref], now) for ref in self._refs if _provider(ref) == name),
                )
                for name, breaker in self._providers.items()
            )

    def _look_for_trouble(self) -> None:
        self._troubled = any(b.retry_at is not None for b in (*self._models.values(), *self._providers.values()))

    def _provider_available(self, name: str, now: float) -> bool:
        match self._overrides.get(name, "auto"):
            case "drained":
                return False
            case "available":
                return True
            case _:
                return name not in self._unhealthy and self._lets_through(name, self._providers[name], now)

    def _model_available(self, ref: str, providers: Mapping[str, bool], now: float) -> bool:
        name = _provider(ref)
        forced = self._overrides.get(name) == "available"
        return providers.get(name, True) and (
            forced or ref not in self._models or self._lets_through(ref, self._models[ref], now)
        )

    def _lets_through(self, name: str, breaker: CircuitBreaker, now: float) -> bool:
        barred = self._permitted is not None and _provider(name) not in self._permitted
        return breaker.allows(now) and not (barred and breaker.state(now) == "half_open")


def _provider(ref: str) -> str:
    return ref.partition("/")[0]


def _report(name: str, breaker: CircuitBreaker, now: float) -> BreakerReport:
    return BreakerReport(name, breaker.state(now), breaker.failures, breaker.opened_at, breaker.retry_at)
