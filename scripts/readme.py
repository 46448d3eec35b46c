"""The README, and the tables in it that scripts keep."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"


def with_table(text: str, begin: str, end: str, table: str) -> str:
    """Return the README's text with another table between two marks.

    Raises:
        ValueError: The marks are gone.
    """
    before, first, rest = text.partition(begin)
    _, last, after = rest.partition(end)
    if not first or not last:
        raise ValueError(f"{README} lacks the marks {begin} and {end}")
    return f"{before}{begin}\n{table}\n{end}{after}"
