"""The study's splits of its question sets that are not the owners' own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from vlmbench.domains.published.study.split import StudySplit


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
