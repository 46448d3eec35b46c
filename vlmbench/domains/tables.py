"""Reading a table of labels the way users have them."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from vlmbench.domains.assemble import read_text
from vlmbench.domains.base import DomainError

#: Entries that mean "no value", as spreadsheets and pandas write them; "none" is not here, it may well be a class.
MISSING = frozenset({"", "nan", "na", "n/a", "<na>", "null"})


def read_table(path: Path) -> pd.DataFrame:
    """Read a table of texts: all entries as they are written, without spaces around them, and without empty rows.

    Args:
        path: UTF-8, with or without a byte order mark; commas, semicolons and tabs are told apart by the header.

    Returns:
        A frame of strings; its index is the row that a spreadsheet shows, where the header is row 1.

    Raises:
        DomainError: Not UTF-8, not a table, repeated columns, or no rows.
    """
    text = read_text(path)
    header = text.lstrip().split("\n", 1)[0]
    delimiter = max(",", ";", "\t", key=header.count)
    try:
        frame = pd.read_csv(io.StringIO(text), sep=delimiter, dtype=str, keep_default_na=False, index_col=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, csv.Error) as error:
        raise DomainError(f"{path}: cannot be read as a table: {' '.join(str(error).split())}") from error
    frame.columns = pd.Index([str(column).strip() for column in frame.columns])
    if not frame.columns.is_unique:
        twice = sorted(set(frame.columns[frame.columns.duplicated()]))
        raise DomainError(f"{path}: columns {twice} occur more than once")
    # The row number that an editor shows, for messages, so it is kept from before empty rows go.
    frame.index = pd.RangeIndex(2, len(frame) + 2)
    frame = frame.fillna("").apply(lambda column: column.str.strip())
    frame = frame[(frame != "").any(axis=1)]
    if frame.empty:
        raise DomainError(f"{path}: the table has no rows below its header {', '.join(frame.columns)}")
    return frame


def check_columns(path: Path, frame: pd.DataFrame, wanted: Mapping[str, str | None]) -> None:
    """Check that the columns are there that arguments name.

    Args:
        path: The table, for messages.
        frame: The table.
        wanted: Argument to the column that it names; None where it names none.

    Raises:
        DomainError: One is missing; the message lists those there are.
    """
    for argument, column in wanted.items():
        if column is not None and column not in frame.columns:
            optional = argument in ("split_column", "group_column", "id_column")
            raise DomainError(
                f"{path}: no column {column!r}, which {argument} names; the columns are {', '.join(frame.columns)}"
                + (f"; set {argument} to one of them, or to null for none" if optional else "")
            )


def check_filled(path: Path, frame: pd.DataFrame, column: str) -> None:
    """Check that a column has a value in every row.

    Raises:
        DomainError: With the number of rows without one, and the first.
    """
    empty = frame.index[frame[column].str.lower().isin(MISSING)]
    if len(empty):
        raise DomainError(f"{path}: column {column!r} is empty in {len(empty):,} rows, first in row {empty[0]}")
