"""Drishti-GS1: 101 colour fundus images, and a spreadsheet with four experts' diagnoses and their total.

Sivaswamy et al. 2014, "Drishti-GS: retinal image dataset for optic nerve head (ONH) segmentation", ISBI;
Sivaswamy et al. 2015, JSM Biomedical Imaging Data Papers 2(1). Layout: `Drishti-GS1_files/Drishti-GS1_diagnosis.xlsx`
and `Drishti-GS1_files/{Training,Test}/Images/drishtiGS_NNN.png`; some archives have the image folders once more inside
`Drishti-GS1_files`, or the spreadsheet beside it. The spreadsheet has lines above its header; its names end in an
apostrophe. A patient's two eyes may differ in their diagnosis and share a `Patient ID`.
"""

from __future__ import annotations

import csv
import io
import zipfile
from pathlib import Path

import openpyxl
import pandas as pd
from openpyxl.utils.exceptions import InvalidFileException

from vlmbench.domains.assemble import read_text
from vlmbench.domains.base import DomainError
from vlmbench.domains.folder_images import FolderImages
from vlmbench.domains.published.layout import Layout, found

_FOLDER = "Drishti-GS1_files"
_TABLES = tuple(f"{folder}Drishti-GS1_diagnosis{kind}" for kind in (".xlsx", ".csv") for folder in (f"{_FOLDER}/", ""))
_SPLITS = {"Training": "train", "Test": "test"}
_FILE, _PATIENT, _TOTAL = "Drishti-GS File", "Patient ID", "Total"


def read(root: Path) -> Layout:
    """Read the spreadsheet, or a CSV of it, and the images of both folders.

    Args:
        root: Folder that holds `Drishti-GS1_files`.

    Raises:
        DomainError: A file or column is missing, a row has no image, or an image no row.
    """
    path = found(root, next((table for table in _TABLES if (root / table).is_file()), _TABLES[0]))
    frame = _table(path)
    base = f"{_FOLDER}/{_FOLDER}" if (root / _FOLDER / _FOLDER).is_dir() else _FOLDER
    places = {}
    for name, split in _SPLITS.items():
        folder = found(root, f"{base}/{name}/Images")
        for image in sorted(folder.iterdir()):
            if image.suffix.lower() == ".png" and not image.name.startswith("."):
                places[image.stem] = (image.relative_to(root).as_posix(), split)
    if lost := sorted(set(places) ^ set(frame[_FILE])):
        raise DomainError(
            f"{root}: {len(lost)} of {len(set(places) | set(frame[_FILE]))} names are only an image or only a row of "
            f"{path.name}, such as {', '.join(lost[:5])}; unpack the archive again"
        )
    images = [places[name][0] for name in frame[_FILE]]
    splits = [places[name][1] for name in frame[_FILE]]
    patients = frame[_PATIENT].where(frame[_PATIENT] != "", frame[_FILE])
    return Layout(frame.assign(id=frame[_FILE], image=images, group=patients, split=splits), FolderImages(root))


def _table(path: Path) -> pd.DataFrame:
    """Return the rows below the header as texts, with the columns that are named."""
    rows = _rows(path)
    start = next((i for i, row in enumerate(rows) if _FILE in row), None)
    if start is None:
        raise DomainError(f"{path} has no row with {_FILE!r}, which the header of the published spreadsheet has")
    header = rows[start]
    if missing := [column for column in (_FILE, _PATIENT, _TOTAL) if column not in header]:
        raise DomainError(f"{path} lacks the column {', '.join(missing)}; there are {', '.join(filter(None, header))}")
    table = [row + [""] * (len(header) - len(row)) for row in rows[start + 1 :] if row[header.index(_FILE)]]
    if not table:
        raise DomainError(f"{path} has no rows below its header in row {start + 1}")
    frame = pd.DataFrame(table, columns=header, dtype=str).loc[:, [bool(name) for name in header]]
    return frame.assign(**{_FILE: frame[_FILE].str.strip("'’ ")})


def _rows(path: Path) -> list[list[str]]:
    if path.suffix == ".csv":
        text = read_text(path)
        header = next((line for line in text.splitlines() if _FILE in line), "")
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=max(",", ";", "\t", key=header.count))
        return [[entry.strip() for entry in row] for row in rows if row]
    try:
        sheet = openpyxl.load_workbook(path, read_only=True, data_only=True).worksheets[0]
        return [["" if value is None else str(value).strip() for value in row] for row in sheet.values]
    except (InvalidFileException, zipfile.BadZipFile, KeyError, OSError, ValueError) as error:
        raise DomainError(f"{path} is no spreadsheet that can be read ({error}); fetch it again") from error
