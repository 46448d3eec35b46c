"""Every record and the command that makes it again."""

from __future__ import annotations

from pathlib import Path

from vlmbench.records.command import Command, commands_of
from vlmbench.reporting.longtable import Cell, Column, estimate_cell, identities, long_table, seed_text, setting
from vlmbench.reporting.rows import Row
from vlmbench.reporting.section import Section, rendered
from vlmbench.reporting.study import Study

_COLUMNS = (
    Column("Cell", "name"),
    Column("Domain", "name"),
    Column("Status"),
    Column("Primary metric", "n"),
    Column("Command", "command"),
    Column("Record", "code"),
)


def section(study: Study) -> Section | None:
    """The section; none where there is no record."""
    if not study.rows:
        return None
    commands = commands_of([row.record for row in study.rows], [_trained(study.folder(row)) for row in study.rows])
    rows = [(identities(row), _cells(row, command)) for row, command in zip(study.rows, commands, strict=True)]
    table = long_table("Every cell and its command", _COLUMNS, rows, "cells.csv, their configuration in record.json")
    return Section("commands", "Commands", rendered("commands.html.j2", n=len(rows), table=table))


def _trained(folder: Path) -> str:
    """The directory of the cell that a transfer was made from; empty where it lies elsewhere."""
    return folder.parents[1].as_posix() if folder.parent.name == "transfer" else ""


def _cells(row: Row, command: Command) -> list[Cell]:
    return [
        (row.model or "model not recorded", f"{setting(row)}, seed {seed_text(row)}"),
        (row.domain, f"trained on {row.trained_on}") if row.trained_on else row.domain,
        f"{row.kind} {row.status}",
        estimate_cell(row.primary),
        command.line or ("n/a", command.reason),
        row.path,
    ]
