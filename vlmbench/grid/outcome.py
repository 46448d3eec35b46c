"""How the cells of a grid ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass
class Outcome:
    """How a cell ended.

    Attributes:
        label: A short name for people.
        status: `done`, `failed`, `killed`, `interrupted` where it was asked to stop and goes on when it is launched
            again, or `running` where another process holds the cell.
        text: The same in a few words, with the result.
        folder: The cell's directory, empty where it did not get that far.
        skipped: Whether it was done before.
    """

    label: str
    status: str = "killed"
    text: str = ""
    folder: str = ""
    skipped: bool = False


def told(outcomes: Sequence[Outcome]) -> int:
    """Print how a grid ended: how many cells are done, and which are not; returns the exit status."""
    bad = [outcome for outcome in outcomes if outcome.status != "done"]
    total = len(outcomes)
    print(f"{total - len(bad)} of {total} cells done" + (f", {len(bad)} not:" if bad else "."))
    for outcome in bad:
        print(f"  {outcome.label}  {outcome.text}  {outcome.folder}")
    return 1 if bad else 0
