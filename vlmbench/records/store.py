"""Records and predictions on disk: written atomically and last, read back with their faults named."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmbench.errors import UserError

if TYPE_CHECKING:  # planning reads records alone, and pandas takes longer to import than thousands of them to read
    import pandas as pd

SCHEMA = 1
RECORD, PREDICTIONS = "record.json", "predictions.parquet"
#: Of a cell that chose a prompt: what each candidate predicted on the validation split.
PROMPTS = "prompts.parquet"


class RecordError(UserError):
    """A record is missing, or cannot be read or written; the message says where."""


def write_record(folder: Path, record: Mapping[str, Any]) -> Path:
    """Write `record.json`; it is the last file of a cell, so that its presence means that the rest is there.

    Raises:
        RecordError: It cannot be written; what was there before is there still.
    """
    text = json.dumps({"schema": SCHEMA, **record}, indent=1, ensure_ascii=False, allow_nan=False)
    return _atomically(folder / RECORD, lambda path: path.write_text(text + "\n", encoding="utf-8"))


def write_predictions(folder: Path, frame: pd.DataFrame) -> Path:
    """Write `predictions.parquet`, one row an example; the same frame gives the same bytes.

    Raises:
        RecordError: It cannot be written; what was there before is there still.
    """
    return write_table(folder / PREDICTIONS, frame)


def write_table(path: Path, frame: pd.DataFrame) -> Path:
    """Write a Parquet file whole or not at all; the same frame gives the same bytes.

    Raises:
        RecordError: It cannot be written; what was there before is there still.
    """
    return _atomically(
        path, lambda temporary: frame.to_parquet(temporary, engine="pyarrow", index=False, compression="zstd")
    )


def read_record(folder: Path) -> dict[str, Any]:
    """Read a cell's record.

    Raises:
        RecordError: There is none, or it is not a record of this schema.
    """
    path = folder / RECORD
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RecordError(f"{folder} holds no {RECORD}: the cell is not finished. Train it first.") from error
    except (OSError, ValueError) as error:
        raise RecordError(f"{path} cannot be read: {error}. Delete it and run the cell again.") from error
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        raise RecordError(f"{path} is not a record of schema {SCHEMA}; it was written by another version.")
    return record


def read_predictions(folder: Path, name: str = PREDICTIONS) -> pd.DataFrame:
    """Read a cell's predictions, or another table beside them.

    Raises:
        RecordError: The file is missing or damaged.
    """
    from pyarrow.parquet import ParquetFile

    try:
        # What pandas would read, in half the time: a report reads thousands of small files.
        return ParquetFile(folder / name).read(use_threads=False).to_pandas()
    except (OSError, ValueError) as error:
        raise RecordError(f"{folder / name} cannot be read: {error}. Run the cell again.") from error


def write_text(path: Path, text: str) -> Path:
    """Write a text file whole or not at all."""
    return _atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def _atomically(path: Path, write: Callable[[Path], Any]) -> Path:
    """Write beside the target and rename: readers see the old file or the new one, never a part."""
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        temporary = Path(name)
        write(temporary)
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        raise RecordError(
            f"{path} cannot be written: {error.strerror or error}. Make room there, or let it be written to, and "
            "launch the cell again: it goes on where it stopped."
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
    return path
