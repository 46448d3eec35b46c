"""What a reader makes of an official on-disk layout: a table with a row an image, or a question, and the images."""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from vlmbench.domains.base import DomainError, StoredImages
from vlmbench.domains.tables import check_columns, read_table

#: Columns that every layout's table has. A diagnosis has raw label columns beside them, under their published names.
COMMON = ("id", "image", "group", "split")
#: Columns of a VQA layout beside these; `options` holds tuples, and `answer_type` is "open", "closed" or "choice". The
#: options of a choice, and with them its answer, begin with their letters, as `questions.lettered` makes them.
QUESTION = ("question", "answer", "answer_type", "options")
#: Column of a layout of captions.
CAPTION = "caption"


@dataclass(frozen=True)
class Layout:
    """A dataset as it lies on the disk, before any label rule or split of ours.

    Attributes:
        frame: A row an example, in the published order, all entries texts as they are written, "" where there is
            none; columns `COMMON`, the raw ones, and `QUESTION` or `CAPTION`. `split` is the official one, under any
            of the names that `splits.ALIASES` takes, or "" throughout. `id` is unique. `group` is the patient where
            the layout tells, else the nearest thing to it.
        images: Where the pixels are.
        left_out: Rows that the reader dropped, as `Domain.left_out`.
    """

    frame: pd.DataFrame
    images: StoredImages
    left_out: Sequence[Mapping[str, Any]] = ()


def found(root: Path, relative: str) -> Path:
    """Return a file or folder of the layout.

    Raises:
        DomainError: It is not there; the message lists what is.
    """
    path = root / relative
    if not path.exists():
        near = path.parent
        while not near.is_dir() and near != near.parent:
            near = near.parent
        there = sorted(entry.name + "/" * entry.is_dir() for entry in near.iterdir())
        listed = ", ".join(there[:8]) + (", ..." if len(there) > 8 else "")
        raise DomainError(
            f"{path} is not there; {near} holds {listed or 'nothing'}. `python -m vlmbench.domains show NAME` lists "
            "the layout that is expected, and `python -m vlmbench.fetch domain=NAME` brings it or says how to get it"
        )
    return path


def base(root: Path, folder: str, name: str) -> str:
    """Return `folder/`, or "" where a table lies in the root folder itself, as some copies are unpacked.

    Args:
        root: Folder that holds `folder`.
        folder: Name of the release.
        name: The table.
    """
    return "" if not (root / folder).exists() and (root / name).is_file() else f"{folder}/"


def table(root: Path, relative: str, columns: Sequence[str]) -> pd.DataFrame:
    """Return a CSV or TSV table of the layout, as `tables.read_table` reads it.

    Raises:
        DomainError: It is not there, cannot be read, or lacks one of `columns`.
    """
    path = found(root, relative)
    frame = read_table(path)
    check_columns(path, frame, {"this layout": None, **dict(zip(columns, columns, strict=True))})
    return frame


def lacking(root: Path, patterns: Sequence[str]) -> list[str]:
    """Return the patterns of a layout that nothing below `root` matches, in their order."""
    return [pattern for pattern in patterns if next(glob.iglob(pattern, root_dir=root), None) is None]
