"""Where the real image sets lie that some tests read, and what to do where they do not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

VARIABLE = "VLMBENCH_REAL_DATA"


def real_set(name: str) -> Path:
    """Return the folder of a real set, or skip the test and say where it was looked for."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get(VARIABLE) or beside) / name
    if not folder.is_dir():
        pytest.skip(f"the real set {name} is not at {folder}; {VARIABLE} names the folder of all sets")
    return folder
