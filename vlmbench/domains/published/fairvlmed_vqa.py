"""Questions about Harvard-FairVLMed: `vqa_{train,validation,test}.csv` beside the official folders of `data_*.npz`.

Luo et al. 2024, "FairCLIP: Harnessing Fairness in Vision-Language Learning", CVPR, arXiv 2403.19949, for the images:
one of each of 10,000 patients, in `Training` (7,000), `Validation` (1,000) and `Test` (2,000). The tables are of the
form that the study (arXiv 2506.17337) reads and does not release: `python -m vlmbench.questions` makes such a set, and
a user's own is taken alike.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vlmbench.domains.assemble import image_key
from vlmbench.domains.base import DomainError
from vlmbench.domains.intensity import display_range, to_8_bit
from vlmbench.domains.npz import ArrayFiles
from vlmbench.domains.published.layout import Layout, table
from vlmbench.domains.questions import YES_NO, normalise_answer
from vlmbench.domains.tables import MISSING

SPLITS = {"train": "train", "validation": "val", "test": "test"}
TYPE = "question type"
COLUMNS = ("image_path", "question", "answer", TYPE)


def table_name(split: str) -> str:
    """Return the name of a split's table.

    Args:
        split: `train`, `validation` or `test`.
    """
    return f"vqa_{split}.csv"


def read(root: Path, *, folder: str = ".", key: str = "slo_fundus") -> Layout:
    """Read the three tables.

    A row that lacks a value is left out and counted, as in the study. A question is open if its type is OPEN, in any
    case, and closed otherwise; closed questions that yes or no answers have these two options.

    Args:
        root: Folder that holds `Training`, `Validation` and `Test`, which image paths are relative to.
        folder: Folder of the tables, relative to `root` or absolute.
        key: Name of the image in an npz file.

    Raises:
        DomainError: A table is missing, lacks a column, or has no complete row.
    """
    parts, lost, tables = [], 0, root / Path(folder).expanduser()
    for name, split in SPLITS.items():
        part = table(tables, table_name(name), COLUMNS)[list(COLUMNS)]
        whole = ~part.apply(lambda column: column.str.lower().isin(MISSING)).any(axis=1)
        if not whole.any():
            raise DomainError(f"{tables / table_name(name)}: no row has a value in each of {', '.join(COLUMNS)}")
        lost += int((~whole).sum())
        ids = pd.Series([f"{name}/{row}" for row in part.index], index=part.index)
        parts.append(part.assign(split=split, id=ids)[whole])
    frame = pd.concat(parts, ignore_index=True)
    images = frame["image_path"].map(image_key)
    is_open = frame[TYPE].str.upper() == "OPEN"
    plain = frame["answer"].map(normalise_answer)
    binary = ~is_open & plain.isin(YES_NO)
    frame = frame.assign(
        image=images,
        group=images,
        answer=frame["answer"].where(~binary, plain),
        answer_type=is_open.map({True: "open", False: "closed"}),
        options=[YES_NO if two else () for two in binary],
    )
    left_out = [{"image": "", "reason": "a value is missing", "examples": lost}] if lost else []
    return Layout(frame, ArrayFiles(root, key, picture), left_out)


def picture(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Return an array as 8-bit grey (H, W) or RGB (H, W, 3); numbers beyond 0 to 255 are scaled by `display_range`.

    Raises:
        ValueError: Not numbers, or not of such a shape.
    """
    if values.ndim not in (2, 3) or values.shape[2:] not in ((), (3,)) or values.dtype.kind not in "iuf":
        raise ValueError(f"{values.dtype} of shape {values.shape} is no picture")
    if values.dtype.kind in "iu" and values.size and values.min() >= 0 and values.max() <= 255:
        return values.astype(np.uint8)
    return to_8_bit(values, *display_range(values))
