"""What requests say about providers: preferences weigh a little, failures decide who is not next."""

from __future__ import annotations

import pytest
from builders import Model, ask, chosen, engine, table

from monkey_coder.quantum.provider_bonus import FAILED_MALUS, provider_bonus

MODELS = table(Model("a/best", success=0.95), Model("a/good", success=0.9), Model("b/fair", success=0.5))


def attempt(ref: str, error_type: str | None) -> dict[str, object]:
    return {"model": ref, "success": False, "error_type": error_type}


def test_preferred_and_failed_providers_add_up() -> None:
    plain, preferred, both = (
        ask(),
        ask(preferred_providers=["b"]),
        ask(preferred_providers=["a"], attempts=[attempt("a/best", "timeout")]),
    )
    bonus = provider_bonus([plain, preferred, both], MODELS, 0.05)
    assert bonus[0].tolist() == [0.0, 0.0, 0.0]
    assert bonus[1].tolist() == pytest.approx([0.0, 0.0, 0.05])
    assert bonus[2].tolist() == pytest.approx([0.05 - FAILED_MALUS] * 2 + [0.0])


@pytest.mark.parametrize("collapse", ["best_score", "weighted", "consensus", "first_success", "combined"])
@pytest.mark.parametrize(
    ("error", "wanted"), [("provider_error", "b/fair"), ("context_overflow", "a/good"), (None, "a/good")]
)
def test_a_provider_that_just_failed_is_not_next(collapse: str, error: str | None, wanted: str) -> None:
    request = ask(attempts=[attempt("a/best", error)], options={"collapse_strategy": collapse})
    with engine(models=MODELS) as manager:
        (answer,) = manager.decide([request])
    assert chosen(answer) == wanted
    assert {chosen(answer), *map(chosen, answer["alternatives"])} == {"a/good", "b/fair"}


def test_it_is_next_when_there_is_nobody_else() -> None:
    request = ask(attempts=[attempt("a/best", "timeout")], allowed_models=["a/best", "a/good"])
    with engine(models=MODELS) as manager:
        (answer,) = manager.decide([request])
    assert chosen(answer) == "a/good"
