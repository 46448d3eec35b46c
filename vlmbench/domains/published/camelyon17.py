"""Camelyon17 of WILDS v1.0: `camelyon17_v1.0/metadata.csv` and patches of 96 x 96 pixels below `patches/`.

Bandi et al. 2019, "From detection of individual metastases to classification of lymph node status at the patient
level: the CAMELYON17 challenge", IEEE TMI; Koh et al. 2021, "WILDS: a benchmark of in-the-wild distribution shifts",
ICML. A patch is positive where its central 32 x 32 pixels hold tumour.

WILDS splits by hospital: column `center` 1 is its validation set, 2 its test set, and column `split` tells only the
patches of the other hospitals apart: 0 is train, and 1 is `id_val`, a tenth of the patches drawn at random, from the
same slides as train. As a split `id_val` would put every patient of train in two splits, so it goes with train.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from vlmbench.domains.assemble import check_choice
from vlmbench.domains.folder_images import FolderImages
from vlmbench.domains.published.faults import check_ids, check_values, refuse
from vlmbench.domains.published.layout import Layout, base, table

COLUMNS = ("patient", "node", "x_coord", "y_coord", "tumor", "slide", "center", "split")
_VAL_CENTER, _TEST_CENTER, _ID_VAL = "1", "2", "1"


def read(root: Path, *, folder: str = "camelyon17_v1.0", id_val: str = "train") -> Layout:
    """Read the table; raw columns `hospital`, and `wilds_split`: train, id_val, val or test.

    Args:
        root: Folder that holds `folder`, or `metadata.csv` itself.
        folder: Name of the release.
        id_val: What becomes of WILDS's in-distribution validation patches: `train` or `leave_out`.

    Raises:
        DomainError: The table is missing, lacks a column, has an unknown value, or a patch twice.
    """
    check_choice("domain.settings.id_val", id_val, ("train", "leave_out"))
    below = base(root, folder, "metadata.csv")
    path = root / f"{below}metadata.csv"
    frame = table(root, f"{below}metadata.csv", COLUMNS)[list(COLUMNS)]
    hint = "bring the archive anew"
    check_values(path, frame, "tumor", ("0", "1"), hint)
    check_values(path, frame, "center", ("0", "1", "2", "3", "4"), hint)
    check_values(path, frame, "split", ("0", "1", "2", "3"), hint)
    for column in ("patient", "node", "x_coord", "y_coord"):
        refuse(path, frame, ~frame[column].str.fullmatch(r"\d+"), column, f", which is no number; {hint}")
    image = patch(frame)
    check_ids(path, frame, image, "patient, node, x_coord, y_coord")
    wilds = frame["split"].map({_ID_VAL: "id_val"}).fillna("train")
    wilds = wilds.mask(frame["center"] == _VAL_CENTER, "val").mask(frame["center"] == _TEST_CENTER, "test")
    frame = frame.assign(
        id=image,
        image=image,
        group="patient_" + frame["patient"].str.zfill(3),
        hospital="hospital " + frame["center"],
        wilds_split=wilds,
        split=wilds.replace("id_val", "train"),
    )
    frame = frame.reset_index(drop=True)
    images = FolderImages(root / below)
    aside = frame["wilds_split"] == "id_val"
    if id_val == "train" or not aside.any():
        return Layout(frame, images)
    told = {"image": "", "reason": "settings.id_val=leave_out: a patch of id_val", "examples": int(aside.sum())}
    return Layout(frame[~aside].reset_index(drop=True), images, [told])


def patch(frame: pd.DataFrame) -> pd.Series:
    """Return the paths of patches below the release's folder, from the columns patient, node, x_coord and y_coord."""
    patient = frame["patient"].str.zfill(3)  # where a spreadsheet wrote 004 as 4
    slide = "patient_" + patient + "_node_" + frame["node"]
    return "patches/" + slide + "/patch_" + slide + "_x_" + frame["x_coord"] + "_y_" + frame["y_coord"] + ".png"
