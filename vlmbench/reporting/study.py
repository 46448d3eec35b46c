"""What every section of a report is made from: the records, their predictions, and what the reader asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmbench.reporting.frames import Frames, misfit
from vlmbench.reporting.load import Unreadable
from vlmbench.reporting.rows import Row

if TYPE_CHECKING:
    import pandas as pd
    from PIL.Image import Image

#: The image of a key that a row's predictions name, from the row's domain. It raises UserError where the domain is not
#: on this machine, or not the one that was tested on.
LoadImage = Callable[["Row", str], "Image"]


@dataclass(frozen=True, slots=True)
class Settings:
    """What a reader asks of a report.

    Attributes:
        confidence: Of the intervals of differences.
        resamples: Bootstrap resamples behind them.
        margin: Largest difference that does not matter, in the metric's unit.
        power: Of the smallest detectable difference, and of "would need n".
        against: `published`, a CSV file of reference numbers, or empty.
        gpu_hours: Budget of the recommendation, None for no limit; so the next two.
        memory_gib: Of one device, or of the host where none was used.
        labelled: Labelled training examples.
        gallery: Whether examples may be shown with their images.
    """

    confidence: float = 0.95
    resamples: int = 10_000
    margin: float = 0.02
    power: float = 0.8
    against: str = ""
    gpu_hours: float | None = None
    memory_gib: float | None = None
    labelled: float | None = None
    gallery: bool = False


@dataclass
class Study:
    """Records and predictions under one directory.

    Attributes:
        root: The directory that was searched; `Row.path` is relative to it.
        rows: The newest record of each cell and transfer.
        older: Those that they replace.
        unreadable: Files that are no records.
        settings: What the reader asked for.
        lacking: Path of a record to the reason why its predictions could not be read; grows as they are.
        load_image: Gives an image of a domain; None where none may be shown.
        memo: What several sections are made from and is worked out once, by name.
    """

    root: Path
    rows: Sequence[Row]
    older: Sequence[Row] = ()
    unreadable: Sequence[Unreadable] = ()
    settings: Settings = field(default_factory=Settings)
    lacking: dict[str, str] = field(default_factory=dict)
    load_image: LoadImage | None = field(default=None, repr=False, compare=False)
    memo: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    _frames: Frames | None = field(default=None, init=False, repr=False)
    _checked: set[str] = field(default_factory=set, init=False, repr=False, compare=False)

    def folder(self, row: Row) -> Path:
        """The directory of a row's record."""
        return (self.root / row.path).parent

    def predictions(self, row: Row) -> pd.DataFrame | None:
        """A done row's predictions; None where they cannot be read or scored, and then `lacking` says why.

        The first call reads those of all done rows, as far as they fit in memory. Tables are not to be changed in
        place: they share columns with those of other cells.
        """
        if self._frames is None:
            self._frames = Frames({done.path: self.folder(done) for done in self.rows if done.done})
            self.lacking |= self._frames.lacking
        frame = self._frames.get(row.path, self.folder(row))
        if frame is not None and row.path not in self._checked:
            self._checked.add(row.path)
            if reason := misfit(frame, row):
                self._frames.refuse(row.path, reason)
                frame = None
        if frame is None:
            self.lacking[row.path] = self._frames.lacking[row.path]
        return frame
