"""How the cells of a grid ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

#: Of a process that was asked to stop and goes on when it is launched again (EX_TEMPFAIL of sysexits.h).
INTERRUPTED = 75
#: Longest list of cells of one kind that is shown one by one.
LISTED = 20


@dataclass
class Outcome:
    """How a cell ended.

    Attributes:
        label: A short name for people.
        status: `done`, `failed`, `killed`, `interrupted` where it was asked to stop and goes on when it is launched
            again, or `running` where another process holds the cell.
        text: The same in a few words, with the result.
        folder: The cell's directory, empty where it did not get that far.
        skipped: Whether nothing was computed here: it was done before, or another process did it or does.
        repeated: Whether it is the same cell as one before it in the list, which was run once for both.
        seconds: Wall time of its process, from start to end; 0 where it had none.
    """

    label: str
    status: str = "killed"
    text: str = ""
    folder: str = ""
    skipped: bool = False
    repeated: bool = False
    seconds: float = 0.0


def told(outcomes: Sequence[Outcome]) -> int:
    """Print how a grid ended: how many cells are done, and which are not.

    Returns:
        The exit status: 0 where every cell is done; 75 where the others were asked to stop, so that the same command
        goes on with them; 1 otherwise.
    """
    cells = [outcome for outcome in outcomes if not outcome.repeated]
    bad = [outcome for outcome in cells if outcome.status != "done"]
    print(f"{len(cells) - len(bad)} of {len(cells)} cells done" + (f", {len(bad)} not:" if bad else "."))
    stopped = [outcome for outcome in bad if outcome.status == "interrupted"]
    for outcome in bad:
        if outcome.status != "interrupted" or len(stopped) <= LISTED:
            print(f"  {outcome.label}  {outcome.text}  {outcome.folder}")
    if len(stopped) > LISTED:
        kinds = ", ".join(f"{count} {text}" for text, count in Counter(outcome.text for outcome in stopped).items())
        print(f"  {kinds}")
    if not bad:
        return 0
    return INTERRUPTED if len(stopped) == len(bad) else 1
