"""OmniMedVQA: `QA_information/Open-access/*.json`, each a list of questions, and the images that `image_path` names.

Hu et al. 2024, "OmniMedVQA: a new large-scale comprehensive evaluation benchmark for medical LVLM", CVPR, arXiv
2402.09181. Two to four options a question, the answer given as the text of one of them. There is no official split.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from vlmbench.domains.base import DomainError
from vlmbench.domains.folder_images import FolderImages
from vlmbench.domains.jsonl import plain_text, read_list, text_of
from vlmbench.domains.published.layout import Layout, found
from vlmbench.domains.published.rows import read_rows
from vlmbench.domains.questions import chosen, lettered

TYPES = (
    "Modality Recognition",
    "Anatomy Identification",
    "Disease Diagnosis",
    "Lesion Grading",
    "Other Biological Attributes",
)


def read(
    root: Path,
    *,
    folder: str = "OmniMedVQA",
    access: str = "Open-access",
    question_types: str | Sequence[str] = (),
    datasets: str | Sequence[str] = (),
    bad_rows: str = "stop",
) -> Layout:
    """Read the questions of all datasets, or of some.

    Args:
        root: Folder that holds `folder`.
        folder: What the archive unpacks to; "." where it was unpacked into `root` itself.
        access: Folder of the tables: `Open-access`, or `Restricted-access` for those whose images have to be asked for.
        question_types: One or several of `TYPES`; empty takes all.
        datasets: One or several names of tables without `.json`; empty takes all.
        bad_rows: `stop` at a question whose options, type or answer cannot be used, or `leave_out` and count.

    Raises:
        DomainError: A table is missing or cut off, a question lacks a field, or cannot be used.
    """
    datasets = [datasets] if isinstance(datasets, str) else datasets
    question_types = [question_types] if isinstance(question_types, str) else question_types
    base = root if folder == "." else root / folder
    tables = found(base, f"QA_information/{access}")
    names = {path.stem: path for path in sorted(tables.glob("*.json"))}
    for what, asked, there in (("datasets", datasets, names), ("question_types", question_types, TYPES)):
        if unknown := sorted(set(asked) - set(there)):
            raise DomainError(f"domain.settings.{what} names {', '.join(unknown)}; there are {', '.join(there)}")
    if not names:
        raise DomainError(f"{tables} holds no *.json")
    rows, left_out = [], []
    for name, path in names.items():
        if not datasets or name in datasets:
            lines = ((f"{path}: question {number}", line) for number, line in enumerate(read_list(path), start=1))
            some, bad = read_rows(lines, _row, bad_rows, path)
            rows += [{**row, "id": f"{name}/{row['id']}"} for row in some]
            left_out += bad
    frame = pd.DataFrame(rows)
    if question_types:
        frame = frame[frame["question_type"].isin(question_types)].reset_index(drop=True)
        if frame.empty:
            raise DomainError(f"{tables}: no question is of the types {', '.join(question_types)}")
    return Layout(frame.assign(split="", group=frame["image"]), FolderImages(base), left_out)


def _row(line: dict[str, Any], place: str) -> dict[str, Any]:
    kind = text_of(line, "question_type", "", place)
    if kind not in TYPES:
        raise DomainError(f"{place}: the question_type {kind!r} is none of {', '.join(TYPES)}")
    given = [plain_text(line.get(f"option_{letter}")) for letter in string.ascii_uppercase]
    options = lettered(given[: max((i + 1 for i, text in enumerate(given) if text), default=0)], place)
    return {
        "id": text_of(line, "question_id", "", place),
        "image": text_of(line, "image_path", "", place),
        "question": text_of(line, "question", "", place),
        "answer": chosen(text_of(line, "gt_answer", "", place), options, place),
        "answer_type": "choice",
        "options": options,
        "question_type": kind,
        "dataset": plain_text(line.get("dataset")),
        # One question of the release has its modality under another name.
        "modality_type": plain_text(line.get("modality_type") or line.get("modality")),
    }
