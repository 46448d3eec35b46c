"""PAPILA: `ClinicalData/patient_data_{od,os}.xlsx` and colour fundus photographs `FundusImages/RET002OD.jpg`.

Kovalyk et al. 2022, "PAPILA: Dataset with fundus images and clinical data of both eyes of the same patient for
glaucoma assessment", Scientific Data 9, 291. One workbook an eye (OD right, OS left), one row a patient, `Diagnosis`
0 healthy, 1 glaucoma, 2 suspect.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from vlmbench.domains.base import DomainError
from vlmbench.domains.folder_images import FolderImages
from vlmbench.domains.published.faults import check_ids, check_values, refuse
from vlmbench.domains.published.layout import Layout, found
from vlmbench.domains.tables import check_columns, read_table

EYES = {"OD": "right", "OS": "left"}
_SEXES = {"0": "male", "1": "female", "": ""}
_WANTED = ("Age", "Gender", "Diagnosis")


def read(root: Path) -> Layout:
    """Read the two workbooks; raw columns `sex` and `eye` beside the published ones.

    Args:
        root: Folder that holds `ClinicalData` and `FundusImages`, in itself, in the archive's folder
            `PapilaDB-PAPILA-...`, or, as the study has it, in `data`.

    Raises:
        DomainError: A table is missing, is no workbook, lacks a column, has an unknown diagnosis, or a patient twice.
    """
    places = (path.parent for place in (".", "*", "*/*") for path in sorted(root.glob(f"{place}/ClinicalData")))
    base = next((place for place in places if "__MACOSX" not in place.parts), root)
    parts = []
    for eye, side in EYES.items():
        name = f"patient_data_{eye.lower()}"
        folder = base / "ClinicalData"
        text = folder / f"{name}.csv"
        path = text if text.is_file() else found(root, f"{folder.relative_to(root).as_posix()}/{name}.xlsx")
        part = read_table(path) if path == text else _workbook(path)
        check_columns(path, part, {"this layout": None, **dict(zip(_WANTED, _WANTED, strict=True))})
        part = part.rename(columns={part.columns[0]: "ID"})
        number = part["ID"].str.extract(r"^#?(\d+)$", expand=False)
        refuse(path, part, number.isna(), "ID", ", which is no number of a patient such as #002")
        for column in ("Diagnosis", "Gender"):
            part[column] = part[column].str.removesuffix(".0")
        check_values(path, part, "Diagnosis", ("0", "1", "2"), "bring the archive anew")
        check_values(path, part, "Gender", tuple(_SEXES), "bring the archive anew")
        check_ids(path, part, part["ID"], "ID")
        patient = number.str.zfill(3)
        image = "FundusImages/RET" + patient + eye + ".jpg"
        parts.append(
            part.assign(
                id="RET" + patient + eye,
                image=image,
                group=patient,
                split="",
                sex=part["Gender"].map(_SEXES),
                eye=side,
            )
        )
    return Layout(pd.concat(parts, ignore_index=True).fillna(""), FolderImages(base))


def _workbook(path: Path) -> pd.DataFrame:
    """Return the first sheet as texts, its index the row of the sheet.

    The header of the published workbooks has three rows, with merged cells: the lowest filled cell above the first
    patient names a column.
    """
    try:
        sheet = pd.read_excel(path, header=None, dtype=str, engine="openpyxl").fillna("")
    except Exception as error:  # a broken workbook raises nearly any type
        raise DomainError(f"{path}: cannot be read as an Excel workbook: {error}; bring the archive anew") from error
    sheet.index = sheet.index + 1
    sheet = sheet.apply(lambda column: column.str.strip())
    first = sheet[0].str.fullmatch(r"#?\d+") if len(sheet) else pd.Series(dtype=bool)
    if not first.any():
        raise DomainError(
            f"{path}: column 1 of the first sheet has no number of a patient such as #002; bring the archive anew"
        )
    start = int(first.to_numpy().argmax())
    head = sheet.iloc[:start]
    names = [
        "ID",
        *(next((text for text in reversed(head[i].tolist()) if text), f"column {i + 1}") for i in head.columns[1:]),
    ]
    body = sheet.iloc[start:]
    return body[(body != "").any(axis=1)].set_axis(names, axis=1)
