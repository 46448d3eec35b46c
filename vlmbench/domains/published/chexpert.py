"""CheXpert v1.0, small or full size: `CheXpert-v1.0-small/{train,valid}.csv` and the images that `Path` names.

Irvin et al. 2019, "CheXpert: a large chest radiograph dataset with uncertainty labels and expert comparison", AAAI.
Labels are 1.0 (present), 0.0 (absent), -1.0 (uncertain) or empty (not mentioned). The official `valid` is the test
set here, as in the study: radiologists labelled it, and the official test set is not part of the download.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from vlmbench.domains.base import DomainError
from vlmbench.domains.images import FolderImages
from vlmbench.domains.published.layout import Layout, table

FINDINGS = (
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
_SPLITS = {"train": "train", "valid": "test"}


def read(root: Path, *, folder: str = "CheXpert-v1.0-small", view: str = "all") -> Layout:
    """Read the two tables.

    Args:
        root: Folder that holds `folder`.
        folder: Name of the release: `CheXpert-v1.0-small` or `CheXpert-v1.0`.
        view: `all`, `frontal` or `lateral` images.

    Raises:
        DomainError: A table is missing or lacks a column, or a path names no patient.
    """
    columns = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *FINDINGS]
    parts = []
    for name, split in _SPLITS.items():
        part = table(root, f"{folder}/{name}.csv", columns)
        parts.append(part[columns].assign(split=split))
    frame = pd.concat(parts, ignore_index=True)
    if view != "all":
        frame = frame[frame["Frontal/Lateral"].str.lower() == view].reset_index(drop=True)
    patients = frame["Path"].str.extract(r"(patient\d+)/", expand=False)
    if patients.isna().any():
        raise DomainError(f"{root / folder}: {frame['Path'][patients.isna()].iloc[0]!r} names no patientNNNNN")
    frame = frame.assign(id=frame["Path"], image=frame["Path"], group=patients)
    return Layout(frame, FolderImages(root))
