"""Kermany et al.'s chest X-rays of children: `chest_xray/{train,val,test}/{NORMAL,PNEUMONIA}/*.jpeg`.

Kermany et al. 2018, "Identifying medical diagnoses and treatable diseases by image-based deep learning", Cell 172(5);
Mendeley Data 10.17632/rscbjbr9sj, version 2 (ChestXRay2017.zip), version 3 (ZhangLabData.zip) and the copy on Kaggle.

**Patients.** Train and test are of independent patients, say the authors. Version 2 names a file by class, a number and
the image's number: `person12_bacteria_46.jpeg`, `person12_virus_30.jpeg`, `IM-0115-0001.jpeg`,
`NORMAL2-IM-0115-0001.jpeg`. Bacteria, virus, IM and NORMAL2-IM count separately: test holds bacteria person78 to 175,
virus person1 to 79 and IM-0001 to IM-0111, and train other numbers of the same kind; virus person28 is in test,
bacteria person28 in train. So a patient is the kind and the number: `bacteria-person12`, `NORMAL2-IM-0115`. Version 3
names patients by one random number, `BACTERIA-1135262-0001.jpeg`, and there that number is the patient.

**Splits.** Kaggle moved 16 images from train into a folder `val`, 8 of each class, which is too few to select on. They
count as train here, so that both layouts have the authors' 5,232 and 624 images; validation rows are taken from train.
"""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from vlmbench.domains.base import DomainError
from vlmbench.domains.folder_images import FolderImages
from vlmbench.domains.published.layout import Layout, found

_SPLITS = {"train": "train", "val": "train", "test": "test"}
_CLASSES = ("NORMAL", "PNEUMONIA")
_SUFFIXES = (".jpeg", ".jpg", ".png")
_PERSON = re.compile(r"(person\d+)_(bacteria|virus)_\d+", re.IGNORECASE)
_NORMAL = re.compile(r"((?:NORMAL\d*-)?IM-\d+)(?:-\d+)+", re.IGNORECASE)
_VERSION_3 = re.compile(r"(NORMAL|BACTERIA|VIRUS)-(\d+)-\d+", re.IGNORECASE)


def read(root: Path, *, folder: str = "chest_xray") -> Layout:
    """Read the folders. The raw columns are `class`, `kind` (normal, bacteria or virus) and `folder`.

    Args:
        root: Folder that holds `folder`.
        folder: What the archive unpacks to; `CellData/chest_xray` for version 3.

    Raises:
        DomainError: A folder is missing or empty, or a file is no image or names no patient.
    """
    rows = []
    for name, split in _SPLITS.items():
        if name == "val" and not (root / folder / name).is_dir():
            continue
        for label in _CLASSES:
            place = found(root, f"{folder}/{name}/{label}")
            files = sorted(path.name for path in place.iterdir() if not path.name.startswith("."))
            if not files:
                raise DomainError(f"{place} holds no images; unpack the archive again")
            for file in files:
                kind, patient = _patient(place / file)
                if (kind == "normal") != (label == "NORMAL"):
                    raise DomainError(f"{place / file}: its name says {kind}, its folder {label}")
                key = f"{folder}/{name}/{label}/{file}"
                about = {"class": label, "kind": kind, "folder": name}
                rows.append({"id": key, "image": key, "group": patient, "split": split, **about})
    return Layout(pd.DataFrame(rows, dtype=str), FolderImages(root))


def _patient(path: Path) -> tuple[str, str]:
    """Return the kind and the patient that a file's name tells."""
    if path.suffix.lower() in _SUFFIXES:
        if match := _PERSON.fullmatch(path.stem):
            kind = match[2].lower()
            return kind, f"{kind}-{match[1]}"
        if match := _NORMAL.fullmatch(path.stem):
            return "normal", match[1]
        if match := _VERSION_3.fullmatch(path.stem):
            return match[1].lower(), match[2]
    raise DomainError(
        f"{path} is not named as an image of this set: person12_bacteria_46.jpeg, IM-0115-0001.jpeg, "
        "NORMAL2-IM-0115-0001.jpeg or BACTERIA-1135262-0001.jpeg; take it out of the folder"
    )
