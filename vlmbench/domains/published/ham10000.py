"""HAM10000: `HAM10000_metadata.csv` and dermoscopic images `ISIC_NNNNNNN.jpg`.

Tschandl, Rosendahl, Kittler 2018, "The HAM10000 dataset, a large collection of multi-source dermatoscopic images of
common pigmented skin lesions", Scientific Data 5, 180161. Several images may show one lesion. No patient is published:
the group is the lesion, and a patient with several lesions may lie in several splits.
"""

from __future__ import annotations

import os
from pathlib import Path

from vlmbench.domains.folder_images import FolderImages
from vlmbench.domains.published.faults import check_ids, check_values, refuse
from vlmbench.domains.published.layout import Layout, table

#: Diagnoses of the column `dx`.
DIAGNOSES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
COLUMNS = ("lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization")
#: Names of the one table: as deposited, as Dataverse converts it, and as older copies have it, without a suffix.
_TABLES = ("HAM10000_metadata.csv", "HAM10000_metadata.tab", "HAM10000_metadata")


def read(root: Path) -> Layout:
    """Read the table, and find the images in whatever folders the two archives were unpacked to.

    Args:
        root: Folder that holds the table and, in itself or in folders below, the images.

    Raises:
        DomainError: The table is missing, lacks a column, has an unknown diagnosis, or an image twice.
    """
    name = next((name for name in _TABLES if (root / name).is_file()), _TABLES[0])
    path = root / name
    frame = table(root, name, COLUMNS)
    check_values(path, frame, "dx", DIAGNOSES, "bring the table anew")
    for column in ("image_id", "lesion_id"):
        refuse(path, frame, frame[column] == "", column, "; every row needs one")
    check_ids(path, frame, frame["image_id"], "image_id")
    image = frame["image_id"] + ".jpg"
    frame = frame.assign(id=frame["image_id"], image=image, group=frame["lesion_id"], split="")
    return Layout(frame.reset_index(drop=True), ScatteredImages(root))


class ScatteredImages(FolderImages):
    """Images in whatever folders below a root; the key is the file's name alone, the same wherever it lies.

    Args:
        root: The folder.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._places = _images(root)

    def _located(self, key: str) -> str:
        return os.path.join(self.root, self._places[key]) if key in self._places else super()._located(key)


def _images(root: Path) -> dict[str, str]:
    """Return the JPEG files below a folder by name, with their paths relative to it; of two the first by path.

    Links to folders are followed, as the images of large sets often lie on another disk.
    """
    found: dict[str, str] = {}
    walked = {root.resolve()}
    for folder, below, files in os.walk(root, followlinks=True):
        below[:] = sorted(name for name in below if not name.startswith("."))  # nothing that is still being fetched
        for name in list(below):
            place = Path(folder, name).resolve()
            if place in walked:  # a link back
                below.remove(name)
            walked.add(place)
        for file in files:
            stem, suffix = os.path.splitext(file)
            if suffix.lower() == ".jpg":
                found.setdefault(f"{stem}.jpg", Path(folder, file).relative_to(root).as_posix())
    return found
