"""The section on cost: the front of the primary metric against each cost, and the cost of every cell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from vlmbench.reporting.longtable import Cell, Column, estimate_cell, identities, long_table, seed_text, setting
from vlmbench.reporting.marks import marks
from vlmbench.reporting.plots import figure
from vlmbench.reporting.rows import Row
from vlmbench.reporting.section import Section, rendered
from vlmbench.reporting.spending import COSTS, Budget, budgets
from vlmbench.reporting.study import Study
from vlmbench.reporting.tables import PARTS
from vlmbench.reporting.text import (
    ABSENT,
    bytes_text,
    count_text,
    name_text,
    percent_text,
    rate_text,
    seconds_text,
)

_COLUMNS = (
    Column("Cell", "name"),
    Column("Domain", "name"),
    Column("Primary metric", "n"),
    *(Column(title, "n") for title in ("Total time", "Trainable parameters", "Peak memory, host")),
    Column("Examples/s, predicting", "n"),
    Column("Saved", "n"),
    Column("Operations", "n"),
)


def section(study: Study) -> Section | None:
    """The section; None where no cell is done."""
    rows = [row for row in study.rows if row.kind == "cell" and row.done]
    if not rows:
        return None
    found = budgets(study)
    table = long_table("Cost of every cell", _COLUMNS, [(identities(row), _costs(row)) for row in rows], "cells.csv")
    body = rendered(
        "cost.html.j2",
        budgets=[(one, [(name, *_shown(one, name)) for name in COSTS]) for one in found],
        costs=COSTS,
        n=len(rows),
        table=table,
        printed=printed,
        confidence=study.settings.confidence,
    )
    return Section("cost", "Cost beside accuracy", body)


def printed(name: str, value: float | None) -> str:
    """A cost as text."""
    kind = COSTS[name][1]
    if kind == "operations":
        return operations_text(value)
    return {"count": count_text, "seconds": seconds_text, "bytes": bytes_text}[kind](value)


def operations_text(value: float | None) -> str:
    """A number of operations with three digits: `4.28 GFLOP`."""
    if value is None:
        return ABSENT
    for unit in ("", "k", "M", "G", "T", "P"):
        if abs(value) < 1000:
            return f"{value:.3g} {unit}FLOP"
        value /= 1000
    return f"{value:.3g} EFLOP"


def _shown(one: Budget, name: str) -> tuple[Markup, str]:
    """The figure of one cost, or why there is none."""
    scored = [spent for spent in one.spent if not math.isnan(spent.level.estimate)]
    priced = [(spent, price) for spent in scored if (price := spent.costs[name]) is not None]
    if len(priced) < 2:
        return Markup(), "fewer than two models and methods have it and a score on record"
    places = _places([price for _, price in priced])
    traces: list[dict[str, Any]] = []
    for (spent, price), x, style in zip(priced, places, marks([s.first.first for s, _ in priced]), strict=True):
        level, share = spent.level, spent.share[name]
        known = not math.isnan(level.low)
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": spent.first.name,
                "x": [x],
                "y": [round(level.estimate, 4)],
                "error_y": {
                    "type": "data",
                    "symmetric": False,
                    "array": [round(level.high - level.estimate, 4) if known else 0],
                    "arrayminus": [round(level.estimate - level.low, 4) if known else 0],
                    "thickness": 1,
                    "width": 0,
                },
                "marker": {**style, "size": 13 if spent.on_front[name] else 8},
                "ids": [spent.first.first.identity],
                "text": [f"{printed(name, price)}; on the front in {percent_text(share)} of the resamples"],
                "hovertemplate": "%{y:.3f}, %{text}",
            }
        )
    steps = sorted({(x, s.level.estimate) for (s, _), x in zip(priced, places, strict=True) if s.on_front[name]})
    ends = [*steps, (max(places), steps[-1][1])]
    line = {"x": [x for x, _ in ends], "y": [round(y, 4) for _, y in ends], "line": {"shape": "hv", "color": "#7f7f7f"}}
    traces.append({"type": "scatter", "mode": "lines", "name": "front", "hoverinfo": "skip", **line})
    title = COSTS[name][0] + (f", {one.memory}" if name == "memory" else "")
    shown_metric = name_text(one.metric)
    layout: dict[str, Any] = {
        "height": 460,
        "xaxis": {"title": {"text": title}, **_ticks(name, [price for _, price in priced])},
        "yaxis": {"title": {"text": f"{shown_metric}, mean of {len(one.domains)} domains"}},
    }
    caption = (
        f"{shown_metric} against {title}; large marks are on the front: nothing is as cheap and as good, and better."
    )
    return figure(traces, layout, caption=caption, described=f"{caption} The table holds the numbers."), ""


def _places(prices: Sequence[float]) -> list[float]:
    """Where costs lie on a logarithmic axis; what costs nothing lies a decade below the least that costs something."""
    least = min((price for price in prices if price > 0), default=1.0)
    return [round(math.log10(price if price > 0 else least / 10), 4) for price in prices]


def _ticks(name: str, prices: Sequence[float]) -> dict[str, Any]:
    some = [price for price in prices if price > 0] or [1.0]
    low, high = math.floor(math.log10(min(some))), math.ceil(math.log10(max(some)))
    factors = (1, 2, 5) if high - low <= 2 else (1,)
    every = max(1, math.ceil((high - low) / 6))
    ticks = [factor * 10.0**decade for decade in range(low, high + 1, every) for factor in factors]
    inside = [tick for tick in ticks if min(some) / 2 <= tick <= max(some) * 2]
    told = [(round(math.log10(tick), 4), printed(name, tick)) for tick in inside]
    if len(some) < len(prices):
        told.insert(0, (_places(prices)[[*prices].index(0)], "0"))
    return {"tickvals": [place for place, _ in told], "ticktext": [words for _, words in told]}


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
        (operations_text(row.number("cost", "flops", "total")), _operations(row)),
    ]


def _operations(row: Row) -> str:
    """Of one example, or why nothing was counted."""
    each = {name: row.number("cost", "flops", f"{name}_per_example") for name in ("predict", "train")}
    if each["predict"] is None:
        return row.text("cost", "flops", "reason") or "not recorded"
    training = f", training {operations_text(each['train'])}" if each["train"] else ""
    return f"an example {operations_text(each['predict'])}{training}"


def _rounded(number: float) -> float:
    return float(f"{number:.4g}")
