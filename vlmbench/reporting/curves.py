"""The section on learning curves: each method with fewer labelled examples, and how many labels one side saves."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from vlmbench.metrics.comparison import Contrast, Difference, contrast, holm
from vlmbench.metrics.curves import interval_of_sizes, size_reaching
from vlmbench.reporting.lines import Drawn, drawn, is_seeded, level, measured, sample, seed_of
from vlmbench.reporting.marks import marks
from vlmbench.reporting.ordering import order, variants
from vlmbench.reporting.pairs import compare
from vlmbench.reporting.plots import figure
from vlmbench.reporting.rows import Row
from vlmbench.reporting.section import Section, rendered
from vlmbench.reporting.study import Settings, Study
from vlmbench.reporting.text import method_text

FULL = "all"
_SUBSET = re.compile(r"(?P<base>[^@~]+)(?:@(?P<size>\d+shots|[\d.e-]+%)(?:-s\d+)?)?")


@dataclass(frozen=True, slots=True)
class Size:
    """A method with so many labelled examples, mean over seeds and over which examples were taken."""

    tag: str
    examples: float
    rows: tuple[Row, ...]
    contrast: Contrast
    level: Difference


@dataclass(frozen=True, slots=True)
class Curve:
    """One model and method by size; `reference` is the same model off the shelf, where that was run."""

    name: str
    sizes: tuple[Size, ...]

    @property
    def first(self) -> Row:
        """What all rows share can be read off any."""
        return self.sizes[0].rows[0]

    @property
    def cells(self) -> str:
        """Identities of its records."""
        return " ".join(row.identity for size in self.sizes for row in size.rows)


@dataclass
class Step:
    """Generalist minus specialist at one size, and the size at which the generalist reaches the specialist's level.

    Attributes:
        needed: Examples; infinite where it is not reached.
        low: Lower end of its interval.
        high: Upper end, infinite where some resamples do not reach it.
        smallest: Examples of the smallest size of the generalist; `needed` may be less where it equals it.
    """

    domain: str
    generalist: Curve
    specialist: Curve
    tag: str
    examples: float
    difference: Difference
    needed: float
    low: float
    high: float
    smallest: float
    p_holm: float = math.nan


def section(study: Study) -> Section | None:
    """Metrics against the number of labelled examples; None where no method was trained with fewer."""
    done = [row for row in study.rows if row.kind == "cell" and row.done and row.task in ("diagnosis", "vqa")]
    bases = {_parts(row)[0] for row in done if _parts(row)[1] != FULL and "~" not in row.domain}
    rows = [row for row in done if "~" not in row.domain and _parts(row)[0] in bases]
    if not rows:
        return None
    known = drawn(study, rows)
    curves, untuned = _curves(rows, known, study.settings)
    if not curves:
        return None
    steps = _steps(rows, curves, known, study.settings)
    groups: dict[tuple[str, str, str], list[Curve]] = defaultdict(list)
    for curve in curves:
        groups[curve.first.task, curve.first.primary_metric, _parts(curve.first)[0]].append(curve)
    tables = [(key, group, _plot(key, group, untuned.get(key, []))) for key, group in groups.items()]
    body = rendered(
        "curves.html.j2",
        tables=tables,
        steps=steps,
        confidence=study.settings.confidence,
        n_resamples=max((len(one.draws) for one in known.values()), default=0),
        infinite=math.inf,
    )
    return Section("curves", "Learning curves", body)


def _parts(row: Row) -> tuple[str, str]:
    """Domain and size of its training split: `chexpert`, `16shots`; not which examples were taken."""
    found = _SUBSET.match(row.domain)
    return (found["base"], found["size"] or FULL) if found else (row.domain, FULL)


def _curves(
    rows: Sequence[Row], known: Mapping[str, Drawn], settings: Settings
) -> tuple[list[Curve], dict[tuple[str, str, str], list[Curve]]]:
    """Curves of at least two sizes, and what needs no labels by task, metric and domain."""
    found: dict[tuple[str, ...], dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    ordered = sorted((row for row in rows if row.path in known), key=order)
    for row, variant in zip(ordered, variants(ordered), strict=True):
        base, tag = _parts(row)
        name = f"{row.model}, {method_text(row.finetune, row.scope, variant)}"
        found[row.task, row.primary_metric, base, name][tag].append(row)
    curves, untuned = [], defaultdict(list)
    for (task, metric, base, name), by_tag in found.items():
        sizes = [made for tag, members in by_tag.items() if (made := _size(tag, members, known, settings)) is not None]
        curve = Curve(name, tuple(sorted(sizes, key=lambda size: size.examples)))
        if sizes and curve.first.finetune == "zero_shot":
            untuned[task, metric, base].append(curve)
        elif len(sizes) > 1:
            curves.append(curve)
    return curves, untuned


def _size(tag: str, rows: Sequence[Row], known: Mapping[str, Drawn], settings: Settings) -> Size | None:
    """None where the records do not say how many examples there were."""
    examples = [n for row in rows if (n := row.number("data", "splits", "train", "examples"))]
    same = [row for row in rows if known[row.path].examples == known[rows[0].path].examples]
    if not examples:
        return None
    made = level([known[row.path] for row in same], seeded=is_seeded(rows[0]))
    return Size(tag, float(np.mean(examples)), tuple(same), made, measured(made, settings, unit=True))


def _steps(rows: Sequence[Row], curves: Sequence[Curve], known: Mapping[str, Drawn], settings: Settings) -> list[Step]:
    """Generalist beside specialist at every size at which both were trained alike."""
    places = {row.path: (curve, size) for curve in curves for size in curve.sizes for row in size.rows}
    pairs: dict[tuple[int, int, str], list[tuple[Row, Row]]] = defaultdict(list)
    numbers = {id(curve): number for number, curve in enumerate(curves)}
    comparisons = compare([row for row in rows if row.path in places])
    for one in comparisons:
        (left, size), (right, _) = places[one.generalist.path], places[one.specialist.path]
        pairs[numbers[id(left)], numbers[id(right)], size.tag].append((one.generalist, one.specialist))
    steps = []
    for (left_number, right_number, tag), members in pairs.items():
        left, right = curves[left_number], curves[right_number]
        sides = [[known[row.path] for row in side] for side in zip(*members, strict=True)]
        if len({one.examples for side in sides for one in side}) > 1:
            continue
        stacked = [(np.array([one.point for one in side]), np.stack([one.draws for one in side])) for side in sides]
        made = contrast(*stacked, seeded=(True, True), **sample([one for side in sides for one in side]))
        size = next(size for size in right.sizes if size.tag == tag)
        told = _needed(left, size, known, settings)
        base = _parts(left.first)[0]
        steps.append(
            Step(base, left, right, tag, size.examples, measured(made, settings), *told, left.sizes[0].examples)
        )
    for step, p in zip(steps, holm([step.difference.p for step in steps]), strict=True):
        step.p_holm = float(p)
    return sorted(steps, key=lambda step: (step.domain, step.generalist.name, step.specialist.name, step.examples))


def _needed(curve: Curve, level_of: Size, known: Mapping[str, Drawn], settings: Settings) -> tuple[float, float, float]:
    """Size at which a curve reaches a level, and its interval, of resampled patients and of seeds."""
    sizes = [size.examples for size in curve.sizes]
    point = size_reaching(sizes, [[size.contrast.estimate] for size in curve.sizes], [level_of.contrast.estimate])
    rng = np.random.default_rng(seed_of(known[level_of.rows[0].path].examples))

    def noisy(one: Contrast) -> Any:
        # What another draw of seeds would move: their variance is that of the mean over them.
        return one.draws + rng.normal(size=len(one.draws)) * math.sqrt(one.seed_variance)

    drawn_sizes = size_reaching(sizes, [noisy(size.contrast) for size in curve.sizes], noisy(level_of.contrast))
    return (float(point[0]), *interval_of_sizes(drawn_sizes, settings.confidence))


def _plot(key: tuple[str, str, str], curves: Sequence[Curve], untuned: Sequence[Curve]) -> Markup:
    task, metric, domain = key
    ends = [min(c.sizes[0].examples for c in curves), max(c.sizes[-1].examples for c in curves)]
    traces: list[dict[str, Any]] = []
    for curve, style in zip(curves, marks([curve.first for curve in curves]), strict=True):
        levels = [size.level for size in curve.sizes]
        lows, highs = (
            [None if math.isnan(v) else round(v, 4) for v in (getattr(d, e) for d in levels)] for e in ("low", "high")
        )
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": curve.name,
                "x": [round(size.examples, 1) for size in curve.sizes],
                "y": [round(one.estimate, 4) for one in levels],
                "error_y": {
                    "type": "data",
                    "symmetric": False,
                    "array": [
                        None if h is None else round(h - d.estimate, 4) for h, d in zip(highs, levels, strict=True)
                    ],
                    "arrayminus": [
                        None if w is None else round(d.estimate - w, 4) for w, d in zip(lows, levels, strict=True)
                    ],
                    "thickness": 1,
                    "width": 2,
                },
                "marker": style,
                "line": {"width": 1.5, "dash": "dash" if curve.first.role == "specialist" else "solid"},
                "ids": [size.rows[0].identity for size in curve.sizes],
            }
        )
    traces += [
        {
            "type": "scatter",
            "mode": "lines",
            "name": f"{curve.name} (no labels)",
            "x": ends,
            "y": [round(curve.sizes[0].level.estimate, 4)] * 2,
            "line": {"width": 1, "dash": "dot" if curve.first.role == "generalist" else "dashdot", "color": "#7f7f7f"},
            "ids": [curve.first.identity] * 2,
        }
        for curve in untuned
    ]
    layout = {
        "height": 460,
        "xaxis": {"type": "log", "title": {"text": "labelled training examples"}},
        "yaxis": {"title": {"text": metric}},
    }
    caption = (
        f"{metric} on {domain} ({task}) by the number of labelled training examples; dashed lines are specialists."
    )
    return figure(traces, layout, caption=caption, described=f"{caption} The table below holds the numbers.")
