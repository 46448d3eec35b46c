"""Judgements beside a record: a table with one row an answer, and a summary that says who judged what, and how."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmbench.records.store import PREDICTIONS, RecordError, write_table, write_text

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 1
REQUIRED = {"profile", "identity", "judge", "prompt", "metrics", "counts", "replies"}
PROFILES = ("strict", "medvlmbench")


def table_path(folder: Path, profile: str) -> Path:
    """Return where the table of a profile is: `judgements.parquet`, or with the profile's name where it is not ours."""
    return folder / ("judgements.parquet" if profile == "strict" else f"judgements_{profile}.parquet")


def summary_path(folder: Path, profile: str) -> Path:
    """Return where the summary of a profile is."""
    return folder / ("judge.json" if profile == "strict" else f"judge_{profile}.json")


def predictions_digest(folder: Path) -> str:
    """Return the SHA-256 of a cell's predictions, by which judgements of others are told."""
    return hashlib.sha256((folder / PREDICTIONS).read_bytes()).hexdigest()


def write_judgements(folder: Path, profile: str, frame: pd.DataFrame, summary: Mapping[str, Any]) -> None:
    """Write table and summary; the summary is last, so that its presence means that the table is there.

    Raises:
        RecordError: They cannot be written.
    """
    path = summary_path(folder, profile)
    path.unlink(missing_ok=True)
    write_table(table_path(folder, profile), frame)
    text = json.dumps({"schema": SCHEMA, **summary}, indent=1, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def read_summary(folder: Path, profile: str) -> dict[str, Any] | None:
    """Return the summary of a cell's judgements, None where there is none.

    Raises:
        RecordError: It cannot be read, or is of another version.
    """
    path = summary_path(folder, profile)
    if not path.exists():
        return None
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecordError(f"{path} cannot be read: {error}. Delete it and judge the cell again.") from error
    if not isinstance(summary, dict) or summary.get("schema") != SCHEMA or REQUIRED - summary.keys():
        raise RecordError(f"{path} is of another version, or not whole. Delete it and judge the cell again.")
    return summary


def read_judgements(folder: Path, profile: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Return the table of a cell's judgements, or some of its columns.

    Raises:
        RecordError: It is missing or damaged.
    """
    import pyarrow.parquet

    path = table_path(folder, profile)
    try:
        return pyarrow.parquet.read_table(path, columns=list(columns) if columns else None).to_pandas()
    except (OSError, ValueError) as error:
        raise RecordError(f"{path} cannot be read: {error}. Delete it and judge the cell again.") from error
