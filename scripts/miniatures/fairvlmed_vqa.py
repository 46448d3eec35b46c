"""Harvard-FairVLMed in miniature, with questions: data_summary.csv, npz files in three folders, three tables."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pandas as pd

from miniatures.pictures import picture
from vlmbench.domains.published.fairvlmed_vqa import COLUMNS, table_name

FOLDERS = {"train": "Training", "validation": "Validation", "test": "Test"}
_FINDINGS = {
    True: "An enlarged cup with a thin rim suggests glaucoma in {eye}; no disc haemorrhage.",
    False: "The disc of {eye} is healthy with an even rim, and glaucoma is not suspected.",
}


def summary(rng: np.random.Generator) -> pd.DataFrame:
    """Return `data_summary.csv` of 24, 6 and 12 images; the last one of each split has no summary."""
    rows: list[dict[str, object]] = []
    for use, count in (("training", 24), ("validation", 6), ("test", 12)):
        for number in range(count):
            ill = bool(rng.random() < 0.5)
            told = _FINDINGS[ill].format(eye=rng.choice(["both eyes", "the left eye", "the right eye"]))
            age = round(float(rng.uniform(30, 90)), 2)
            rows.append(
                {
                    "filename": f"data_{len(rows) + 1:05d}.npz",
                    "age": age,
                    "gender": rng.choice(["female", "male"]),
                    "race": rng.choice(["asian", "black", "white"]),
                    "ethnicity": rng.choice(["hispanic", "non-hispanic"]),
                    "language": rng.choice(["english", "spanish", "other"]),
                    "maritalstatus": rng.choice(["single", "married or partnered"]),
                    "note": f"PERSON is a {age:.0f} yo patient. {told} seen on DATE_TIME, PERSON, md",
                    "gpt4_summary": "" if number == count - 1 else f"The {age:.0f} y/o patient: {told}",
                    "glaucoma": "yes" if ill else "no",
                    "use": use,
                }
            )
    return pd.DataFrame(rows)


def make(out: Path, seed: int = 0, *, questions: bool = True) -> None:
    """Write the layout below `out`.

    Args:
        out: What `domain.root` will name.
        seed: Decides everything.
        questions: Whether the tables of questions are written too.
    """
    rng = np.random.default_rng(seed)
    frame = summary(rng)
    frame.to_csv(out / "data_summary.csv", index=False)
    splits = dict(zip(("training", "validation", "test"), FOLDERS, strict=True))
    rows: dict[str, list[tuple[str, ...]]] = {split: [] for split in FOLDERS}
    for row in frame.to_dict("records"):
        split, ill = splits[row["use"]], row["glaucoma"] == "yes"
        image = f"{FOLDERS[split]}/{row['filename']}"
        (out / image).parent.mkdir(parents=True, exist_ok=True)
        fields = {"glaucoma": int(ill), "age": row["age"], "note": row["note"], "md": -1.5, "tds": np.zeros(52)}
        np.savez(out / image, slo_fundus=picture(rng, marked=ill, colour=False), **fields)
        rim = "thin" if ill else "even"
        rows[split].append((image, "What does the rim of the optic disc look like?", rim, "OPEN"))
        rows[split].append((image, "Does the optic disc look glaucomatous?", "yes" if ill else "no", "CLOSED"))
    for split, questioned in rows.items() if questions else ():
        with (out / table_name(split)).open("w", newline="", encoding="utf-8") as file:
            # As the study's own: one open and one closed question an image, and a value missing here and there.
            csv.writer(file).writerows([COLUMNS, *questioned, (questioned[0][0], "What is seen?", "", "OPEN")])
