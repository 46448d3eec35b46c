"""Camelyon17 of WILDS in miniature: five hospitals with two patients each, patches of 96 x 96 pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from miniatures.pictures import picture
from vlmbench.domains.published.camelyon17 import COLUMNS, patch

FOLDER = "camelyon17_v1.0"


def table(patients: int, patches: int, rng: np.random.Generator) -> pd.DataFrame:
    """Return a table in the published columns, half of the patches with tumour.

    Args:
        patients: In each of the five hospitals.
        patches: Of each patient, all of one slide.
        rng: Decides coordinates and the patches of WILDS's `id_val`.
    """
    rows = []
    for center in range(5):
        for number in range(patients):
            places = rng.choice(10_000, patches, replace=False)
            for i, place in enumerate(places):
                about = {"patient": f"{20 * center + number:03d}", "node": str(number % 5), "tumor": i % 2}
                coordinates = {"x_coord": 3328 + 32 * (place % 100), "y_coord": 21792 + 32 * (place // 100)}
                slide = {"slide": 10 * center + number, "center": center, "split": int(rng.random() < 0.1)}
                rows.append(about | coordinates | slide)
    return pd.DataFrame(rows)[list(COLUMNS)].astype(str)


def make(out: Path, seed: int = 0, patients: int = 2, patches: int = 12) -> None:
    """Write the table and the patches below `out`."""
    rng = np.random.default_rng(seed)
    frame = table(patients, patches, rng)
    folder = out / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    frame.to_csv(folder / "metadata.csv")  # with the unnamed column of row numbers that the official table has
    (folder / "RELEASE_v1.0.txt").write_text("")
    for path, tumour in zip(patch(frame), frame["tumor"], strict=True):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(rng, 96, marked=tumour == "1")).save(folder / path)
