"""Checks of a layout's table whose message names the file, the row and the column."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pandas as pd

from vlmbench.domains.base import DomainError


def check_values(path: Path, frame: pd.DataFrame, column: str, known: Collection[str], hint: str) -> None:
    """Check that a column holds known values alone.

    Args:
        path: The table, for the message.
        frame: As `tables.read_table` gives it: its index is the row of the file.
        column: The column.
        known: Its admissible values; "" where it may be empty.
        hint: What to do.

    Raises:
        DomainError: With the first strange value, its row, and the number of rows like it.
    """
    refuse(path, frame, ~frame[column].isin(list(known)), column, f"; it holds {', '.join(map(repr, known))}; {hint}")


def check_ids(path: Path, frame: pd.DataFrame, ids: pd.Series, column: str) -> None:
    """Check that no row is there twice.

    Args:
        path: The table, for the message.
        frame: As `tables.read_table` gives it.
        ids: Per row, what must be unique.
        column: What `ids` is made of, for the message.

    Raises:
        DomainError: With the first id that is repeated, and its rows.
    """
    if ids.is_unique:
        return
    again = ids[ids.duplicated()]
    rows = ", ".join(str(row) for row in frame.index[ids == again.iloc[0]][:5])
    raise DomainError(
        f"{path}: column {column!r} has {again.iloc[0]!r} in rows {rows}, and {again.nunique():,} ids more than once "
        "in all; take the repeated rows out, or bring the table anew"
    )


def refuse(path: Path, frame: pd.DataFrame, bad: pd.Series, column: str, hint: str) -> None:
    """Raise for the rows that are bad, if there are any.

    Raises:
        DomainError: With the first of them.
    """
    if bad.any():
        more = f" ({int(bad.sum()):,} such rows)" if bad.sum() > 1 else ""
        value = frame[column][bad].iloc[0]
        raise DomainError(f"{path}: row {frame.index[bad][0]}: column {column!r} has {value!r}{more}{hint}")
