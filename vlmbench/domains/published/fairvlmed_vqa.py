"""Questions about Harvard-FairVLMed: `vqa_{train,validation,test}.csv` beside the official folders of `data_*.npz`.

Luo et al. 2024, "FairCLIP: Harnessing Fairness in Vision-Language Learning", CVPR, arXiv 2403.19949, for the images:
one of each of 10,000 patients, in `Training` (7,000), `Validation` (1,000) and `Test` (2,000). The tables are of the
form that the study (arXiv 2506.17337) reads and does not release: `python -m vlmbench.questions` makes such a set, and
a user's own is taken alike.
"""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from vlmbench.domains.assemble import image_key
from vlmbench.domains.base import DomainError, ImageError
from vlmbench.domains.images import MAX_PIXELS, FolderImages
from vlmbench.domains.intensity import display_range, to_8_bit
from vlmbench.domains.published.layout import Layout, table
from vlmbench.domains.tables import MISSING
from vlmbench.domains.vqa_jsonl import YES_NO, normalise_answer

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
    parts, lost = [], 0
    for name, split in SPLITS.items():
        part = table(root / folder, table_name(name), COLUMNS)[list(COLUMNS)]
        whole = ~part.apply(lambda column: column.str.lower().isin(MISSING)).any(axis=1)
        if not whole.any():
            raise DomainError(f"{root / folder / table_name(name)}: no row has a value in each of {', '.join(COLUMNS)}")
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
    return Layout(frame, NpzPictures(root, key), left_out)


class NpzPictures(FolderImages):
    """One picture in each of many npz files below a folder.

    Args:
        root: The folder.
        key: Name of the picture in a file; nothing else of the file is read.
    """

    def __init__(self, root: Path, key: str) -> None:
        super().__init__(root)
        self.key = key

    def load(self, key: str) -> Image.Image:
        """Return the picture as 8-bit RGB; numbers that are not whole or pass 255 are scaled by `display_range`.

        Raises:
            ImageError: The file is missing or broken, or holds no such picture.
        """
        self.size(key)
        try:
            # Without pickles: an object array would run code of the file's.
            with np.load(self.path(key), allow_pickle=False) as arrays:
                if self.key not in arrays.files:
                    raise ValueError(f"no array {self.key!r}; there are {', '.join(arrays.files) or 'none'}")
                if arrays.zip.getinfo(f"{self.key}.npy").file_size > 8 * MAX_PIXELS:
                    raise ValueError("larger than any picture")
                values = arrays[self.key]
            if values.dtype.kind in "iu" and values.size and values.min() >= 0 and values.max() <= 255:
                values = values.astype(np.uint8)
            elif values.dtype.kind in "iuf":
                values = to_8_bit(values, *display_range(values))
        except (OSError, ValueError, TypeError, EOFError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
            raise ImageError(key, f"not an npz file with a picture: {' '.join(str(error).split())[:200]}") from error
        if values.dtype != np.uint8 or not (values.ndim == 2 or (values.ndim == 3 and values.shape[-1] == 3)):
            raise ImageError(key, f"{self.key} has the shape {values.shape} of {values.dtype}, which is no picture")
        return Image.fromarray(values).convert("RGB")

    def digest(self, key: str) -> bytes:
        """Return the SHA-256 of the file's bytes and of the picture's name in it.

        Raises:
            ImageError: The file is missing or cannot be read.
        """
        return hashlib.sha256(super().digest(key) + self.key.encode()).digest()
