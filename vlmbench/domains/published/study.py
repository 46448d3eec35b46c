"""The splits of the study (arXiv 2506.17337), rebuilt: one function a way of splitting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
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


def omnimedvqa(frame: pd.DataFrame, labels: pd.Series, root: Path) -> StudySplit:
    """Return a seeded stand-in for the study's tenth of OmniMedVQA: a tenth of the images, 30 % of these to train on.

    The study states these shares and its 6,186 test questions, but neither seed nor list.
    """
    images = sorted(frame["image"].unique())
    order = np.random.RandomState(42).permutation(len(images))[: max(3, round(len(images) / 10))]
    train = max(1, round(0.3 * len(order)))
    names = {images[i]: "train" if n < train else "test" for n, i in enumerate(order)}
    return StudySplit(
        frame["image"].map(names).fillna(""),
        "not of the tenth of the images that the study takes",
        f"a seeded stand-in for the study's tenth of the images, {train:,} to train on and {len(order) - train:,} to "
        "test; its lists are not public",
    )


STUDY_SPLITS: dict[str, Split] = {
    "omnimedvqa": omnimedvqa,
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
