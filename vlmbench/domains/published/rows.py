"""Rows of large tables that nobody has read through: one that is not as it must be stops, or is left out and told."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from vlmbench.domains.assemble import check_choice
from vlmbench.domains.base import DomainError

log = logging.getLogger(__name__)
T = TypeVar("T")


def read_rows(
    lines: Iterable[tuple[str, T]], read: Callable[[T, str], dict[str, Any]], bad_rows: str, path: Path
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the rows of a table, and what was left out of them.

    Args:
        lines: Where each line stands, and the line.
        read: From a line and its place to the row.
        bad_rows: `stop` at a line that has no row, or `leave_out` and count it.
        path: The table, for messages.

    Raises:
        DomainError: A line has no row, and lines are not to be left out; or none has.
    """
    check_choice("domain.settings.bad_rows", bad_rows, ("stop", "leave_out"))
    rows: list[dict[str, Any]] = []
    first, count = "", 0
    for place, line in lines:
        try:
            rows.append(read(line, place))
        except DomainError as error:
            if bad_rows == "stop":
                hint = "domain.settings.bad_rows=leave_out goes on without such rows and counts them"
                raise DomainError(f"{error}; {hint}") from error
            first, count = first or str(error).removeprefix(f"{path.parent}/"), count + 1
    if not rows:
        raise DomainError(f"{path}: no row can be used: {first or 'the table has none'}")
    if not count:
        return rows, []
    log.warning("%s: %d of %d rows are left out, the first because of %s", path, count, count + len(rows), first)
    return rows, [{"image": "", "reason": f"rows that are not as they must be, such as {first}", "examples": count}]
