"""Gap plots: generalist minus specialist with its interval, for each question, pair and domain."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from vlmbench.reporting.colour import CATEGORIES
from vlmbench.reporting.findings import Finding, Findings, find
from vlmbench.reporting.plots import figure
from vlmbench.reporting.questions import QUESTIONS
from vlmbench.reporting.section import Section, rendered
from vlmbench.reporting.study import Study
from vlmbench.reporting.telling import methods, seeds, where
from vlmbench.reporting.text import name_text

# Each verdict has a symbol besides its colour; a hollow circle is no verdict.
MARKS = {
    "better": (CATEGORIES[2], "triangle-up"),
    "worse": (CATEGORIES[1], "triangle-down"),
    "equivalent": (CATEGORIES[0], "square"),
    "cannot tell": (CATEGORIES[6], "circle-open"),
}
ROW = 26  # pixels
BAND = "rgba(127,127,127,0.18)"
_DOWN = {"xref": "x", "yref": "paper", "y0": 0, "y1": 1, "layer": "below"}  # over the whole height


def section(study: Study) -> Section | None:
    """Make the section; None where nothing was compared."""
    findings = find(study)
    plots = []
    for task in findings.tests:
        for question in QUESTIONS:
            found = findings.of(question, task, "question", "pair", "domain")
            for metric in dict.fromkeys(one.metric for one in found):
                shown = [one for one in found if one.metric == metric and not math.isnan(one.difference.estimate)]
                if shown:
                    plots.append((name_text(task), question, _figure(shown, metric, findings)))
    if not plots and not findings.methods:
        return None
    body = rendered("gaps.html.j2", plots=plots, methods=_methods_table(findings), settings=study.settings)
    return Section("gaps", "Gaps", body)


def name(one: Finding) -> str:
    """The line of a finding in a plot."""
    place = one.place
    if one.level == "question" and len(one.matches) > 1:
        return f"mean of {len(one.matches)}"
    pair = f"{place.generalist} − {place.specialist}"
    return f"{pair}, mean of {len(one.matches)}" if len(one.matches) > 1 else f"{pair}, {where(one.matches[0])}"


def _figure(found: Sequence[Finding], metric: str, findings: Findings) -> Markup:
    margin = findings.settings.margin
    names = [name(one) for one in found]
    traces: list[dict[str, Any]] = []
    for verdict, (ink, symbol) in MARKS.items():
        chosen = [(label, one) for label, one in zip(names, found, strict=True) if one.verdict == verdict]
        if chosen:
            traces += _traces(verdict, ink, symbol, chosen)
    layout = {
        "height": 110 + ROW * len(found),
        "margin": {"l": 10, "r": 20, "t": 10, "b": 90},
        "xaxis": {"title": {"text": f"{name_text(metric)}, generalist minus specialist"}, "zeroline": True},
        "yaxis": {"automargin": True, "categoryorder": "array", "categoryarray": names[::-1]},
        "legend": {"orientation": "h", "y": -70 / (ROW * len(found) + 10), "yanchor": "top"},
        "shapes": [
            {**_DOWN, "type": "rect", "x0": -margin, "x1": margin, "line": {"width": 0}, "fillcolor": BAND},
            {**_DOWN, "type": "line", "x0": 0, "x1": 0, "line": {"width": 1, "color": CATEGORIES[6]}},
        ],
    }
    question = found[0].question
    return figure(
        traces,
        layout,
        caption=f"{question.title}. Grey band: ±{margin:g}, too small to matter.",
        described=f"{len(found)} differences with intervals; the table below holds the same numbers.",
        table=rendered("gap_table.html.j2", found=found, where=where, methods=methods, seeds=seeds, nan=math.isnan),
    )


def _traces(verdict: str, ink: str, symbol: str, chosen: Sequence[tuple[str, Finding]]) -> list[dict[str, Any]]:
    """A lollipop's stick from 0, and its head with the interval."""
    stick: dict[str, list[Any]] = {"x": [], "y": []}
    for label, one in chosen:
        stick["x"] += [0, one.difference.estimate, None]
        stick["y"] += [label, label, None]
    tested = [one.difference for _, one in chosen]
    reach = [0.0 if math.isnan(each.high) else each.high - each.estimate for each in tested]
    line = {"color": ink, "width": 2}
    return [
        {"type": "scatter", "mode": "lines", **stick, "line": line, "showlegend": False, "hoverinfo": "skip"},
        {
            "type": "scatter",
            "mode": "markers",
            "name": verdict,
            "x": [each.estimate for each in tested],
            "y": [label for label, _ in chosen],
            "ids": [" ".join(one.cells) for _, one in chosen],
            "error_x": {"type": "data", "array": reach, "color": ink, "thickness": 1.5, "width": 4},
            "marker": {"color": ink, "symbol": symbol, "size": 10, "line": {"width": 2, "color": ink}},
        },
    ]


def _methods_table(findings: Findings) -> Markup | None:
    if not findings.methods:
        return None
    tasks = dict.fromkeys(one.task for one in findings.methods)
    grouped = [
        (name_text(task), question, chosen)
        for task in tasks
        for question in QUESTIONS
        if (chosen := [one for one in findings.methods if one.task == task and one.question is question])
    ]
    return rendered("method_gaps.html.j2", grouped=grouped, where=where, methods=methods, seeds=seeds, nan=math.isnan)
