"""The splits of the study (arXiv 2506.17337), rebuilt: one function a way of splitting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from vlmbench.domains.base import DomainError


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


def official(frame: pd.DataFrame, labels: pd.Series, root: Path) -> StudySplit:
    """Return the split that the owners publish."""
    return StudySplit(frame["split"], origin="the official split")


STUDY_SPLITS: dict[str, Split] = {
    "official": official,
}


def study_split(name: str, frame: pd.DataFrame, labels: pd.Series, root: Path) -> StudySplit:
    """Return the study's split by its name.

    Raises:
        DomainError: No such split.
    """
    if name not in STUDY_SPLITS:
        raise DomainError(f"domain.study_split={name!r} is none of {', '.join(sorted(STUDY_SPLITS))}")
    return STUDY_SPLITS[name](frame, labels, root)
