"""The 2D sets of MedMNIST in miniature: one npz a set and size, with the published keys, types and classes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from miniatures.pictures import picture
from vlmbench.domains.published.medmnist import file_name

#: Set to the number of channels and of classes; 14 labels that an image may carry together in ChestMNIST.
SETS = {
    "pathmnist": (3, 9),
    "chestmnist": (1, 14),
    "dermamnist": (3, 7),
    "octmnist": (1, 4),
    "pneumoniamnist": (1, 2),
    "retinamnist": (3, 5),
    "breastmnist": (1, 2),
    "bloodmnist": (3, 8),
    "tissuemnist": (1, 8),
    "organamnist": (1, 11),
    "organcmnist": (1, 11),
    "organsmnist": (1, 11),
}


def make(flag: str, out: Path, seed: int = 0, sizes: Sequence[int] = (28, 224), per_class: int = 4) -> None:
    """Write the files of one set below `out`; val and test have half as many images as train."""
    channels, classes = SETS[flag]
    for size in sizes:
        rng = np.random.default_rng(seed)
        arrays: dict[str, Any] = {}
        for split, count in (("train", per_class), ("val", per_class // 2), ("test", per_class // 2)):
            labels = np.arange(count * classes) % classes
            images = [picture(rng, size, marked=bool(label), colour=channels == 3) for label in labels]
            arrays[f"{split}_images"] = np.stack(images)
            several = np.eye(classes, dtype=np.int64)[labels] | (rng.random((len(labels), classes)) < 0.1)
            arrays[f"{split}_labels"] = several if flag == "chestmnist" else labels[:, None].astype(np.uint8)
        np.savez_compressed(out / file_name(flag, size), **arrays)


pathmnist = partial(make, "pathmnist")
chestmnist = partial(make, "chestmnist")
dermamnist = partial(make, "dermamnist")
octmnist = partial(make, "octmnist")
pneumoniamnist = partial(make, "pneumoniamnist")
retinamnist = partial(make, "retinamnist")
breastmnist = partial(make, "breastmnist")
bloodmnist = partial(make, "bloodmnist")
tissuemnist = partial(make, "tissuemnist")
organamnist = partial(make, "organamnist")
organcmnist = partial(make, "organcmnist")
organsmnist = partial(make, "organsmnist")
