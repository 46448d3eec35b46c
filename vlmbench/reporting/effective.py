"""Home against away: each model's metric where it was tuned beside that elsewhere, and what lies above the trend."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from scipy.special import expit, logit

from vlmbench.metrics.comparison import Difference
from vlmbench.metrics.robustness import Trend, effective
from vlmbench.reporting.corruptions import Damaged, scores
from vlmbench.reporting.lines import Drawn, Line, is_seeded, level, measured, unseeded
from vlmbench.reporting.marks import marks
from vlmbench.reporting.plots import figure
from vlmbench.reporting.study import Settings

Floats = NDArray[np.float64]
TICKS = (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)


@dataclass(frozen=True, slots=True)
class Place:
    """A model and method at home and away, mean over seeds: point, then draws (1 + R,)."""

    line: Line
    home: Floats
    away: Floats
    n_groups: int
    freedom: float


@dataclass(frozen=True, slots=True)
class Shift:
    """One domain of training and one of another test.

    Attributes:
        baseline: Which models make the line.
        rows: Each place with its home and away metric and what it has above the line, None where that is not known.
        reason: Why there is no line.
    """

    task: str
    metric: str
    home: str
    away: str
    baseline: str
    rows: tuple[tuple[Place, Difference, Difference, Difference | None], ...]
    reason: str
    plot: Markup


def shifts(
    damages: Sequence[Damaged],
    cells: Sequence[Line],
    transfers: Sequence[Line],
    drawn: Mapping[str, Drawn],
    settings: Settings,
) -> list[Shift]:
    """Return every shift that at least two models were tested under.

    Args:
        damages: Tests on corrupted images; all kinds together are one shift.
        cells: Lines of cells on clean images.
        transfers: Lines of transfers to other domains on clean images.
        drawn: By path.
        settings: What the reader asked for.
    """
    found: dict[tuple[str, str, str, str], list[Place]] = defaultdict(list)
    for (task, metric, domain), group in _grouped(damages).items():
        common = sorted(set.intersection(*(set(one.worse) for one in group)))
        for one in group:
            clean, worse = scores(one, drawn, common)
            if len(clean):
                known = [drawn[row.path] for row in one.clean.rows if row.path in drawn]
                n, freedom = min(each.n_groups for each in known), min(each.freedom for each in known)
                name = f"corrupted ({len(common)} conditions)"
                found[task, metric, domain, name].append(
                    Place(one.clean, clean.mean(axis=0), worse.mean(axis=0), n, freedom)
                )
    homes = {_key(line, line.first.domain): line for line in cells}
    for line in transfers:
        home = homes.get(_key(line, line.first.trained_on))
        place = _place(home, home, line, drawn) if home else None
        if home and place:
            found[line.first.task, line.first.primary_metric, home.first.domain, line.first.domain].append(place)
    for task, metric, domain, away in list(found):  # what was not tuned was tested at both places as cells
        for line in cells:
            other = homes.get(_key(line, away))
            same = (line.first.task, line.first.primary_metric, line.first.domain) == (task, metric, domain)
            place = _place(line, line, other, drawn) if same and other and line.first.finetune == "zero_shot" else None
            if place is not None:
                found[task, metric, domain, away].append(place)
    return [_shift(key, places, drawn, settings) for key, places in found.items() if len(places) > 1]


def _grouped(damages: Sequence[Damaged]) -> dict[tuple[str, str, str], list[Damaged]]:
    out: dict[tuple[str, str, str], list[Damaged]] = defaultdict(list)
    for one in damages:
        out[one.clean.first.task, one.clean.first.primary_metric, one.domain].append(one)
    return out


def _key(line: Line, domain: str) -> tuple[str, ...]:
    first = line.first
    return first.task, first.primary_metric, first.model, first.finetune, first.scope, domain


def _place(shown: Line, home: Line, away: Line, drawn: Mapping[str, Drawn]) -> Place | None:
    sides = []
    for line in (home, away):
        known = [drawn[row.path] for row in line.rows if row.path in drawn]
        if not known or len({one.examples for one in known}) > 1:
            return None
        one = level(known, seeded=is_seeded(line.first))
        sides.append((np.concatenate([[one.estimate], one.draws]), known))
    everything = [each for _, known in sides for each in known]
    n_groups, freedom = min(each.n_groups for each in everything), min(each.freedom for each in everything)
    return Place(shown, sides[0][0], sides[1][0], n_groups, freedom)


def _shift(key: tuple[str, ...], places: Sequence[Place], drawn: Mapping[str, Drawn], settings: Settings) -> Shift:
    home, away = np.stack([p.home for p in places]), np.stack([p.away for p in places])
    untuned = np.array([p.line.first.finetune == "zero_shot" for p in places])
    n = int(places[0].line.first.number("n", "examples") or 100)
    sides = (home[:, 0], home[:, 1:]), (away[:, 0], away[:, 1:])
    trend, baseline = effective(*sides, untuned, n), "models off the shelf"
    if trend.reason:
        trend, baseline = effective(*sides, np.ones(len(places), dtype=bool), n), "all models and methods here"
    rows = []
    for place, x, y, above, draws in zip(places, home, away, trend.above, trend.draws, strict=True):
        size = place.n_groups, place.freedom
        told = [measured(unseeded(v[0], v[1:], *size), settings, unit=True) for v in (x, y)]
        known = not math.isnan(above)
        rows.append((place, told[0], told[1], measured(unseeded(above, draws, *size), settings) if known else None))
    task, metric, domain, elsewhere = key
    plot = _plot(key, places, trend, n)
    return Shift(task, metric, domain, elsewhere, baseline, tuple(rows), trend.reason, plot)


def _plot(key: Sequence[str], places: Sequence[Place], trend: Trend, n: int) -> Markup:
    edge = 0.5 / n
    x, y = (
        logit(np.clip([side[0] for side in sides], edge, 1 - edge))
        for sides in ([p.home for p in places], [p.away for p in places])
    )
    ends = [float(min(x.min(), y.min())) - 0.2, float(max(x.max(), y.max())) + 0.2]
    traces: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": place.line.name,
            "x": [round(float(a), 4)],
            "y": [round(float(b), 4)],
            "marker": style,
            "ids": [place.line.first.identity],
            "hovertemplate": f"{place.home[0]:.3f} at home, {place.away[0]:.3f} away<extra>%{{fullData.name}}</extra>",
        }
        for place, a, b, style in zip(places, x, y, marks([p.line.first for p in places]), strict=True)
    ]
    lines = [("as good away as at home", "dot", ends)]
    if not trend.reason:
        lines.append(("trend", "solid", [trend.intercept + trend.slope * end for end in ends]))
    traces += [
        {
            "type": "scatter",
            "mode": "lines",
            "name": name,
            "x": ends,
            "y": told,
            "line": {"dash": dash, "color": "#7f7f7f"},
        }
        for name, dash, told in lines
    ]
    low, high = expit(ends[0]), expit(ends[1])
    shown = [tick for tick in TICKS if low <= tick <= high]
    ticks = {"tickvals": [round(float(logit(tick)), 4) for tick in shown], "ticktext": [f"{tick:g}" for tick in shown]}
    _, metric, home, away = key
    caption = f"{metric} on {away} against that on {home}, on logit scales."
    layout = {
        "height": 460,
        "xaxis": {"title": {"text": f"{metric} on {home}"}, **ticks},
        "yaxis": {"title": {"text": f"{metric} on {away}"}, **ticks},
    }
    return figure(traces, layout, caption=caption, described=f"{caption} The table below the figure holds the numbers.")
