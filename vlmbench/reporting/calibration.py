"""The section on what scores mean: calibration, reliability curves, operating points, and each class by itself."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from vlmbench.metrics import bootstrap, calibration, operating
from vlmbench.metrics.diagnosis import OneVsRest, one_vs_rest
from vlmbench.metrics.frame import diagnosis_arrays
from vlmbench.reporting.colour import CATEGORIES
from vlmbench.reporting.detailed import best_by, detailed
from vlmbench.reporting.longtable import setting
from vlmbench.reporting.plots import figure
from vlmbench.reporting.rows import Estimate, Row
from vlmbench.reporting.section import Section, rendered
from vlmbench.reporting.study import Study

# Test examples that are looked into, at 0.1 ms each with 1,000 resamples; a label of a multi-label task costs as much.
BUDGET = 25_000
RESAMPLES = 1000
OF_EACH = ("auroc", "average_precision", "sensitivity", "specificity", "sensitivity_at_90_specificity")
_DASHES = ("solid", "dash", "dot", "dashdot")
_SYMBOLS = ("circle", "square", "diamond", "triangle-up")


@dataclass(frozen=True, slots=True)
class Line:
    """One cell.

    Attributes:
        row: The cell.
        errors: Calibration errors by name.
        chance: Of each, what calibrated scores stay below; None with one group.
        points: The Brier score and the operating points by name.
        classes: Of each class or label its name, its number of positives, and its metrics; empty for a binary task.
        curve: Reliability, as `calibration.reliability` gives it.
    """

    row: Row
    errors: Mapping[str, Estimate]
    chance: Mapping[str, float | None]
    points: Mapping[str, Estimate]
    classes: Sequence[tuple[str, int, Mapping[str, Estimate]]]
    curve: Mapping[str, Any]


def section(study: Study) -> Section | None:
    """Make the section; None without scores to look into."""
    chosen = detailed(study.rows, "diagnosis", BUDGET)
    lines = {row.path: line for row in chosen.rows if (line := _line(row, study)) is not None}
    if not lines:
        return None
    domains: dict[str, list[Row]] = defaultdict(list)
    for row in chosen.rows:
        if row.path in lines:
            domains[row.domain].append(row)
    shown = {
        domain: [lines[row.path] for row in best_by(rows, lambda row: (row.role, row.finetune == "zero_shot"))]
        for domain, rows in sorted(domains.items())
    }
    body = rendered(
        "calibration.html.j2",
        lines=list(lines.values()),
        points=[name for name in next(iter(lines.values())).points if name != "brier"],
        classwise=any("ece_classwise" in line.errors for line in lines.values()),
        of_each=OF_EACH,
        by_class=[line for found in shown.values() for line in found if line.classes],
        figures=[_figure(domain, found) for domain, found in shown.items()],
        chosen=chosen,
        absent=len(chosen.rows) - len(lines),
        confidence=study.settings.confidence,
    )
    return Section("calibration", "Calibration and operating points", body)


def _line(row: Row, study: Study) -> Line | None:
    frame = study.predictions(row)
    if frame is None:
        return None
    multi_label = row.record.get("data", {}).get("multi_label") is True
    scores, targets = diagnosis_arrays(frame, multi_label)
    task = one_vs_rest(scores, targets, multi_label=multi_label)
    groups = frame["group"].to_numpy()
    settings: dict[str, Any] = {
        "n_resamples": min(study.settings.resamples, RESAMPLES),
        "confidence": study.settings.confidence,
    }
    errors = calibration.errors(task, scores, groups, **settings)
    several = task.truth.shape[1] > 1
    parts = [bootstrap.means({"brier": calibration.brier(task)}), operating.operating_points(task)]
    parts += [operating.of_each(task)] if several else []
    found = bootstrap.intervals(
        lambda weights: {name: value for part in parts for name, value in part(weights).items()},
        groups,
        support=operating.support(task, groups),
        **settings,
    )["metrics"]
    estimates = {name: Estimate.of(metric) for name, metric in found.items()}
    each = (
        {name: estimates.pop(name) for name in list(estimates) if name.rpartition("_")[2].isdigit()} if several else {}
    )
    return Line(
        row=row,
        errors={name: Estimate.of(error) for name, error in errors.items()},
        chance={name: None if np.isnan(error["chance"]) else error["chance"] for name, error in errors.items()},
        points=estimates,
        classes=_classes(row, task, each) if several else (),
        curve=_curve(task, scores, groups, settings),
    )


def _curve(task: OneVsRest, scores: Any, groups: Any, settings: Mapping[str, Any]) -> Mapping[str, Any]:
    if task.exclusive:
        return calibration.reliability(scores.max(axis=1)[:, None], task.correct[:, None], groups, **settings)
    return calibration.reliability(task.scores, task.truth.astype(np.float64), groups, **settings)


def _classes(row: Row, task: OneVsRest, each: Mapping[str, Estimate]) -> list[tuple[str, int, Mapping[str, Estimate]]]:
    labels = row.record.get("data", {}).get("labels") or []
    return [
        (
            str(labels[k]) if k < len(labels) else f"class {k}",
            int(task.truth[:, k].sum()),
            {name: each[f"{name}_{k}"] for name in OF_EACH},
        )
        for k in range(task.truth.shape[1])
    ]


def _figure(domain: str, lines: Sequence[Line]) -> Markup:
    """Reliability curves of one domain; besides its colour each has a dash and a symbol of its own."""
    traces: list[dict[str, Any]] = [
        {
            "x": [0, 1],
            "y": [0, 1],
            "mode": "lines",
            "line": {"dash": "dot", "width": 1, "color": CATEGORIES[-1]},
            "hoverinfo": "skip",
            "showlegend": False,
        }
    ]
    for place, line in enumerate(lines):
        curve, row = line.curve, line.row
        drawn = np.isfinite(curve["low"])
        traces.append(
            {
                "name": f"{row.model}, {setting(row)}",
                # Plotly takes points with an equal id for one and the same, so that each names its cell another number
                # of times.
                "ids": [" ".join([row.identity] * (k + 1)) for k in range(len(curve["count"]))],
                "x": _rounded(curve["predicted"]),
                "y": _rounded(curve["observed"]),
                "error_y": {
                    "array": _rounded(np.where(drawn, curve["high"] - curve["observed"], 0)),
                    "arrayminus": _rounded(np.where(drawn, curve["observed"] - curve["low"], 0)),
                    "thickness": 1,
                    "width": 0,
                },
                "customdata": [int(n) for n in curve["count"]],
                "hovertemplate": "said %{x:.2f}, true %{y:.2f}, of %{customdata} examples",
                "mode": "lines+markers",
                "line": {
                    "color": CATEGORIES[place % (len(CATEGORIES) - 1)],
                    "dash": _DASHES[place % len(_DASHES)],
                    "width": 1.5,
                },
                "marker": {"symbol": _SYMBOLS[place % len(_SYMBOLS)], "size": 7},
            }
        )
    axis = {"range": [-0.02, 1.02], "tickvals": [0, 0.5, 1]}
    layout = {
        "height": 320,
        "xaxis": axis | {"title": {"text": "score"}},
        "yaxis": axis | {"title": {"text": "share that is true"}},
        "legend": {"orientation": "h", "y": -0.3},
        "margin": {"l": 56, "r": 12, "t": 12, "b": 48},
    }
    told = "; ".join(
        f"{line.row.model}, {setting(line.row)}: calibration error {line.errors['ece'].value:.3f}" for line in lines
    )
    table = rendered("reliability.html.j2", lines=lines)
    return figure(traces, layout, caption=domain, described=f"Reliability curves on {domain}. {told}.", table=table)


def _rounded(values: Any) -> list[float]:
    return [round(float(value), 4) for value in values]
