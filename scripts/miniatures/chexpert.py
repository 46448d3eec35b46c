"""CheXpert-v1.0-small in miniature: two tables, a few patients with frontal and lateral views."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from miniatures.pictures import picture
from vlmbench.domains.published.chexpert import FINDINGS

FOLDER = "CheXpert-v1.0-small"


def table(split: str, patients: int, first: int, rng: np.random.Generator) -> pd.DataFrame:
    """Return a table in the published columns, as many rows as the patients have views.

    In `train` a label may be uncertain or empty; in `valid`, which radiologists labelled, each is 1.0 or 0.0.
    """
    states, no = (["1.0", "0.0", "-1.0", ""], "") if split == "train" else (["1.0", "0.0"], "0.0")
    rows = []
    for number in range(first, first + patients):
        sex, age = rng.choice(["Male", "Female"]), int(rng.integers(18, 91))
        healthy = rng.random() < 0.4
        for view, name in enumerate(["frontal", "lateral"][: rng.integers(1, 3)], start=1):
            found = {finding: no if healthy else rng.choice(states) for finding in FINDINGS}
            found["No Finding"] = "1.0" if healthy else no
            path = f"{FOLDER}/{split}/patient{number:05d}/study1/view{view}_{name}.jpg"
            frontal = name == "frontal"
            about = {"Frontal/Lateral": name.capitalize(), "AP/PA": rng.choice(["AP", "PA"]) if frontal else ""}
            rows.append({"Path": path, "Sex": sex, "Age": age, **about, **found})
    return pd.DataFrame(rows)


def make(out: Path, seed: int = 0) -> None:
    """Write the tables and the images below `out`."""
    rng = np.random.default_rng(seed)
    for split, patients, first in (("train", 60, 1), ("valid", 24, 64541)):
        frame = table(split, patients, first, rng)
        (out / FOLDER).mkdir(parents=True, exist_ok=True)
        frame.to_csv(out / FOLDER / f"{split}.csv", index=False)
        for path, healthy in zip(frame["Path"], frame["No Finding"], strict=True):
            (out / path).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture(rng, marked=healthy != "1.0", colour=False)).save(out / path)
