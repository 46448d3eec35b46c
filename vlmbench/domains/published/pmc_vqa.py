"""PMC-VQA: `train.csv` and a test table, the images of figures in `images/` (version 1) or `figures/` (version 2).

Zhang et al. 2023, "PMC-VQA: visual instruction tuning for medical visual question answering", arXiv 2305.10415. Four
choices a question, written as "A:Diffuse uptake pattern". Version 1 has whole figures and gives the answer's letter in
`Answer_label`, version 2 has single panels and gives the letter as `Answer`. `Figure_path` begins with the article.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd

from vlmbench.domains.assemble import check_choice
from vlmbench.domains.base import DomainError
from vlmbench.domains.folder_images import FolderImages
from vlmbench.domains.published.layout import Layout, table
from vlmbench.domains.published.rows import read_rows
from vlmbench.domains.questions import chosen, lettered

LETTERS = "ABCD"
_CHOICES = tuple(f"Choice {letter}" for letter in LETTERS)
_FOLDERS = {"1": "images", "2": "figures"}
_ARTICLE = re.compile(r"(PMC\d+)_")


def read(root: Path, *, version: int = 1, test: str = "auto", folder: str = "auto", bad_rows: str = "stop") -> Layout:
    """Read the training and the test table of one version.

    Args:
        root: Folder that holds the tables and the folder of images.
        version: 1 or 2.
        test: Name of the test table without `.csv`; `auto` takes `test_clean` (the 2,000 questions of version 1 that
            were checked by hand) and `test_2`.
        folder: Folder of the images; `auto` takes the one that the version's archive unpacks to.
        bad_rows: `stop` at a row whose choices or answer cannot be used, or `leave_out` and count.

    Raises:
        DomainError: A table or column is missing, or a row cannot be used.
    """
    check_choice("domain.settings.version", str(version), tuple(_FOLDERS))
    names = {"train": "train" if version == 1 else "train_2", "test": "test_clean" if version == 1 else "test_2"}
    if test != "auto":
        names["test"] = test
    rows, left_out = [], []
    for split, name in names.items():
        frame = table(root, f"{name}.csv", ["Figure_path", "Question", *_CHOICES])
        if not {"Answer", "Answer_label"} & set(frame.columns):
            raise DomainError(
                f"{root / name}.csv: neither a column 'Answer_label' nor 'Answer' says which choice is right"
            )
        path = root / f"{name}.csv"
        lines = ((f"{path}: row {number}", line) for number, line in zip(frame.index, _lines(frame), strict=True))
        some, bad = read_rows(lines, _row, bad_rows, path)
        rows += [{"id": f"{name}-{row.pop('place')}", "split": split, **row} for row in some]
        left_out += bad
    made = pd.DataFrame(rows)
    images = _FOLDERS[str(version)] if folder == "auto" else folder
    return Layout(made.assign(image=images + "/" + made["Figure_path"]), FolderImages(root), left_out)


def _lines(frame: pd.DataFrame) -> list[dict[str, str]]:
    return [dict(zip(frame.columns, values, strict=True)) for values in frame.to_numpy().tolist()]


def _row(line: dict[str, str], place: str) -> dict[str, Any]:
    for column in ("Figure_path", "Question"):
        if not line[column]:
            raise DomainError(f"{place}: the column {column!r} is empty")
    options = lettered([line[choice] for choice in _CHOICES], place)
    letter = (line.get("Answer_label") or line.get("Answer", "")).strip().upper()
    answer = (
        options[LETTERS.index(letter)] if letter in tuple(LETTERS) else chosen(line.get("Answer", ""), options, place)
    )
    article = _ARTICLE.match(line["Figure_path"])
    return {
        "place": place.rpartition(" ")[2],
        "Figure_path": line["Figure_path"],
        "group": article[1] if article else line["Figure_path"],
        "question": line["Question"],
        "answer": answer,
        "answer_type": "choice",
        "options": options,
    }
