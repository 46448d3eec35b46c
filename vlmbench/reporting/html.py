"""Writes the report: one self-contained HTML page, `cells.csv`, and the two LaTeX tables."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmbench.reporting import judged, notes, scatter, text
from vlmbench.reporting.colour import VIRIDIS, colour, text_colour
from vlmbench.reporting.grids import Matrix, Tile, cell_matrices, transfer_matrices
from vlmbench.reporting.load import ReportError, load_rows
from vlmbench.reporting.ordering import TASKS, newest, order, rank
from vlmbench.reporting.pairs import Comparison, compare
from vlmbench.reporting.rows import Row
from vlmbench.reporting.section import Section, environment
from vlmbench.reporting.study import Settings, Study
from vlmbench.reporting.tables import PARTS, latex_table, write_csv

TITLE = "vlmbench report"
MAJORITY = "closed_majority"
# A page with more numbers than this shows only the primary metric by domain and leaves the others to the CSV.
MAX_VALUES = 12_000
OPEN_ROWS = 60
# In the order of the page, below what was run; one that has nothing to say is left out.
SECTIONS: tuple[Callable[[Study], Section | None], ...] = (judged.section,)


@dataclass(frozen=True, slots=True)
class ReportPaths:
    """The files of one report."""

    html: Path
    csv: Path
    table_diagnosis: Path
    table_vqa: Path


def write_report(
    records_dir: Path, out_dir: Path, *, title: str = TITLE, settings: Settings | None = None
) -> ReportPaths:
    """Write the report of every record under a directory.

    The same records give the same bytes: nothing on the page depends on when it was written.

    Args:
        records_dir: Searched recursively for `record.json`.
        out_dir: Created where it is missing; files of an earlier report are overwritten.
        title: Heading of the page.
        settings: What the reader asks for.

    Raises:
        ReportError: There is no record under `records_dir`, or `out_dir` cannot be written to.
    """
    rows, unreadable = load_rows(Path(records_dir))
    out_dir = Path(out_dir)
    paths = ReportPaths(
        html=out_dir / "report.html",
        csv=out_dir / "cells.csv",
        table_diagnosis=out_dir / "table_diagnosis.tex",
        table_vqa=out_dir / "table_vqa.tex",
    )
    current, older = newest(rows)
    matrices = cell_matrices(current)
    study = Study(Path(records_dir), current, older, unreadable, settings or Settings())
    page = render(study, title=title)
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        write_csv(rows, paths.csv, older)
        _write(paths.table_diagnosis, latex_table(matrices, "diagnosis"))
        _write(paths.table_vqa, latex_table(matrices, "vqa"))
        _write(paths.html, page)
    except OSError as error:
        where = error.filename or out_dir
        reason = error.strerror or error
        raise ReportError(f"{where} cannot be written: {reason}; name another output folder") from error
    return paths


def render(study: Study, *, title: str = TITLE) -> str:
    """The page as text."""
    rows, older, unreadable = study.rows, study.older, study.unreadable
    comparisons, refusals = compare(rows)
    done = [row for row in rows if row.done]
    context: dict[str, Any] = {
        "title": title,
        "sections": [made for make in SECTIONS if (made := make(study)) is not None],
        "counts": {
            "cells done": sum(row.kind == "cell" for row in done),
            "transfers done": sum(row.kind == "transfer" for row in done),
            "failed": len(rows) - len(done),
            "unreadable files": len(unreadable),
        },
        "facts": notes.facts(rows),
        "warnings": notes.warnings(rows, older, unreadable),
        "data_notes": notes.data_notes(rows),
        "matrices": cell_matrices(rows),
        "transfers": transfer_matrices(rows),
        "ramp": [f"#{code}" for code in VIRIDIS],
        "comparisons": sorted(comparisons, key=lambda c: (c.generalist.task, c.generalist.domain, order(c.generalist))),
        "forest": forest(comparisons),
        "refusals": refusals,
        "domain_tables": domain_tables(done),
        "charts": scatter.charts(rows),
        "plot": {"left": scatter.LEFT, "right": scatter.RIGHT, "top": scatter.TOP, "bottom": scatter.BOTTOM},
        "costs": [cost(row) for row in done if row.kind == "cell"],
        "failures": [row for row in rows if not row.done],
        "unreadable": unreadable,
        "intervals": sorted({words for row in done if (words := interval_method(row))}),
        "open_rows": OPEN_ROWS,
        "n_files": len(rows) + len(older) + len(unreadable),
    }
    return environment().get_template("report.html.j2").render(context, paint=paint)


def paint(tile: Tile, matrix: Matrix) -> str:
    """The inline style of a heat-map tile: its colour and a readable ink."""
    if tile.value is None:
        return ""
    background = colour(tile.value, matrix.scale)
    return f"background:{background};color:{text_colour(background)}"


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


def forest(comparisons: Sequence[Comparison]) -> dict[tuple[str, str], tuple[float, float]]:
    """The common axis of the small interval plots of each task and metric: what their intervals span."""
    ends: dict[tuple[str, str], list[float]] = defaultdict(list)
    for pair in comparisons:
        for row in (pair.generalist, pair.specialist):
            primary = row.primary
            ends[(row.task, row.primary_metric)] += [
                v for v in (primary.low, primary.high, primary.value) if v is not None
            ]
    spans = {key: (min(values), max(values)) for key, values in ends.items()}
    return {key: (low, high if high > low else low + 1) for key, (low, high) in spans.items()}


@dataclass(frozen=True, slots=True)
class DomainTable:
    """Every metric of the done cells of one domain and task."""

    task: str
    domain: str
    modality: str
    metrics: tuple[str, ...]
    hidden: int
    majority: bool
    rows: tuple[Row, ...]


def domain_tables(done: Sequence[Row]) -> list[DomainTable]:
    """One table per task and domain; the primary metrics come first, the majority baseline has a column of its own."""
    found: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in done:
        if row.kind == "cell":
            found[(row.task, row.domain)].append(row)
    brief = sum(len(row.estimates) for row in done) > MAX_VALUES
    tables = []
    for task, domain in sorted(found, key=lambda key: (rank(key[0], TASKS), key[1])):
        rows = found[(task, domain)]
        primary = list(dict.fromkeys(row.primary_metric for row in rows))
        rest = list(dict.fromkeys(m for row in rows for m in row.estimates if m not in (*primary, MAJORITY)))
        tables.append(
            DomainTable(
                task=task,
                domain=domain,
                modality=rows[0].modality,
                metrics=tuple(primary if brief else primary + rest),
                hidden=len(rest) if brief else 0,
                majority=any(MAJORITY in row.estimates for row in rows),
                rows=tuple(rows),
            )
        )
    return tables


@dataclass(frozen=True, slots=True)
class Cost:
    """What one cell took. Trainable parameters are None where no part was recorded."""

    row: Row
    trainable: float | None
    share: float | None
    parts: tuple[tuple[str, float], ...]


def cost(row: Row) -> Cost:
    """Sum the parameters of a cell over the parts of its model."""
    trainable = {part: row.number("cost", "parameters", part, "trainable") for part in PARTS}
    total = sum(row.number("cost", "parameters", part, "total") or 0 for part in PARTS)
    known = {part: number for part, number in trainable.items() if number is not None}
    count = sum(known.values()) if known else None
    return Cost(
        row=row,
        trainable=count,
        share=count / total if count is not None and total else None,
        parts=tuple((part, number) for part, number in known.items() if number),
    )


def _write(path: Path, content: str) -> None:
    # A lone surrogate can come out of a JSON escape and has no UTF-8 form.
    path.write_text(content, encoding="utf-8", errors="replace")
