"""Cheap marks of a text that the embedding does not hold: its length, its characters, telling words, its end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from monkey_coder.ports import FloatArray
from monkey_coder.quantum.embedding import head_and_tail

MARKS: Final = 52
"""How many marks there are."""
