"""BERTScores beside a record: a table with one row an open answer, and a summary that says of which model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmbench.records.judgements import predictions_digest
from vlmbench.records.store import RecordError, read_predictions, write_table, write_text

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 1
TABLE, SUMMARY = "bertscore.parquet", "bertscore.json"


def write_bertscores(folder: Path, frame: pd.DataFrame, identity: Mapping[str, Any]) -> None:
    """Write table and summary; the summary is last, so that its presence means that the table is there.

    Args:
        folder: Of the record.
        frame: With `example_id`, `precision`, `recall`, `f1`.
        identity: What the scores follow from besides the predictions, whose digest is added.

    Raises:
        RecordError: They cannot be written.
    """
    path = folder / SUMMARY
    path.unlink(missing_ok=True)
    write_table(folder / TABLE, frame)
    summary = {"schema": SCHEMA, "identity": dict(identity), "predictions": predictions_digest(folder)}
    write_text(path, json.dumps(summary, indent=1, ensure_ascii=False) + "\n")


def bertscore_identity(folder: Path) -> dict[str, Any] | None:
    """Return what the scores beside a record follow from; None where there are none of its present predictions.

    Raises:
        RecordError: The summary cannot be read.
    """
    path = folder / SUMMARY
    if not path.exists():
        return None
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
        current = summary["schema"] == SCHEMA and summary["predictions"] == predictions_digest(folder)
        return dict(summary["identity"]) if current else None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecordError(f"{path} cannot be read: {error}. Delete it and score the cell again.") from error


def read_bertscores(folder: Path) -> pd.DataFrame:
    """Return the table, to be read where `bertscore_identity` says that there is one.

    Raises:
        RecordError: It is missing or damaged.
    """
    return read_predictions(folder, TABLE)
