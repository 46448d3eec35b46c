"""MedMNIST v2 and MedMNIST+, the 2D sets: one npz a set and size, `pathmnist.npz` (28 px) or `pathmnist_224.npz`.

Yang et al. 2023, "MedMNIST v2: a large-scale lightweight benchmark for 2D and 3D biomedical image classification",
Scientific Data 10, 41; files of Zenodo 10.5281/zenodo.10519652. An npz has `{train,val,test}_images`, 8-bit (N, H, W)
or (N, H, W, 3), and `{train,val,test}_labels`, integers (N, 1), or (N, L) of 0 and 1 where an image has several labels.
There are no patient ids: every image is a group of its own.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from vlmbench.domains.arrays import small_array
from vlmbench.domains.base import SPLITS, DomainError
from vlmbench.domains.npz import RowImages
from vlmbench.domains.published.layout import Layout, found

SIZES = (28, 64, 128, 224)


def file_name(flag: str, size: int) -> str:
    """Return the published name of a set's file."""
    return f"{flag}.npz" if size == SIZES[0] else f"{flag}_{size}.npz"


def read(root: Path, *, flag: str, size: int = 224) -> Layout:
    """Read one set in one size.

    The raw columns are `label`, or `label_0` to `label_13` where an image has several.

    Args:
        root: Folder that holds the npz files, such as the folder of the package `medmnist`.
        flag: The set's name in that package, such as `pathmnist`.
        size: Side of the images: 28, 64, 128 or 224.

    Raises:
        DomainError: No such size, or the file is missing, broken, or not as described above.
    """
    if size not in SIZES:
        raise DomainError(f"domain.settings.size={size!r} is none of {', '.join(map(str, SIZES))}")
    file = file_name(flag, size)
    path = found(root, file)
    images = RowImages(root, [(file, f"{split}_images") for split in SPLITS])
    parts: list[pd.DataFrame] = []
    for split in SPLITS:
        keys = images.keys(file, f"{split}_images")
        pixels = images.members[f"{file}#{split}_images"]
        if pixels.shape[1:3] != (size, size):
            raise DomainError(f"{pixels}; images of {file} are {size} x {size}")
        labels = small_array(path, f"{split}_labels")
        if labels.ndim != 2 or labels.dtype.kind not in "iu":
            raise DomainError(
                f"{path}: the array '{split}_labels' is {labels.dtype} of shape {labels.shape}; labels are integers of "
                "shape (N, 1), or (N, L) with several labels"
            )
        if len(labels) != len(keys):
            raise DomainError(f"{path}: {split} has {len(keys):,} images and {len(labels):,} rows of labels")
        columns = ["label"] if labels.shape[1] == 1 else [f"label_{i}" for i in range(labels.shape[1])]
        if parts and list(parts[0].columns[: len(columns)]) != columns:
            raise DomainError(f"{path}: train and {split} have other numbers of labels an image")
        ids = [f"{split}-{row}" for row in range(len(keys))]
        part = pd.DataFrame(labels.astype(np.int64).astype(str), columns=columns, dtype=str)
        parts.append(part.assign(id=ids, image=keys, group=ids, split=split))
    return Layout(pd.concat(parts, ignore_index=True), images)
