"""Cost beside accuracy: one panel a domain, and the cost of every cell."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from vlmbench.reporting.colour import CATEGORIES
from vlmbench.reporting.longtable import Cell, Column, estimate_cell, identities, long_table, seed_text, setting
from vlmbench.reporting.ordering import FINETUNES, TASKS, rank
from vlmbench.reporting.plots import figure
from vlmbench.reporting.rows import Row
from vlmbench.reporting.section import Section, rendered
from vlmbench.reporting.study import Study
from vlmbench.reporting.tables import PARTS
from vlmbench.reporting.text import bytes_text, count_text, name_text, percent_text, rate_text, seconds_text

SYMBOLS = {"generalist": "circle", "specialist": "diamond"}
ACROSS = 3
_COLUMNS = (
    Column("Cell", "name"),
    Column("Domain", "name"),
    Column("Primary metric", "n"),
    *(Column(title, "n") for title in ("Total time", "Trainable parameters", "Peak memory, host")),
    Column("Examples/s, predicting", "n"),
    Column("Saved", "n"),
)


def section(study: Study) -> Section | None:
    """The section; none where no cell is done."""
    rows = [row for row in study.rows if row.kind == "cell" and row.done]
    if not rows:
        return None
    found: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        found[(row.task, row.primary_metric)].append(row)
    keys = sorted(found, key=lambda key: (rank(key[0], TASKS), key[1]))
    charts = [made for key in keys if (made := chart(*key, found[key])) is not None]
    table = long_table("Cost of every cell", _COLUMNS, [(identities(row), _costs(row)) for row in rows], "cells.csv")
    return Section("cost", "Cost beside accuracy", rendered("cost.html.j2", charts=charts, n=len(rows), table=table))


def chart(task: str, metric: str, rows: Sequence[Row]) -> Markup | None:
    """The primary metric against total seconds; None where no cell has both."""
    usable = [
        row for row in rows if (row.number("cost", "seconds", "total") or 0) > 0 and row.primary.value is not None
    ]
    if not usable:
        return None
    domains = sorted({row.domain for row in usable})
    methods = sorted({row.finetune for row in usable}, key=lambda name: rank(name, FINETUNES))
    drawn: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in usable:
        drawn[(row.domain, row.finetune, row.role)].append(row)
    told: set[tuple[str, str]] = set()
    traces = []
    for (domain, method, role), members in sorted(drawn.items()):
        trace = _trace(members, method, role, CATEGORIES[min(methods.index(method), len(CATEGORIES) - 1)])
        place = domains.index(domain) + 1
        trace |= {"xaxis": f"x{place}", "yaxis": f"y{place}", "showlegend": (method, role) not in told}
        told.add((method, role))
        traces.append(trace)
    left_out = len(rows) - len(usable)
    name = name_text(metric) or "no metric recorded"
    caption = (
        f"{name_text(task)}: {name} against total time, one panel a domain; lines are the intervals of the records."
    )
    if left_out:
        caption += f" Cells without a recorded time or value, not drawn: {left_out}."
    return figure(
        traces, _layout(domains, name), caption=caption, described=f"{caption} The table below holds the same numbers."
    )


def _trace(rows: Sequence[Row], method: str, role: str, ink: str) -> dict[str, Any]:
    values = [row.primary.value or 0.0 for row in rows]
    ends = [row.primary.interval or (value, value) for row, value in zip(rows, values, strict=True)]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": f"{method}, {role or 'role not recorded'}",
        "legendgroup": f"{method} {role}",
        "x": [_rounded(row.number("cost", "seconds", "total") or 0.0) for row in rows],
        "y": [round(value, 4) for value in values],
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": [round(max(high - value, 0), 4) for (_, high), value in zip(ends, values, strict=True)],
            "arrayminus": [round(max(value - low, 0), 4) for (low, _), value in zip(ends, values, strict=True)],
            "thickness": 1,
            "width": 0,
        },
        "marker": {"color": ink, "symbol": SYMBOLS.get(role, "square"), "size": 8},
        "text": [" ".join(part for part in (row.model, row.scope, f"seed {seed_text(row)}") if part) for row in rows],
        "hovertemplate": "%{text}: %{y:.3f}, %{x:.3g} s",
        "ids": [row.identity for row in rows],
    }


def _layout(domains: Sequence[str], metric: str) -> dict[str, Any]:
    down = math.ceil(len(domains) / ACROSS)
    across = min(ACROSS, len(domains))
    layout: dict[str, Any] = {
        "grid": {"rows": down, "columns": across, "pattern": "independent", "ygap": 0.35},
        "height": 120 + 240 * down,
        "legend": {"orientation": "h", "y": -0.35 / down, "yanchor": "top"},
        "annotations": [],
        "margin": {"t": 40, "r": 20, "l": 60},
    }
    for place, domain in enumerate(domains, 1):
        layout[f"xaxis{place}"] = {"type": "log", "title": {"text": "seconds"}, "matches": "x1" if place > 1 else None}
        layout[f"yaxis{place}"] = {"title": {"text": metric}, "matches": "y1" if place > 1 else None}
        layout["annotations"].append(
            {
                "text": domain,
                "xref": f"x{place} domain",
                "yref": f"y{place} domain",
                "x": 0,
                "y": 1.12,
                "showarrow": False,
            }
        )
    return layout


def _costs(row: Row) -> list[Cell]:
    trainable = {part: row.number("cost", "parameters", part, "trainable") for part in PARTS}
    known = {part: number for part, number in trainable.items() if number is not None}
    total = sum(row.number("cost", "parameters", part, "total") or 0 for part in PARTS)
    count = sum(known.values()) if known else None
    share = f" ({percent_text(count / total)})" if count is not None and total else ""
    seconds = {name: seconds_text(row.number("cost", "seconds", name)) for name in ("total", "fit", "predict")}
    rates = {name: rate_text(row.number("cost", "examples_per_second", name)) for name in ("train", "predict")}
    memory = {name: bytes_text(row.number("cost", "peak_memory_bytes", name)) for name in ("host", "device")}
    return [
        (row.model, f"{setting(row)}, seed {seed_text(row)}"),
        (row.domain, row.text("environment", "device") or "device not recorded"),
        estimate_cell(row.primary),
        (seconds["total"], f"fit {seconds['fit']}, predict {seconds['predict']}"),
        (count_text(count) + share, ", ".join(f"{part} {count_text(n)}" for part, n in known.items() if n)),
        (memory["host"], f"device {memory['device']}"),
        (rates["predict"], f"training {rates['train']}"),
        bytes_text(row.number("cost", "saved_bytes")),
    ]


def _rounded(number: float) -> float:
    return float(f"{number:.4g}")
