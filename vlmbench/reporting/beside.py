"""Generalist beside specialist, cell by cell: what may be compared, and why the rest may not."""

from __future__ import annotations

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
from vlmbench.reporting.ordering import order
from vlmbench.reporting.pairs import Comparison, Refusal, compare
from vlmbench.reporting.section import Section, rendered
from vlmbench.reporting.study import Study
from vlmbench.reporting.text import name_text, signed_text

_COLUMNS = (
    Column("Domain", "name"),
    Column("Adaptation", "name"),
    Column("Seed", "n"),
    Column("Generalist", "name"),
    Column("Value", "n"),
    Column("Specialist", "name"),
    Column("Exposure", "mark"),
    Column("Value", "n"),
    Column("Generalist − specialist", "n"),
)
_REFUSED = (Column("Cell", "name"), Column("Domain", "name"), Column("Partner", "name"), Column("Why not", "wide"))


def section(study: Study) -> Section:
    """The section."""
    comparisons, refusals = compare(study.rows)
    ordered = sorted(comparisons, key=lambda c: (c.generalist.task, c.generalist.domain, order(c.generalist)))
    body = rendered(
        "pairs.html.j2",
        n=len(comparisons),
        pairs=long_table("Pairs", _COLUMNS, [_pair(c) for c in ordered], "cells.csv"),
        n_refused=len(refusals),
        refused=long_table("Pairs that are not compared", _REFUSED, [_refused(r) for r in refusals], "cells.csv"),
    )
    return Section("pairs", "Generalist beside specialist", body)


def _pair(pair: Comparison) -> tuple[list[str], list[Cell]]:
    left, right = pair.generalist, pair.specialist
    overlap = {None: "no interval", True: "intervals overlap", False: "intervals apart"}[pair.overlap]
    return identities(left, right), [
        (left.domain, f"{name_text(left.task)}, {name_text(left.primary_metric)}"),
        setting(left),
        seed_text(left),
        left.model,
        estimate_cell(left.primary),
        right.model,
        mark_text(right),
        estimate_cell(right.primary),
        (signed_text(pair.difference), overlap),
    ]


def _refused(refusal: Refusal) -> tuple[list[str], list[Cell]]:
    row = refusal.row
    told = f"{setting(row)}, seed {seed_text(row)}"
    return identities(row), [(row.model, told), row.domain, refusal.partner, refusal.reason]
