"""What a paper takes from a study besides tables of cells: figures as PDF and SVG, and the verdicts.

The same records give the same bytes: no file holds a date, and the names inside an SVG are hashed with a fixed salt.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vlmbench.reporting.colour import CATEGORIES
from vlmbench.reporting.findings import Finding, Findings, find
from vlmbench.reporting.gaps import name
from vlmbench.reporting.grids import cell_matrices
from vlmbench.reporting.heatmap import draw
from vlmbench.reporting.questions import QUESTIONS
from vlmbench.reporting.spending import COSTS, Budget, budgets
from vlmbench.reporting.study import Study
from vlmbench.reporting.text import name_text
from vlmbench.reporting.verdicts import COLUMNS, latex_verdicts, verdict_rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# More lines than this fit no page of a paper; the page and the CSV files have them.
MOST_LINES = 120
# Of a verdict: colour and marker, either of which tells it.
_MARKERS = {
    "better": (CATEGORIES[2], "^"),
    "worse": (CATEGORIES[1], "v"),
    "equivalent": (CATEGORIES[0], "s"),
    "cannot tell": (CATEGORIES[6], "o"),
}
_ROLES = {"generalist": "o", "specialist": "D"}


def write_paper(study: Study, out_dir: Path) -> None:
    """Write `figures/*.pdf` and `.svg`, `verdicts.csv` and `answers.tex`.

    Raises:
        OSError: The folder cannot be written to.
    """
    findings = find(study)
    with (out_dir / "verdicts.csv").open("w", encoding="utf-8", errors="replace", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(verdict_rows(findings))
    (out_dir / "answers.tex").write_text(latex_verdicts(findings), encoding="utf-8", errors="replace")
    folder = out_dir / "figures"
    folder.mkdir(exist_ok=True)
    import matplotlib as mpl

    for title, figure in _figures(study, findings):
        with mpl.rc_context({"svg.hashsalt": "vlmbench", "svg.fonttype": "none", "pdf.fonttype": 42}):
            figure.savefig(folder / f"{title}.pdf", metadata={"CreationDate": None, "Creator": None, "Producer": None})
            figure.savefig(folder / f"{title}.svg", metadata={"Date": None, "Creator": None})


def _figures(study: Study, findings: Findings) -> Iterator[tuple[str, Figure]]:
    for matrix in cell_matrices(study.rows):
        if 0 < len(matrix.lines) <= MOST_LINES:
            yield _file("heatmap", matrix.task, matrix.metric), draw([matrix], dpi=100)
    for task in findings.tests:
        for question in QUESTIONS:
            found = [
                one
                for one in findings.of(question, task, "question", "pair", "domain")
                if not math.isnan(one.difference.estimate)
            ]
            for metric in dict.fromkeys(one.metric for one in found):
                shown = [one for one in found if one.metric == metric][:MOST_LINES]
                yield _file("gaps", task, question.key, metric), _gaps(shown, findings.settings.margin)
    for budget in budgets(study):
        if any(one.costs["trainable"] is not None for one in budget.spent):
            yield _file("pareto", budget.task, budget.metric), _pareto(budget)


def _gaps(found: Sequence[Finding], margin: float) -> Figure:
    """Differences with their intervals, one a line."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 0.9 + 0.22 * len(found)), layout="constrained")
    axes = figure.add_subplot()
    axes.axvspan(-margin, margin, color="0.9", lw=0)
    axes.axvline(0, color="0.4", lw=0.8)
    for verdict, (ink, marker) in _MARKERS.items():
        chosen = [(place, one.difference) for place, one in enumerate(found) if one.verdict == verdict]
        reach = [0.0 if math.isnan(one.high) else one.high - one.estimate for _, one in chosen]
        values, places = [one.estimate for _, one in chosen], [place for place, _ in chosen]
        if chosen:
            axes.errorbar(values, places, xerr=reach, fmt=marker, color=ink, ms=4.5, lw=1, capsize=2, label=verdict)
    axes.set_yticks(range(len(found)), [name(one).replace("$", r"\$") for one in found], fontsize=7)
    axes.set_ylim(len(found) - 0.4, -0.6)
    axes.set_xlabel(f"{name_text(found[0].metric)}, generalist minus specialist", fontsize=8)
    axes.tick_params(axis="x", labelsize=7)
    axes.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _pareto(budget: Budget) -> Figure:
    """The metric against trainable parameters; what is on the front of the estimates is filled and named."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 4), layout="constrained")
    axes = figure.add_subplot()
    methods = list(dict.fromkeys(one.first.first.finetune for one in budget.spent))
    told: set[str] = set()
    for one in budget.spent:
        cost, row = one.costs["trainable"], one.first.first
        if cost is None:
            continue
        ink = CATEGORIES[methods.index(row.finetune) % len(CATEGORIES)]
        reach = 0.0 if math.isnan(one.level.high) else one.level.high - one.level.estimate
        first = row.finetune not in told
        told.add(row.finetune)
        axes.errorbar(
            [cost],
            [one.level.estimate],
            yerr=[reach],
            fmt=_ROLES.get(row.role, "s"),
            color=ink,
            mfc=ink if one.on_front.get("trainable") else "white",
            ms=5,
            lw=0.8,
            label=row.finetune if first else None,
        )
        if one.on_front.get("trainable"):
            at = (cost, one.level.estimate)
            axes.annotate(row.model.replace("$", r"\$"), at, xytext=(4, 4), textcoords="offset points", fontsize=6.5)
    axes.set_xscale("symlog", linthresh=100)  # nothing is trained off the shelf
    axes.set_xlabel(COSTS["trainable"][0], fontsize=8)
    axes.set_ylabel(f"{name_text(budget.metric)}, mean over {len(budget.domains)} domains", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _file(*words: str) -> str:
    return "-".join("".join(c if c.isascii() and (c.isalnum() or c == "_") else "-" for c in word) for word in words)
