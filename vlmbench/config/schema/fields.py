"""Fields that say what they admit: their choices or range are in the metadata, where `checks.check_fields` looks."""

from __future__ import annotations

from dataclasses import field
from typing import Any

from omegaconf import MISSING


def one_of(*options: str, default: str = MISSING) -> Any:
    """Declare a string field that takes one of `options`."""
    return field(default=default, metadata={"choices": options})


def number(default: Any, low: float, high: float = float("inf")) -> Any:
    """Declare a numeric field with an inclusive range."""
    return field(default=default, metadata={"range": (low, high)})
