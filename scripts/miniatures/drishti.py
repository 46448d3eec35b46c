"""Drishti-GS1 in miniature: the spreadsheet with its lines above the header, and two folders of PNG files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openpyxl
from PIL import Image

from miniatures.pictures import picture

FOLDER = "Drishti-GS1_files"


def make(out: Path, seed: int = 0, train: int = 18, test: int = 12) -> None:
    """Write the spreadsheet and the images below `out`; two of three patients have both eyes in the set."""
    rng = np.random.default_rng(seed)
    book = openpyxl.Workbook()
    sheet = book.worksheets[0]
    for line in (["Diagnosis of the images by four experts"], [], []):
        sheet.append(line)
    sheet.append(
        ["Patient ID", "Drishti-GS File", None, *(f"Marking {i}" for i in range(1, 5)), None, "Total", "Remark"]
    )
    sheet.append([])
    for number in range(1, train + test + 1):
        ill = number % 3 > 0
        part = "Training" if number <= train else "Test"
        name, patient = f"drishtiGS_{number:03d}", f"P{(number * 2) // 3}"
        said = "Glaucomatous" if ill else "Normal"
        sheet.append([patient, f"{name}'", None, *[1 if ill else -1] * 4, None, said])
        folder = out / FOLDER / part / "Images"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(rng, 96, marked=ill)).save(folder / f"{name}.png")
    book.save(out / FOLDER / "Drishti-GS1_diagnosis.xlsx")
