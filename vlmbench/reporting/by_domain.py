"""Every metric of every cell, one table a domain."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from vlmbench.reporting.longtable import (
    Cell,
    Column,
    estimate_cell,
    identities,
    long_table,
    mark_text,
    seed_text,
    setting,
)
from vlmbench.reporting.ordering import TASKS, rank
from vlmbench.reporting.rows import Row
from vlmbench.reporting.section import Section, rendered
from vlmbench.reporting.study import Study
from vlmbench.reporting.text import count_text, name_text

MAJORITY = "closed_majority"
# A page with more numbers than this shows only the primary metric by domain and leaves the others to the CSV.
MAX_VALUES = 12_000


@dataclass(frozen=True, slots=True)
class DomainTable:
    """The done cells of one domain and task; `hidden` counts the metrics that are left to the CSV."""

    task: str
    domain: str
    modality: str
    hidden: int
    n: int
    table: Markup


def section(study: Study) -> Section:
    """The section."""
    found: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in study.rows:
        if row.kind == "cell" and row.done:
            found[(row.task, row.domain)].append(row)
    brief = sum(len(row.estimates) for rows in found.values() for row in rows) > MAX_VALUES
    keys = sorted(found, key=lambda key: (rank(key[0], TASKS), key[1]))
    tables = [_table(task, domain, found[(task, domain)], brief) for task, domain in keys]
    return Section("domains", "Domains", rendered("domains.html.j2", tables=tables))


def _table(task: str, domain: str, rows: Sequence[Row], brief: bool) -> DomainTable:
    """The primary metrics come first, the majority baseline last."""
    primary = list(dict.fromkeys(row.primary_metric for row in rows))
    rest = list(dict.fromkeys(m for row in rows for m in row.estimates if m not in (*primary, MAJORITY)))
    metrics = primary if brief else primary + rest
    heads = [(name, name_text(name) or "no metric recorded") for name in metrics]
    if any(MAJORITY in row.estimates for row in rows):
        heads.append((MAJORITY, "majority baseline (closed)"))
    columns = [Column("Model", "name"), Column("Adaptation", "name"), Column("Seed", "n"), Column("Exposure", "mark")]
    columns += [Column(title, "n") for _, title in heads] + [Column("Examples", "n"), Column("Groups", "n")]
    table = long_table(
        f"{domain}, {task}",
        columns,
        [(identities(row), _cells(row, [n for n, _ in heads])) for row in rows],
        "cells.csv",
    )
    return DomainTable(task, domain, rows[0].modality, len(rest) if brief else 0, len(rows), table)


def _cells(row: Row, metrics: Sequence[str]) -> list[Cell]:
    sizes = [count_text(row.number("n", name)) for name in ("examples", "groups")]
    values = [estimate_cell(row.estimates.get(name)) for name in metrics]
    return [row.model, setting(row), seed_text(row), mark_text(row), *values, *sizes]
