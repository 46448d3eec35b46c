"""Two sets of the Harvard Ophthalmology AI Lab: GF3300 (OCT RNFL-thickness maps) and FairVLMed10k (SLO fundus images).

Luo et al. 2024, "Harvard glaucoma fairness: a retinal nerve disease dataset for fairness learning and fair identity
normalization", IEEE Transactions on Medical Imaging; Luo et al. 2024, "FairCLIP: harnessing fairness in vision-language
learning", CVPR. Both are `data_summary.csv` (an older FairVLMed has it in `ReadMe`) and the folders `Training`,
`Validation` and `Test`. Columns: filename, age, gender, race, ethnicity, language, maritalstatus, glaucoma (yes, no),
use (training, validation, test), and in FairVLMed the notes. One file is one patient.

The layout of FairMedFM and MedVLMBench is read too: `split/{train,test}.csv` with the same columns and, of GF3300, the
files below `data`. Their lists are what the study's rule makes of all rows, so `use` stays the official split.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vlmbench.domains.assemble import check_choice
from vlmbench.domains.base import DomainError
from vlmbench.domains.folder_images import FolderImages
from vlmbench.domains.npz import ArrayFiles
from vlmbench.domains.published.layout import Layout, table
from vlmbench.domains.splits import ALIASES
from vlmbench.domains.tables import check_filled

ATTRIBUTES = ("age", "gender", "race", "ethnicity", "language", "maritalstatus")
_LOOKED_FOR = 20  # rows, so that one missing file does not decide where all of them are
_COLUMNS = ("filename", *ATTRIBUTES, "glaucoma", "use")


def read_gf3300(root: Path) -> Layout:
    """Read GF3300: `{Training,Validation,Test}/data_NNNN.npz` with the array `rnflt`, shown as `thickness` says.

    Args:
        root: Folder that holds `data_summary.csv`.

    Raises:
        DomainError: The table is missing, lacks a column or names no split.
    """
    frame = _summary(root)
    paths = _placed(root, frame, ["{use}/{file}", "data/{use}/{file}", "data/{file}"])
    return Layout(_rows(frame, paths), ArrayFiles(root, "rnflt", thickness))


def read_fairvlmed(root: Path, *, images: str = "auto") -> Layout:
    """Read FairVLMed10k: `{Training,Validation,Test}/slo_fundus_NNNNN.jpg`, or `data_NNNNN.npz` with `slo_fundus`.

    Args:
        root: Folder that holds `data_summary.csv`.
        images: `jpg`, which the study reads, `npz`, or `auto` for JPEG files where one of the first rows has one.

    Raises:
        DomainError: The table is missing, lacks a column, names no split, or a file name has no number.
    """
    check_choice("domain.settings.images", images, ("auto", "jpg", "npz"))
    frame = _summary(root)
    numbers = frame["filename"].str.extract(r"^data_(\d+)\.npz$", expand=False)
    if numbers.isna().any():
        raise DomainError(f"{root}: filename {frame['filename'][numbers.isna()].iloc[0]!r} is not data_NNNNN.npz")
    jpegs = _placed(
        root, frame.assign(filename="slo_fundus_" + numbers + ".jpg"), ["{use}/{file}", "data/{use}/{file}"]
    )
    if images == "jpg" or (images == "auto" and any((root / path).is_file() for path in jpegs[:_LOOKED_FOR])):
        return Layout(_rows(frame, jpegs), FolderImages(root))
    arrays = _placed(root, frame, ["{use}/{file}", "data/{use}/{file}"])
    return Layout(_rows(frame, arrays), ArrayFiles(root, "slo_fundus", brightness))


def thickness(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Return a map of RNFL thickness, (H, W) in micrometres with -2 for none, as 8-bit grey.

    (x + 2) / 352 * 255 as in FairMedFM and the study, which takes -2 to 350 to 0 to 255 and cuts fractions off; values
    beyond are clipped here, where the study's wrap around.

    Raises:
        ValueError: Not two-dimensional numbers.
    """
    scaled = (_plane(values).astype(np.float64) + 2) / 352 * 255
    return np.nan_to_num(scaled).clip(0, 255).astype(np.uint8)


def brightness(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Return an image of grey levels, (H, W) from 0 to 255, as 8-bit grey.

    Raises:
        ValueError: Not two-dimensional numbers.
    """
    return np.nan_to_num(_plane(values)).clip(0, 255).astype(np.uint8)


def _plane(values: NDArray[Any]) -> NDArray[Any]:
    if values.ndim != 2 or values.dtype.kind not in "iuf":
        raise ValueError(f"{values.dtype} of shape {values.shape} where numbers of shape (H, W) were expected")
    return values


def _summary(root: Path) -> pd.DataFrame:
    parts = [name for name in ("data_summary.csv", "ReadMe/data_summary.csv") if (root / name).is_file()][:1]
    if not parts and (root / "split/train.csv").is_file():
        parts = ["split/train.csv", "split/test.csv"]
    frames = []
    for part in parts or ["data_summary.csv"]:
        frame = table(root, part, _COLUMNS)
        check_filled(root / part, frame, "filename")
        unknown = frame.index[~frame["use"].str.lower().isin(list(ALIASES))]
        if len(unknown):
            raise DomainError(
                f"{root / part}: row {unknown[0]}: column 'use' has {frame['use'][unknown[0]]!r}, as one of "
                f"{len(unknown):,} rows that are neither training, validation nor test"
            )
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def _placed(root: Path, frame: pd.DataFrame, patterns: Sequence[str]) -> list[str]:
    """Return where the files are, by the first pattern that one of the first rows fits, else by the official one."""
    rows = list(zip(frame["use"].str.capitalize(), frame["filename"], strict=True))
    paths = [[pattern.format(use=use, file=file) for use, file in rows] for pattern in patterns]
    return next((some for some in paths if any((root / path).is_file() for path in some[:_LOOKED_FOR])), paths[0])


def _rows(frame: pd.DataFrame, paths: Sequence[str]) -> pd.DataFrame:
    patients = frame["filename"].str.removesuffix(".npz")
    return frame.assign(id=frame["filename"], image=list(paths), group=patients, split=frame["use"])
