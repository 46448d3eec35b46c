"""The Kermany chest X-rays in miniature: folders of classes, and names that tell kind, patient and image."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from miniatures.pictures import picture

FOLDER = "chest_xray"


def names(patients: int, first: int) -> Iterator[str]:
    """Yield the names of one split's files, two images a patient where there may be several."""
    for number in range(first, first + patients):
        yield f"NORMAL/{'NORMAL2-' * (number % 2)}IM-{number:04d}-0001.jpeg"
        yield f"PNEUMONIA/person{number}_bacteria_{number * 2}.jpeg"
        yield f"PNEUMONIA/person{number}_bacteria_{number * 2 + 1}.jpeg"
        # The viruses' numbers are others: a number is one patient of each kind.
        yield f"PNEUMONIA/person{number + 3}_virus_{number}.jpeg"
    yield f"NORMAL/{'NORMAL2-' * (first % 2)}IM-{first:04d}-0001-0002.jpeg"


def make(out: Path, seed: int = 0, *, val: bool = True) -> None:
    """Write the folders below `out`, as Kaggle has them, or without `val` as the authors do."""
    rng = np.random.default_rng(seed)
    splits = [("train", 20, 100), ("test", 8, 1), *([("val", 2, 900)] if val else [])]
    for split, patients, first in splits:
        for name in names(patients, first):
            path = out / FOLDER / split / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture(rng, 72, marked="person" in name, colour=False)).save(path)
    (out / FOLDER / ".DS_Store").write_bytes(b"\0")
    (out / FOLDER / "train" / "NORMAL" / ".DS_Store").write_bytes(b"\0")
