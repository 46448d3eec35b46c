"""HAM10000 in miniature: the table, and images in the two folders of the archives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from miniatures.pictures import picture
from vlmbench.domains.published.ham10000 import DIAGNOSES

FOLDERS = ("HAM10000_images_part_1", "HAM10000_images_part_2")
MALIGNANT = ("akiec", "bcc", "mel")


def table(lesions: int, rng: np.random.Generator) -> pd.DataFrame:
    """Return a table in the published columns: as many lesions of each diagnosis, one to three images of each."""
    rows: list[dict[str, object]] = []
    for number in range(lesions * len(DIAGNOSES)):
        about = {
            "dx": DIAGNOSES[number % len(DIAGNOSES)],
            "dx_type": rng.choice(["histo", "follow_up", "consensus", "confocal"]),
            "age": "" if rng.random() < 0.03 else f"{5.0 * rng.integers(1, 18)}",
            "sex": rng.choice(["male", "female", "unknown"], p=[0.5, 0.45, 0.05]),
            "localization": rng.choice(["back", "face", "abdomen", "lower extremity"]),
            "dataset": rng.choice(["vidir_modern", "rosendahl"]),
        }
        for _ in range(rng.integers(1, 4)):
            rows.append({"lesion_id": f"HAM_{number:07d}", "image_id": f"ISIC_{24306 + len(rows):07d}", **about})
    return pd.DataFrame(rows)


def make(out: Path, seed: int = 0, lesions: int = 8) -> None:
    """Write the table and the images below `out`, `lesions` of each of the seven diagnoses."""
    rng = np.random.default_rng(seed)
    frame = table(lesions, rng)
    out.mkdir(parents=True, exist_ok=True)
    frame.to_csv(out / "HAM10000_metadata.csv", index=False)
    for i, (name, dx) in enumerate(zip(frame["image_id"], frame["dx"], strict=True)):
        folder = out / FOLDERS[int(i >= len(frame) / 2)]
        folder.mkdir(exist_ok=True)
        Image.fromarray(picture(rng, marked=dx in MALIGNANT)).save(folder / f"{name}.jpg")
