"""How the cells of a grid ended."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vlmbench.cell.stopping import EXIT_STATUS as INTERRUPTED

GOES_ON = "interrupted; it goes on when it is launched again"
#: Longest list of cells of one kind that is shown one by one.
LISTED = 20


@dataclass
class Outcome:
    """How a cell ended.

    Attributes:
        label: A short name for people.
        status: `done`, `failed`, `killed` where its process died without a word, `interrupted` where it was asked to
            stop and goes on when it is launched again, `running` where another process holds the cell, or `submitted`
            where nobody waits for its end.
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
    sent = sum(outcome.status == "submitted" for outcome in cells)
    bad = [outcome for outcome in cells if outcome.status not in ("done", "submitted")]
    ways = [f", {sent} submitted"] * bool(sent) + [f", {len(bad)} not:" if bad else "."]
    print(f"{len(cells) - len(bad) - sent} of {len(cells)} cells done{''.join(ways)}")
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


def write_told(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Write how cells ended for the launcher to read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps([dataclasses.asdict(one) for one in outcomes]), encoding="utf-8")
    temporary.replace(path)


def read_told(path: Path) -> list[Outcome]:
    """Return how the cells of a job ended, in their order; nothing where the job did not come to its end."""
    try:
        return [Outcome(**one) for one in json.loads(path.read_text(encoding="utf-8"))]
    except FileNotFoundError:
        return []
