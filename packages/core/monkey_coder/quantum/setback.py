"""How much the failure of one model says about the others, learned from attempts that followed a failure.

Tasks differ in ways that no prompt shows, and a task that one model failed at is likely a hard one. As in the Rasch
model, a failure lowers the log-odds of every other model alike: by so many logits for a model that was sure to succeed,
and in proportion for a weaker one. That number is the only unknown. It is estimated by one step of Newton's method for
each outcome, with a Gaussian prior around `SETBACK_LOGITS` (online logistic regression, as an extended Kalman filter).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from monkey_coder.ports import SETBACK_LOGITS

_MOST: Final = 6.0
_FADE: Final = 0.999
"""Factor on what was learned with each further attempt."""
_LEAST_CHANCE: Final = 0.01


@dataclass(slots=True)
class Setback:
    """What is known of it. For one thread.

    Attributes:
        logits: By how many logits the failure of a sure model lowers the chances of all others; at least 0.
        information: Inverse variance of that; the prior's is 1, as that of some ten outcomes.
    """

    logits: float = SETBACK_LOGITS
    information: float = 1.0

    def after(self, chance: float, given: float) -> float:
        """P(success) of a model after failures.

        Args:
            chance: P(success) of the model at a task that nobody has tried yet.
            given: Sum of P(success) of the models that failed.
        """
        kept = min(max(chance, _LEAST_CHANCE), 1.0 - _LEAST_CHANCE)
        return 1.0 / (1.0 + (1.0 - kept) / kept * math.exp(self.logits * given))

    def learn(self, chance: float, given: float, score: float, weight: float = 1.0) -> None:
        """Learn from an attempt that followed failures.

        Args:
            chance: As in `after`.
            given: As in `after`, above 0.
            score: What came of it, 0..1.
            weight: What the word of the reporter is worth, 0..1.
        """
        expected = self.after(chance, given)
        slope = -given * weight
        self.information = 1.0 + _FADE * (self.information - 1.0) + slope * slope * expected * (1.0 - expected)
        self.logits = min(max(self.logits + slope * (score - expected) / self.information, 0.0), _MOST)
