"""The end of the page: what failed, the data and their audits, and how to read it all."""

from __future__ import annotations

from vlmbench.reporting import notes, text
from vlmbench.reporting.longtable import Cell, Column, identities, long_table, seed_text, setting
from vlmbench.reporting.rows import Row
from vlmbench.reporting.section import Section, rendered
from vlmbench.reporting.study import Study

_FAILED = (Column("Cell", "name"), Column("Domain", "name"), Column("Error", "wide"), Column("Record", "code"))


def failures(study: Study) -> Section | None:
    """Cells that failed, and files that are no records."""
    failed = [row for row in study.rows if not row.done]
    if not failed and not study.unreadable:
        return None
    table = long_table("Failed cells", _FAILED, [(identities(row), _failed(row)) for row in failed], "cells.csv")
    body = rendered("failed.html.j2", failures=failed, table=table, unreadable=study.unreadable)
    return Section("failed", "Failures", body)


def _failed(row: Row) -> list[Cell]:
    told = f"{setting(row) or 'finetune not recorded'}, seed {seed_text(row)}"
    domain = row.domain or "not recorded"
    at: Cell = (domain, f"trained on {row.trained_on or 'n/a'}") if row.kind == "transfer" else domain
    return [(row.model or "model not recorded", told), at, row.error_line, row.path]


def data(study: Study) -> Section:
    """Splits, what was left out of them, overlaps, licences."""
    return Section("data", "Data", rendered("data.html.j2", data_notes=notes.data_notes(study.rows)))


def reading(study: Study) -> Section:
    """What the words and marks of the page mean."""
    intervals = sorted({words for row in study.rows if row.done and (words := interval_method(row))})
    return Section("reading", "How to read it", rendered("reading.html.j2", intervals=intervals))


def interval_method(row: Row) -> str:
    """How the intervals of a record were made, without its own number of groups."""
    confidence, method = row.number("bootstrap", "confidence"), row.text("bootstrap", "method")
    if confidence is None and not method:
        return ""
    share = "" if confidence is None else f"{100 * confidence:g} % "
    resamples = row.primary.n_resamples
    unit = row.text("bootstrap", "unit")
    return (
        f"{share}interval, {method or 'method not recorded'}"
        + (f", {text.count_text(resamples)} resamples" if resamples else "")
        + (f" of whole {unit}s" if unit else "")
    )
