"""CheXpert v1.0, small or full size: `CheXpert-v1.0-small/{train,valid}.csv` and the images that `Path` names.

Irvin et al. 2019, "CheXpert: a large chest radiograph dataset with uncertainty labels and expert comparison", AAAI.
Labels are 1.0 (present), 0.0 (absent), -1.0 (uncertain) or empty (not mentioned). The official `valid` is the test
set here, as in the study: radiologists labelled it, and the official test set is not part of the download.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from vlmbench.domains.assemble import check_choice
from vlmbench.domains.base import DomainError
from vlmbench.domains.folder_images import FolderImages
from vlmbench.domains.published.faults import check_ids, check_values, refuse
from vlmbench.domains.published.layout import Layout, base, table

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
_STATES = ("1.0", "0.0", "-1.0", "")
_WHOLE = {"1": "1.0", "0": "0.0", "-1": "-1.0"}  # as a spreadsheet saves them


def read(root: Path, *, folder: str = "CheXpert-v1.0-small", view: str = "all") -> Layout:
    """Read the two tables.

    Args:
        root: Folder that holds `folder`, or the tables themselves, as some copies are unpacked.
        folder: Name of the release: `CheXpert-v1.0-small` or `CheXpert-v1.0`.
        view: `all`, `frontal` or `lateral` images.

    Raises:
        DomainError: A table is missing, lacks a column or has an unknown label; a path names no patient or comes twice;
            no image has that view.
    """
    check_choice("domain.settings.view", view, ("all", "frontal", "lateral"))
    below = base(root, folder, "train.csv")
    columns = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *FINDINGS]
    parts = []
    for name, split in _SPLITS.items():
        path = root / f"{below}{name}.csv"
        part = table(root, f"{below}{name}.csv", columns)[columns].copy()
        part["Path"] = part["Path"].str.replace("\\", "/")
        for finding in FINDINGS:
            part[finding] = part[finding].replace(_WHOLE)
            check_values(path, part, finding, _STATES, "bring the table anew")
        # The tables name the folder of their own release in front, whatever it was renamed to.
        named = part["Path"].str.extract(r"((?:train|valid)/(patient\d+)/.+)$")
        refuse(path, part, named[0].isna(), "Path", ", which names no train/patientNNNNN/... or valid/patientNNNNN/...")
        check_ids(path, part, part["Path"], "Path")
        parts.append(part.assign(split=split, id=part["Path"], image=named[0], group=named[1]))
    frame = pd.concat(parts, ignore_index=True)
    images = FolderImages(root / below)
    if view == "all":
        return Layout(frame, images)
    wanted = frame["Frontal/Lateral"].str.lower() == view
    if not wanted.any():
        raise DomainError(f"{root / below}: column 'Frontal/Lateral' says {view} of no image; set view=all")
    others = {"image": "", "reason": f"settings.view={view}: another view", "examples": int((~wanted).sum())}
    return Layout(frame[wanted].reset_index(drop=True), images, [others] if others["examples"] else [])
