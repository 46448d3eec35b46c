"""Writes the report: one self-contained HTML page, `cells.csv`, tables and figures for a paper."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from markupsafe import Markup

from vlmbench.reporting import (
    answers,
    baselines,
    by_domain,
    calibration,
    closing,
    commands,
    costs,
    curves,
    filters,
    gallery,
    gaps,
    heat,
    judged,
    overview,
    profiles,
    prompts,
    reference,
    robustness,
    subgroups,
)
from vlmbench.reporting.grids import cell_matrices
from vlmbench.reporting.load import ReportError, load_rows
from vlmbench.reporting.ordering import newest
from vlmbench.reporting.packed import plotly_script, shrink
from vlmbench.reporting.paper import write_paper
from vlmbench.reporting.section import Section, environment
from vlmbench.reporting.study import LoadImage, Settings, Study
from vlmbench.reporting.tables import latex_table, write_csv

TITLE = "vlmbench report"
# In the order of the page; one that has nothing to say is left out.
SECTIONS: tuple[Callable[[Study], Section | None], ...] = (
    answers.section,
    heat.section,
    gaps.section,
    heat.transfers,
    prompts.section,
    baselines.section,
    profiles.section,
    judged.section,
    calibration.section,
    subgroups.section,
    robustness.section,
    curves.section,
    costs.section,
    reference.section,
    by_domain.section,
    gallery.section,
    commands.section,
    closing.failures,
    closing.data,
    closing.reading,
)
# How the list of sections at the top of the page is grouped; an anchor that is not here stands under "More".
GROUPS = {
    "The answer": ("answers", "heat", "gaps", "transfer"),
    "What weighs on it": ("prompts", "baselines", "profiles", "judge", "calibration", "subgroups", "robustness"),
    "What it takes": ("curves", "cost", "reference"),
    "Every cell": ("domains", "gallery", "commands", "failed"),
    "Reading it": ("run", "data", "reading"),
}


@dataclass(frozen=True, slots=True)
class ReportPaths:
    """The files of one report."""

    html: Path
    csv: Path
    table_diagnosis: Path
    table_vqa: Path


def write_report(
    records_dir: Path,
    out_dir: Path,
    *,
    title: str = TITLE,
    settings: Settings | None = None,
    load_image: LoadImage | None = None,
    paper: bool = False,
) -> ReportPaths:
    """Write the report of every record under a directory.

    The same records give the same bytes: nothing on the page depends on when it was written.

    Args:
        records_dir: Searched recursively for `record.json`.
        out_dir: Created where it is missing; files of an earlier report are overwritten.
        title: Heading of the page.
        settings: What the reader asks for.
        load_image: Gives the images of the gallery, which is left out without it.
        paper: Whether to write the figures and verdicts of `paper.write_paper` too.

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
    study = Study(Path(records_dir), current, older, unreadable, settings or Settings(), load_image=load_image)
    page = render(study, title=title)
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        write_csv(rows, paths.csv, older)
        _write(paths.table_diagnosis, latex_table(matrices, "diagnosis"))
        _write(paths.table_vqa, latex_table(matrices, "vqa"))
        _write(paths.html, page)
        if paper:
            write_paper(study, out_dir)
    except OSError as error:
        where = error.filename or out_dir
        reason = error.strerror or error
        raise ReportError(f"{where} cannot be written: {reason}; name another output folder") from error
    return paths


def render(study: Study, *, title: str = TITLE) -> str:
    """The page as text."""
    numbers = filters.numbers(study.rows)
    sections = [made for make in SECTIONS if (made := make(study)) is not None]
    told = overview.warnings(study)  # after the sections, of which some find predictions lacking
    place = next((i for i, made in enumerate(sections) if made.anchor in GROUPS["Reading it"]), len(sections))
    sections.insert(place, overview.section(study))
    sections = [replace(made, body=shrink(made.body, numbers)) for made in sections]
    facets = filters.facets(study.rows)
    context = {
        "title": title,
        "sections": sections,
        "groups": grouped(sections),
        "counts": overview.counts(study),
        "n_warnings": len(told),
        "facets": [facet for facet in facets if len(facet["values"]) > 1],
        "facet_data": filters.data(facets),
        "n_cells": len(study.rows),
        "plotly": plotly_script() if any('class="plot"' in made.body for made in sections) else Markup(),
        "n_files": len(study.rows) + len(study.older) + len(study.unreadable),
    }
    return environment().get_template("report.html.j2").render(context)


def grouped(sections: list[Section]) -> dict[str, list[Section]]:
    """The sections under the titles of `GROUPS`, in the order of the page; empty groups are left out."""
    known = {anchor: title for title, anchors in GROUPS.items() for anchor in anchors}
    out: dict[str, list[Section]] = {title: [] for title in (*GROUPS, "More")}
    for made in sections:
        out[known.get(made.anchor, "More")].append(made)
    return {title: members for title, members in out.items() if members}


def _write(path: Path, content: str) -> None:
    # A lone surrogate can come out of a JSON escape and has no UTF-8 form.
    path.write_text(content, encoding="utf-8", errors="replace")
