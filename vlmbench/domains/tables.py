"""Reading a table of labels the way users have them."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from vlmbench.domains.assemble import read_text
from vlmbench.domains.base import DomainError

#: Entries that mean "no value", as spreadsheets and pandas write them; "none" is not here, it may well be a class.
MISSING = frozenset({"", "nan", "na", "n/a", "<na>", "null"})


def read_table(path: Path) -> pd.DataFrame:
    """Read a table of texts: all entries as they are written, without spaces around them, and without empty rows.

    Not by `pandas.read_csv`, which renames repeated columns, drops entries beyond the header's last column, and skips
    blank lines when it counts rows, all without an error.

    Args:
        path: UTF-8, with or without a byte order mark; commas, semicolons and tabs are told apart by the header.

    Returns:
        A frame of strings; its index is the row that a spreadsheet shows, where the header is row 1. Columns without
        a name are left out.

    Raises:
        DomainError: Not UTF-8, not a table, repeated columns, rows longer than the header, or no rows.
    """
    text = read_text(path)
    header = re.sub(r'"[^"]*"', "", text.lstrip().split("\n", 1)[0])  # a quoted name may hold any of the three
    delimiter = max(",", ";", "\t", key=header.count)
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, strict=True)
    try:
        rows = {number: list(map(str.strip, row)) for number, row in enumerate(reader, start=1)}
    except csv.Error as error:
        raise DomainError(f"{path}: cannot be read as a table: {error}, in line {reader.line_num}") from error
    rows = {number: row for number, row in rows.items() if any(row)}
    if not rows:
        raise DomainError(f"{path}: cannot be read as a table: the file is empty")
    columns = rows.pop(min(rows))
    named = [column for column in columns if column]
    twice = sorted(column for column, count in Counter(named).items() if count > 1)
    if twice:
        raise DomainError(f"{path}: columns {twice} occur more than once")
    if not rows:
        raise DomainError(f"{path}: the table has no rows below its header {', '.join(named)}")
    width = len(columns)
    longer = [number for number, row in rows.items() if len(row) > width and any(row[width:])]
    if longer:
        raise DomainError(
            f"{path}: {len(longer):,} rows have more entries than the header has columns, first row {longer[0]}; "
            f'put an entry that holds a {delimiter!r} in quotes ("), or name the column in the header'
        )
    entries = [row if len(row) == width else (row + [""] * width)[:width] for row in rows.values()]
    return pd.DataFrame(entries, index=list(rows), columns=columns, dtype=str)[named]


def check_columns(path: Path, frame: pd.DataFrame, wanted: Mapping[str, str | None]) -> None:
    """Check that the columns are there that arguments name.

    Args:
        path: The table, for messages.
        frame: The table.
        wanted: Argument to the column that it names, or a column to itself; None where it names none.

    Raises:
        DomainError: One is missing; the message lists those there are.
    """
    for argument, column in wanted.items():
        if column is not None and column not in frame.columns:
            named = f", which {argument} names" if argument != column else ""
            optional = argument in ("split_column", "group_column", "id_column")
            raise DomainError(
                f"{path}: no column {column!r}{named}; the columns are {', '.join(frame.columns)}"
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
