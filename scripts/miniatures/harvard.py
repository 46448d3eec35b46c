"""Harvard-GF3300 and Harvard-FairVLMed10k in miniature: data_summary.csv, and a file a patient by its use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from miniatures.pictures import picture

USES = {"training": 24, "validation": 8, "test": 12}


def table(digits: int, rng: np.random.Generator, uses: dict[str, int] = USES) -> pd.DataFrame:
    """Return data_summary.csv in the published columns, without notes."""
    rows: list[dict[str, Any]] = []
    for use, count in uses.items():
        for _ in range(count):
            rows.append(
                {
                    "filename": f"data_{len(rows) + 1:0{digits}d}.npz",
                    "age": round(float(rng.uniform(18, 92)), 2),
                    "gender": "female" if len(rows) % 5 < 3 else "male",
                    "race": rng.choice(["asian", "black", "white"]),
                    "ethnicity": rng.choice(["non-hispanic", "hispanic", "unknown"]),
                    "language": rng.choice(["english", "spanish", "unknown"]),
                    "maritalstatus": rng.choice(["single", "married or partnered", "divorced", "unknown"]),
                    "glaucoma": "yes" if len(rows) % 2 else "no",
                    "use": use,
                }
            )
    return pd.DataFrame(rows)


def gf3300(out: Path, seed: int = 0) -> None:
    """Write GF3300 below `out`: thickness maps of 200 x 200 with the published range, and small B-scans."""
    rng = np.random.default_rng(seed)
    frame = table(4, rng)
    frame.to_csv(out / "data_summary.csv", index=False)
    for row in frame.to_dict("records"):
        grey = picture(rng, 200, marked=row["glaucoma"] == "yes", colour=False)
        values: dict[str, Any] = {
            "rnflt": grey.astype(np.float32) / 255 * 352 - 2,
            "oct_bscans": rng.integers(0, 255, (4, 20, 20), dtype=np.uint8),
            "md": np.float32(rng.normal(-4, 3)),
            "tds": rng.normal(-3, 3, 52).astype(np.float32),
            **_demographics(row),
            "male": np.int64(row["gender"] == "male"),
        }
        folder = out / str(row["use"]).capitalize()
        folder.mkdir(exist_ok=True)
        np.savez(folder / str(row["filename"]), **values)


def fairvlmed(out: Path, seed: int = 0, *, jpegs: bool = True) -> None:
    """Write FairVLMed10k below `out`: npz with the image and notes, a JPEG beside each, and summaries in the table."""
    rng = np.random.default_rng(seed)
    frame = table(5, rng)
    note = '1. glaucoma suspect: "cupping", pressures of 17 mmhg,\nright eye; follow up in 6 months'
    frame.insert(7, "note", note)
    frame.insert(8, "gpt4_summary", "The patient was seen for possible glaucoma.")
    frame.to_csv(out / "data_summary.csv", index=False)
    for row in frame.to_dict("records"):
        grey = picture(rng, 128, marked=row["glaucoma"] == "yes", colour=False)
        folder = out / str(row["use"]).capitalize()
        folder.mkdir(exist_ok=True)
        values: dict[str, Any] = {
            "slo_fundus": grey,
            "md": np.float32(-2),
            "note": np.array(note),
            **_demographics(row),
        }
        np.savez(folder / str(row["filename"]), **values)
        if jpegs:
            number = str(row["filename"]).removeprefix("data_").removesuffix(".npz")
            Image.fromarray(grey).convert("RGB").save(folder / f"slo_fundus_{number}.jpg", quality=95)


def _demographics(row: dict[Any, Any]) -> dict[str, Any]:
    return {
        "glaucoma": np.array(int(row["glaucoma"] == "yes")),
        "age": np.array(row["age"]),
        "race": np.array(["asian", "black", "white"].index(str(row["race"]))),
        "language": np.array(["english", "spanish", "unknown"].index(str(row["language"]))),
    }
