"""OmniMedVQA in miniature: tables of two datasets, questions of two to four options."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from miniatures.pictures import picture

FOLDER = "OmniMedVQA"
_DATASETS = {
    "ACRIMA": ("Fundus Photography", "Fundus imaging"),
    "Chest CT Scan": ("CT(Computed Tomography)", "CT scan"),
}


def questions(name: str, number: int, image: str, marked: bool) -> list[dict[str, Any]]:
    """Return the questions on one image in the published fields."""
    modality, technique = _DATASETS[name]
    asked = (
        (
            "Modality Recognition",
            "What imaging technique is this?",
            technique,
            ["PET scan", "MRI", technique, "Blood test"],
        ),
        (
            "Disease Diagnosis",
            "Is there a bright disc?",
            "Yes." if marked else "No, it's normal",
            ["Yes", "No, it's normal."],
        ),
    )
    rows = []
    for n, (kind, question, answer, options) in enumerate(asked):
        rows.append(
            {
                "dataset": name,
                "question_id": f"{name}_{2 * number + n:04d}",
                "question_type": kind,
                "question": question,
                "gt_answer": answer,
                "image_path": image,
                **{f"option_{letter}": option for letter, option in zip("ABCD", options, strict=False)},
                "modality_type": modality,
            }
        )
    return rows


def make(out: Path, seed: int = 0, images: int = 24) -> None:
    """Write the tables and the images below `out`; as in the release, one entry has its modality under another name."""
    rng = np.random.default_rng(seed)
    tables = out / FOLDER / "QA_information" / "Open-access"
    tables.mkdir(parents=True, exist_ok=True)
    for name in _DATASETS:
        rows = []
        for number in range(images):
            image = f"Images/{name}/Im{number:03d}.png"
            (out / FOLDER / image).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture(rng, 48, marked=number % 2 == 0)).save(out / FOLDER / image)
            rows += questions(name, number, image, number % 2 == 0)
        if name == "Chest CT Scan":
            rows[0]["modality"] = rows[0].pop("modality_type")
        (tables / f"{name}.json").write_text(json.dumps(rows), encoding="utf-8")
