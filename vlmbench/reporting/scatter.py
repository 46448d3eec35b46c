"""Cost against accuracy: places the points of small multiples, one panel a domain; the template draws them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from vlmbench.reporting.colour import CATEGORIES
from vlmbench.reporting.grids import colour_range
from vlmbench.reporting.ordering import FINETUNES, TASKS, rank
from vlmbench.reporting.rows import Row
from vlmbench.reporting.text import interval_text, seconds_text, value_text

LEFT, RIGHT, TOP, BOTTOM = 40.0, 292.0, 10.0, 172.0
Tick = tuple[float, str]


@dataclass(frozen=True, slots=True)
class Point:
    """One cell: position in the panel's own units, the two ends of its interval, and how it is drawn and named."""

    x: float
    y: float
    low: float | None
    high: float | None
    shape: str
    colour: str
    title: str


@dataclass(frozen=True, slots=True)
class Chart:
    """The panels of one task and metric, on shared axes; `left_out` counts cells without a duration or a value."""

    task: str
    metric: str
    panels: tuple[tuple[str, tuple[Point, ...]], ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    legend: tuple[tuple[str, str], ...]
    left_out: int


def charts(rows: Sequence[Row]) -> list[Chart]:
    """One chart per task and primary metric of the done cells; none where no cell has both a duration and a value."""
    found: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        if row.kind == "cell" and row.done:
            found[(row.task, row.primary_metric)].append(row)
    keys = sorted(found, key=lambda key: (rank(key[0], TASKS), key[1]))
    return [chart for key in keys if (chart := _chart(*key, found[key])) is not None]


def _chart(task: str, metric: str, rows: Sequence[Row]) -> Chart | None:
    usable = [
        (row, seconds, value)
        for row in rows
        if (seconds := row.number("cost", "seconds", "total"))
        and seconds > 0
        and (value := row.primary.value) is not None
    ]
    if not usable:
        return None
    y_range = colour_range([number for row, _, value in usable for number in (value, *(row.primary.interval or ()))])
    x_range = _decades([seconds for _, seconds, _ in usable])
    finetunes = sorted({row.finetune for row, _, _ in usable}, key=lambda name: rank(name, FINETUNES))
    legend = tuple((name, CATEGORIES[min(i, len(CATEGORIES) - 1)]) for i, name in enumerate(finetunes))
    colours = dict(legend)

    def across(seconds: float) -> float:
        return LEFT + (math.log10(seconds) - x_range[0]) / (x_range[1] - x_range[0]) * (RIGHT - LEFT)

    def up(value: float) -> float:
        return BOTTOM - (value - y_range[0]) / (y_range[1] - y_range[0]) * (BOTTOM - TOP)

    panels: dict[str, list[Point]] = defaultdict(list)
    for row, seconds, value in usable:
        ends = row.primary.interval
        name = " ".join(part for part in (row.model, row.finetune, row.scope, f"seed {row.seed}") if part)
        shown = f"{name}: {value_text(value)} {interval_text(*(ends or (None, None)))}, {seconds_text(seconds)}"
        panels[row.domain].append(
            Point(
                x=round(across(seconds), 1),
                y=round(up(value), 1),
                low=round(up(ends[0]), 1) if ends else None,
                high=round(up(ends[1]), 1) if ends else None,
                shape={"generalist": "circle", "specialist": "diamond"}.get(row.role, "square"),
                colour=colours[row.finetune],
                title=shown,
            )
        )
    return Chart(
        task=task,
        metric=metric,
        panels=tuple((name, tuple(panels[name])) for name in sorted(panels)),
        x_ticks=tuple((across(10**place), text) for place, text in _log_ticks(*x_range)),
        y_ticks=tuple((up(value), f"{value:.2f}") for value in _even_ticks(*y_range)),
        legend=legend,
        left_out=len(rows) - len(usable),
    )


def _decades(seconds: Sequence[float]) -> tuple[float, float]:
    """Ends of the logarithmic axis: a little wider than the values, at least half a decade."""
    low, high = math.log10(min(seconds)) - 0.08, math.log10(max(seconds)) + 0.08
    if high - low < 0.5:
        middle = (low + high) / 2
        low, high = middle - 0.25, middle + 0.25
    return low, high


def _log_ticks(low: float, high: float) -> list[Tick]:
    steps = (1, 2, 5) if high - low < 2.2 else (1,)
    every = max(1, math.ceil((high - low) / 5))
    decades = range(math.floor(low), math.ceil(high) + 1, every)
    places = [math.log10(step) + decade for decade in decades for step in steps]
    return [(place, seconds_text(10**place).replace(".0 ", " ")) for place in places if low <= place <= high]


def _even_ticks(low: float, high: float) -> list[float]:
    step = next((s for s in (0.05, 0.1, 0.2, 0.5) if (high - low) / s <= 6), (high - low) / 4)
    first = math.ceil(low / step - 1e-9)
    return [round(n * step, 6) for n in range(first, math.floor(high / step + 1e-9) + 1)]
