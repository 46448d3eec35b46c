"""Question sets of the hub in parquet files: `data/{train,validation,test}-00000-of-00003-HASH.parquet`.

PathVQA: He et al. 2020, "PathVQA: 30000+ Questions for Medical Visual Question Answering", arXiv 2003.10286.
VQA-RAD: Lau et al. 2018, "A dataset of clinically generated visual questions and answers about radiology images",
Scientific Data 5:180251. Both as `flaviagiammarino` published them, with the columns `image`, `question` and `answer`.
A question is closed if its answer is yes or no.
"""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from vlmbench.domains.base import DomainError
from vlmbench.domains.parquet import read_parquet
from vlmbench.domains.published.layout import Layout, found
from vlmbench.domains.questions import YES_NO

SPLITS = ("train", "validation", "test")
#: Name of a part: its split, its number, and how many there are; older files have a hash behind.
_PART = re.compile(r"(train|validation|test)-(\d{5})-of-(\d{5})(?:-[0-9a-f]+)?\.parquet")


def read(root: Path, *, folder: str = "data") -> Layout:
    """Read all parts.

    Args:
        root: Folder that holds `folder`.
        folder: Folder of the parquet files.

    Raises:
        DomainError: Parts are missing, of two uploads, or cut off; a column, question, answer or image is missing.
    """
    parts = _parts(found(root, folder))
    paths = [path for _, path in parts]
    frames, images = read_parquet(paths, ["question", "answer"], root / folder)
    seen: dict[str, int] = {}
    for i, ((split, path), frame) in enumerate(zip(parts, frames, strict=True)):
        for column in ("question", "answer"):
            empty = frame[column].str.strip() == ""
            if empty.any():
                raise DomainError(f"{path}: row {int(empty.to_numpy().argmax()) + 1} has no {column}")
        first = seen.get(split, 0)
        seen[split] = first + len(frame)
        frames[i] = frame.assign(split=split, id=[f"{split}-{row}" for row in range(first, first + len(frame))])
    table = pd.concat(frames, ignore_index=True)
    closed = table["answer"].str.strip().str.lower().isin(YES_NO)
    table["answer"] = table["answer"].where(~closed, table["answer"].str.strip().str.lower())
    table["answer_type"] = closed.map({True: "closed", False: "open"})
    table["options"] = pd.Series([YES_NO if flag else () for flag in closed], dtype=object)
    return Layout(table.assign(group=table["image"]), images)


def _parts(folder: Path) -> list[tuple[str, Path]]:
    """Return the files with their splits, in order, every part of every split there once."""
    there: dict[str, dict[int, Path]] = {}
    totals: dict[str, set[int]] = {}
    for path in sorted(folder.glob("*.parquet")):
        match = _PART.fullmatch(path.name)
        if match is None:
            raise DomainError(f"{path}: not a part of the layout, which is named like train-00000-of-00003.parquet")
        split, number, total = match[1], int(match[2]), int(match[3])
        if number in there.setdefault(split, {}):
            raise DomainError(f"{folder}: {there[split][number].name} and {path.name} are the same part; keep one")
        there[split][number] = path
        totals.setdefault(split, set()).add(total)
    for split in ("train", "test"):
        if split not in there:
            names = ", ".join(path.name for path in sorted(folder.iterdir())[:5])
            raise DomainError(f"{folder}: no {split}-*.parquet; the folder holds {names or 'nothing'}")
    for split, numbers in totals.items():
        missing = sorted(set(range(max(numbers))) - set(there[split]))
        beyond = sorted(set(there[split]) - set(range(max(numbers))))
        told = ""
        if len(numbers) > 1:
            told = f"{split} is of uploads in {sorted(numbers)} parts"
        elif missing:
            told = f"{split} has {len(there[split])} of {max(numbers)} parts, and lacks number {missing[0]}"
        elif beyond:
            told = f"{there[split][beyond[0]].name} is none of the {max(numbers)} parts that it names, from 0"
        if told:
            raise DomainError(f"{folder}: {told}; fetch the dataset again")
    return [(split, there[split][number]) for split in SPLITS if split in there for number in sorted(there[split])]
