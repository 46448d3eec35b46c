"""What a rebuilt split is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd


@dataclass(frozen=True)
class StudySplit:
    """A rebuilt split.

    Attributes:
        names: Per row of the layout, `train`, `val`, `test`, or "" for a row that is left out.
        left_out: Why rows are left out, "" where none is.
        origin: Where the split comes from, in one sentence; a stand-in for lists that are not public says so.
    """

    names: pd.Series
    left_out: str = ""
    origin: str = ""


#: From the layout's table, the labels (a tuple a row, empty for VQA), and the root folder, to the split.
Split = Callable[[pd.DataFrame, pd.Series, Path], StudySplit]
