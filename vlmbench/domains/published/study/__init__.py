"""The splits of the study (arXiv 2506.17337), rebuilt: one function a way of splitting."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from vlmbench.domains.base import DomainError
from vlmbench.domains.published.study.diagnosis import camelyon17, ham10000, papila, per_sex
from vlmbench.domains.published.study.questions import omnimedvqa
from vlmbench.domains.published.study.split import Split, StudySplit

__all__ = ["STUDY_SPLITS", "Split", "StudySplit", "official", "study_split"]


def official(frame: pd.DataFrame, labels: pd.Series, root: Path) -> StudySplit:
    """Return the split that the owners publish."""
    return StudySplit(frame["split"], origin="the official split")


STUDY_SPLITS: dict[str, Split] = {
    "camelyon17": camelyon17,
    "ham10000": ham10000,
    "omnimedvqa": omnimedvqa,
    "official": official,
    "papila": papila,
    "per_sex": per_sex,
}


def study_split(name: str, frame: pd.DataFrame, labels: pd.Series, root: Path) -> StudySplit:
    """Return the study's split by its name.

    Raises:
        DomainError: No such split.
    """
    if name not in STUDY_SPLITS:
        raise DomainError(f"domain.study_split={name!r} is none of {', '.join(sorted(STUDY_SPLITS))}")
    return STUDY_SPLITS[name](frame, labels, root)
