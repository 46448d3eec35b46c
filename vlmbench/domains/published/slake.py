"""SLAKE: `{train,validation,test}.json`, each a list of questions, and `imgs/xmlab*/source.jpg`.

Liu et al. 2021, "SLAKE: a semantically-labeled knowledge-enhanced dataset for medical visual question answering", ISBI,
arXiv 2102.09542. Questions are in English and Chinese; whether one is open or closed is declared. A closed one has the
options yes and no, or the two that it offers itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pandas as pd

from vlmbench.domains.base import DomainError
from vlmbench.domains.folder_images import FolderImages
from vlmbench.domains.jsonl import plain_text, read_list, text_of
from vlmbench.domains.published.layout import Layout, found
from vlmbench.domains.questions import close

#: Split to the names of its file; the first upload called the second one `validate.json`.
FILES = {"train": ("train.json",), "validation": ("validation.json", "validate.json"), "test": ("test.json",)}
RAW = ("img_name", "q_lang", "location", "modality", "base_type", "content_type")


def read(root: Path, *, language: str = "en", folder: str = "imgs") -> Layout:
    """Read the questions of one language.

    Args:
        root: Folder that holds the tables and `folder`.
        language: Beginning of `q_lang`: `en` or `zh`; "" takes all.
        folder: Folder of the images.

    Raises:
        DomainError: A table is missing or cut off, lacks a field, or has no question of the language; an answer type
            is unknown.
    """
    rows: list[dict[str, Any]] = []
    for split, names in FILES.items():
        path = next((root / name for name in names if (root / name).exists()), None) or found(root, names[0])
        before = len(rows)
        for number, line in enumerate(read_list(path), start=1):
            place = f"{path}: question {number}"
            if text_of(line, "q_lang", "", place).lower().startswith(language.lower()):
                rows.append(_row(line, split, place))
        if len(rows) == before:
            raise DomainError(f"{path}: no question has a q_lang that begins with {language!r}")
    frame = pd.DataFrame(rows)
    return Layout(frame.assign(image=folder + "/" + frame["img_name"], group=frame["img_name"]), FolderImages(root))


def _row(line: dict[str, Any], split: str, place: str) -> dict[str, Any]:
    declared = text_of(line, "answer_type", "", place).lower()
    kinds: dict[str, Literal["open", "closed"]] = {"open": "open", "closed": "closed"}
    if declared not in kinds:
        raise DomainError(f"{place}: the answer_type {line['answer_type']!r} is neither OPEN nor CLOSED")
    question = text_of(line, "question", "", place)
    answer = text_of(line, "answer", "", place)
    kind, options, answer = close(question, answer, (), kinds[declared], True, place)
    return {
        "id": f"{split}-{text_of(line, 'qid', '', place)}",
        "split": split,
        "question": question,
        "answer": answer,
        "answer_type": kind,
        "options": options,
        **{name: plain_text(line.get(name)) for name in RAW},
        "img_name": text_of(line, "img_name", "", place),
    }
