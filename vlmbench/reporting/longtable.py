"""Tables about cells: a short one is HTML, a long one is data that the page draws when a reader opens it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

from vlmbench.reporting.ordering import FINETUNES, rank
from vlmbench.reporting.rows import Estimate, Row
from vlmbench.reporting.section import rendered
from vlmbench.reporting.text import interval_text, method_text, value_text

# More rows than this make a page slow to load where each is an element from the start.
STATIC_ROWS = 60
#: The text of a cell, and what stands small below it.
Cell = str | tuple[str, str]


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Attributes:
        title: Its head.
        kind: `n` for numbers, `name` for what must not break, `wide` for prose, `code`, or `command`, which can be
            copied; `mark` for the exposure. The first column holds the heads of the rows, whatever its kind.
    """

    title: str
    kind: Literal["", "n", "name", "wide", "code", "command", "mark"] = ""


def long_table(
    label: str, columns: Sequence[Column], rows: Sequence[tuple[Sequence[str], Sequence[Cell]]], elsewhere: str
) -> Markup:
    """A table of cells that the filters of the page reach.

    Args:
        label: What is in it, for those who cannot see it.
        columns: One for each cell of a row.
        rows: Identities of the records that a row is about, and its cells.
        elsewhere: Where the rows can be read without a script, as in "cells.csv".
    """
    packed = json.dumps([[" ".join(ids), *cells] for ids, cells in rows]) if len(rows) > STATIC_ROWS else ""
    return rendered(
        "table.html.j2",
        label=label,
        columns=columns,
        rows=[] if packed else [(" ".join(ids), list(zip(columns, cells, strict=True))) for ids, cells in rows],
        n=len(rows),
        data=Markup(packed.replace("<", "\\u003c")),  # noqa: S704 - JSON; "<" could end its element
        elsewhere=elsewhere,
    )


def estimate_cell(estimate: Estimate | None) -> Cell:
    """A metric with its interval, or with the reason why one of them is not there."""
    if estimate is None:
        return "n/a", "not in this record"
    if estimate.value is None:
        return "n/a", _brief(estimate.reason, 60)
    if estimate.interval:
        return value_text(estimate.value), interval_text(*estimate.interval)
    return value_text(estimate.value), "no interval" + (f": {_brief(estimate.reason, 80)}" if estimate.reason else "")


def setting(row: Row) -> str:
    """How a model was adapted, in words."""
    return method_text(row.finetune, row.scope)


def seed_text(row: Row) -> str:
    """The seed, or that there is none."""
    return "n/a" if row.seed is None else str(row.seed)


def mark_text(row: Row) -> str:
    """The exposure as the page marks it."""
    return {"id": "ID†", "ood": "OOD"}.get(row.exposure, "unk.")


def identities(*rows: Row) -> list[str]:
    """The identities of records, where they have one."""
    return [row.identity for row in rows if row.identity]


def method_key(row: Row) -> tuple[int, str]:
    """Sort key of methods, the lightest first."""
    return rank(setting(row), FINETUNES)


def _brief(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
