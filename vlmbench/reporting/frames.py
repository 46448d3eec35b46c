"""Predictions of many cells in memory: read ahead, with what cells of one test set have in common held once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmbench.metrics.diagnosis import one_vs_rest
from vlmbench.metrics.frame import check_frame, diagnosis_arrays
from vlmbench.records.store import PREDICTIONS

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from vlmbench.reporting.rows import Row

# Bytes of predictions that are kept; what is beyond is read each time it is asked for.
MOST = 2 << 30
# Versions of one column that are told apart: each test set has one, whatever the number of cells.
_VERSIONS = 64
_THREADS = 4


class Frames:
    """Predictions by the path of their record.

    Args:
        folders: Path of a record to its directory; all are read at once, in this order.
        most: Bytes that are kept.

    Attributes:
        lacking: Path to the reason why its predictions cannot be read.
    """

    def __init__(self, folders: Mapping[str, Path], most: int = MOST) -> None:
        self.lacking: dict[str, str] = {}
        self._kept: dict[str, pd.DataFrame] = {}
        self._shared: dict[tuple[str, int], list[tuple[pa.ChunkedArray, Any]]] = defaultdict(list)
        self._left = most
        if not folders:
            return
        import pandas as pd  # noqa: F401 - imported before the threads, of which each would wait for it

        paths = list(folders)
        step = 64  # read ahead of what is turned into columns, so that tables in both forms are few
        with ThreadPoolExecutor(_THREADS) as pool:
            for start in range(0, len(paths), step):
                if self._left <= 0:
                    break
                batch = paths[start : start + step]
                for path, table in zip(batch, pool.map(_read, (folders[path] for path in batch)), strict=True):
                    self._take(path, table)

    def get(self, path: str, folder: Path) -> pd.DataFrame | None:
        """The predictions of a record; None where they cannot be read."""
        if path in self.lacking:
            return None
        if path not in self._kept:
            return self._take(path, _read(folder))
        return self._kept[path].copy(deep=False)

    def refuse(self, path: str, reason: str) -> None:
        """Give no predictions of a record from now on."""
        self._kept.pop(path, None)
        self.lacking[path] = reason

    def _take(self, path: str, table: pa.Table | str) -> pd.DataFrame | None:
        import pandas as pd

        if isinstance(table, str):
            self.lacking[path] = table
            return None
        columns = {name: self._column(name, table.column(name)) for name in table.column_names}
        frame = pd.DataFrame(columns, copy=False)
        if self._left > 0:
            self._kept[path] = frame
        return frame.copy(deep=False)

    def _column(self, name: str, column: pa.ChunkedArray) -> pd.Series:
        """A column as pandas has it; one that another cell has too is that one."""
        import pyarrow as pa

        versions = self._shared[(name, len(column))]
        own = pa.types.is_floating(column.type)
        for known, series in [] if own else versions:
            if known.equals(column):
                return series
        series = column.to_pandas()
        self._left -= int(series.memory_usage(index=False, deep=True))
        if not own and len(versions) < _VERSIONS:
            versions.append((column, series))
        return series


def misfit(frame: pd.DataFrame, row: Row) -> str:
    """Say why predictions are not those of a record, or cannot be scored; empty where nothing is wrong.

    What is read here may have been copied in part, or written by another program.
    """
    recorded = row.number("n", "examples")
    if recorded is not None and recorded != len(frame):
        return f"its predictions are of {len(frame)} examples, its record of {recorded:g}"
    if row.task not in ("diagnosis", "vqa"):
        return ""
    try:
        check_frame(frame, row.task)
        if row.task == "diagnosis":
            multi_label = row.scalar("data", "multi_label") is True
            one_vs_rest(*diagnosis_arrays(frame, multi_label), multi_label=multi_label)
    except (ValueError, TypeError) as error:
        return f"its predictions cannot be scored: {error}"
    return ""


def _read(folder: Path) -> pa.Table | str:
    """The table of a cell, or why there is none."""
    import pyarrow.parquet as pq

    path = folder / PREDICTIONS
    if not path.exists():
        return "no predictions beside the record"
    try:
        return pq.ParquetFile(path).read(use_threads=False)
    except (OSError, ValueError) as error:  # pyarrow's own are of these
        return f"{path} cannot be read: {error}. Run the cell again."
