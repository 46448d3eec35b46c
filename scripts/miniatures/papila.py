"""PAPILA in miniature: two workbooks with the published header of three rows, and both eyes of each patient."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from miniatures.pictures import picture

FOLDER = "PapilaDB-PAPILA-9c67b80983805f0f886b068af800ef2b507e7dc0"
COLUMNS = (
    "ID",
    "Age",
    "Gender",
    "Diagnosis",
    "dioptre_1",
    "dioptre_2",
    "astigmatism",
    "Phakic/Pseudophakic",
    "Pneumatic",
    "Perkins",
    "Pachymetry",
    "Axial_Length",
    "VF_MD",
)
_MERGED = {"dioptre_1": "Refractive_Defect", "Pneumatic": "IOP"}
_BELOW = ("dioptre_1", "dioptre_2", "astigmatism", "Pneumatic", "Perkins")


def tables(patients: int, rng: np.random.Generator) -> dict[str, pd.DataFrame]:
    """Return the rows of both workbooks; `Diagnosis` may differ between the eyes of a patient."""
    rows: dict[str, list[dict[str, object]]] = {"od": [], "os": []}
    for number in range(2, 2 + patients):
        person = {"ID": f"#{number:03d}", "Age": int(rng.integers(20, 90)), "Gender": int(rng.integers(2))}
        diagnosis = int(rng.choice(3, p=[0.6, 0.25, 0.15]))
        for eye in rows.values():
            eye.append(
                {name: round(float(rng.normal(20, 5)), 2) for name in COLUMNS} | person | {"Diagnosis": diagnosis}
            )
            diagnosis = diagnosis if rng.random() < 0.8 else int(rng.choice(3))
    return {eye: pd.DataFrame(some)[list(COLUMNS)] for eye, some in rows.items()}


def make(out: Path, seed: int = 0, patients: int = 40) -> None:
    """Write the workbooks and the images below `out`."""
    rng = np.random.default_rng(seed)
    folder = out / FOLDER
    for name in ("ClinicalData", "FundusImages"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for eye, frame in tables(patients, rng).items():
        top = [_MERGED.get(name, "" if name in _BELOW or name == "ID" else name) for name in COLUMNS]
        middle = [name if name in _BELOW else "" for name in COLUMNS]
        header = pd.DataFrame([top, middle, ["ID"] + [""] * (len(COLUMNS) - 1)], columns=COLUMNS).replace("", None)
        sheet = pd.concat([header, frame.astype(object)])
        sheet.to_excel(folder / "ClinicalData" / f"patient_data_{eye}.xlsx", header=False, index=False)
        for patient, diagnosis in zip(frame["ID"], frame["Diagnosis"], strict=True):
            image = Image.fromarray(picture(rng, marked=diagnosis == 1))
            image.save(folder / "FundusImages" / f"RET{patient[1:]}{eye.upper()}.jpg")
