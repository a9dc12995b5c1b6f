"""Catalog files for tests, and a model that is good enough for one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

OWN: dict[str, Any] = {
    "context_window": 1000,
    "max_output": 100,
    "quality": {"default": 0.5, "debugging": 0.4},
    "latency_s": 2.0,
    "sources": {"quality": "our own measurement"},
    "prices": {"input_mtok": 1.0, "output_mtok": 4.0},
}


def own(**changes: object) -> dict[str, Any]:
    """The model with other fields; `...` takes one out."""
    return {name: value for name, value in (OWN | changes).items() if value is not ...}


def write(path: Path, **content: object) -> Path:
    """Write a catalog file, or one of models to add."""
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path
