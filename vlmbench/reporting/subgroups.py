"""The section on subgroups: each model's metric by sex, age, view, and whether the gaps are more than noise."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmbench.metrics.attributes import NOT_KNOWN, in_order, named
from vlmbench.metrics.comparison import Contrast, Difference, holm
from vlmbench.metrics.draws import Outcomes
from vlmbench.metrics.fairness import LEAST_EACH, LEAST_GROUPS, Gap, Subgroups, by_subgroup, gap, rates
from vlmbench.reporting.lines import (
    BUDGET,
    FEWEST,
    Line,
    lines_of,
    measured,
    outcomes_of,
    resamples_for,
    seed_of,
    test_set,
)
from vlmbench.reporting.marks import marks
from vlmbench.reporting.plots import figure
from vlmbench.reporting.section import Section, rendered
from vlmbench.reporting.study import Settings, Study

PREFIX = "attribute_"


@dataclass
class Entry:
    """A line and an attribute: what is computed, and what came of it.

    Attributes:
        outcomes: Of each seed.
        labels: (N,) subgroup of each example.
        levels: Of each subgroup of the table, or None where it is too small here.
        gap: None where fewer than two subgroups have a number.
        p_holm: Of the gap, corrected over the section.
        odds: Gaps of the true- and the false-positive rate.
    """

    line: Line
    outcomes: list[Outcomes]
    labels: NDArray[np.str_]
    names: tuple[str, ...] = ()
    found: Subgroups | None = None
    levels: tuple[Difference | None, ...] = ()
    gap: Gap | None = None
    p_holm: float = math.nan
    odds: dict[str, Gap | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Table:
    """One attribute on one domain."""

    domain: str
    task: str
    metric: str
    attribute: str
    names: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]
    entries: tuple[Entry, ...]
    plot: Any


def section(study: Study) -> Section | None:
    """Metrics by subgroup of every attribute that predictions carry; None where none does."""
    entries, left_out = _within_budget(_entries(study))
    if not entries:
        return None
    work = sum(_work(one) for group in entries.values() for one in group)
    n_resamples = resamples_for(study.settings, work)
    for group in entries.values():
        for one in group:
            _compute(one, n_resamples, study.settings)
    flat = [one for group in entries.values() for one in group]
    for one, p in zip(flat, holm([one.gap.p if one.gap else math.nan for one in flat]), strict=True):
        one.p_holm = float(p)
    tables = [_table(key, group) for key, group in entries.items()]
    body = rendered(
        "subgroups.html.j2",
        tables=tables,
        n_resamples=n_resamples,
        left_out=left_out,
        least=LEAST_GROUPS,
        each=LEAST_EACH,
        tests=sum(one.gap is not None for one in flat),
        confidence=study.settings.confidence,
    )
    return Section("subgroups", "Subgroups of patients", body)


def _entries(study: Study) -> dict[tuple[str, ...], list[Entry]]:
    """By task, metric, domain and attribute."""
    rows = [row for row in study.rows if row.kind == "cell" and row.done and row.task in ("diagnosis", "vqa")]
    out: dict[tuple[str, ...], list[Entry]] = defaultdict(list)
    for line in lines_of(row for row in rows if not {"@", "~"} & set(row.domain)):
        frame = study.predictions(line.first)
        if frame is None or not any(str(name).startswith(PREFIX) for name in frame.columns):
            continue
        made = [one for row in line.rows if (one := outcomes_of(study, row)) is not None]
        if not made:
            continue
        made = [one for one in made if test_set(one) == test_set(made[0])]
        frame = frame.sort_values("example_id", kind="stable")
        for column in (name for name in map(str, frame.columns) if name.startswith(PREFIX)):
            attribute = column.removeprefix(PREFIX)
            recorded = list(line.first.mapping("data", "subgroups", attribute))
            labels = named(frame[column], recorded)
            names = tuple(in_order(set(labels) - {NOT_KNOWN}))
            if len(names) > 1:
                key = (line.first.task, line.first.primary_metric, line.first.domain, attribute)
                out[key].append(Entry(line, made, labels, names))
    return out


def _within_budget(entries: dict[tuple[str, ...], list[Entry]]) -> tuple[dict[tuple[str, ...], list[Entry]], int]:
    """Keep what can be computed in seconds, the first lines of every table before the last of any."""
    kept: dict[tuple[str, ...], list[Entry]] = {key: [] for key in entries}
    work, left_out = 0.0, 0
    for place in range(max(map(len, entries.values()), default=0)):
        for key, group in entries.items():
            if place < len(group):
                work += _work(group[place]) * FEWEST
                if work <= 2 * BUDGET:
                    kept[key].append(group[place])
                else:
                    left_out += 1
    return {key: group for key, group in kept.items() if group}, left_out


def _work(one: Entry) -> int:
    """Examples that one resample and one permutation of patients go through."""
    return len(one.outcomes) * len(one.labels) * (1 + len(one.names))


def _compute(one: Entry, n_resamples: int, settings: Settings) -> None:
    seed = seed_of(test_set(one.outcomes[0]))

    def subgroups(cells: Sequence[Outcomes]) -> Subgroups:
        times = {"n_resamples": n_resamples, "n_permutations": n_resamples}
        return by_subgroup(cells, one.labels, one.names, seed=seed, **times)

    one.found = found = subgroups(one.outcomes)
    parts = float(len(one.outcomes) - 1)
    one.levels = tuple(
        None
        if math.isnan(point)
        else measured(Contrast(point, draws, int(n), ((spread, parts),) if spread > 0 else ()), settings, unit=True)
        for point, draws, n, spread in zip(found.points, found.draws, found.n_groups, found.seed_spread, strict=True)
    )
    one.gap = gap(found, confidence=settings.confidence)
    binary = [rates(cell) for cell in one.outcomes]
    for name in binary[0]:
        one.odds[name] = gap(subgroups([cell[name] for cell in binary]), confidence=settings.confidence)


def _table(key: tuple[str, ...], entries: Sequence[Entry]) -> Table:
    task, metric, domain, attribute = key
    names = tuple(in_order({name for one in entries for name in one.names}))
    first = entries[0]
    sizes = []
    for name in names:
        mask = first.labels == name
        sizes.append((int(mask.sum()), len(np.unique(first.outcomes[0].groups[mask]))))
    return Table(domain, task, metric, attribute, names, tuple(sizes), tuple(entries), _plot(key, names, entries))


def _plot(key: tuple[str, ...], names: Sequence[str], entries: Sequence[Entry]) -> Any:
    task, metric, domain, attribute = key
    traces = []
    styles = marks([one.line.first for one in entries])
    for place, (one, style) in enumerate(zip(entries, styles, strict=True)):
        shown = [(names.index(name), level) for name, level in zip(one.names, one.levels, strict=True) if level]
        offset = 0.6 * ((place + 0.5) / len(entries) - 0.5)
        known = [(x, level) for x, level in shown if not math.isnan(level.low)]
        if known:
            traces.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": one.line.name,
                    "x": [round(level.estimate, 4) for _, level in known],
                    "y": [round(y + offset, 3) for y, _ in known],
                    "error_x": {
                        "type": "data",
                        "symmetric": False,
                        "array": [round(level.high - level.estimate, 4) for _, level in known],
                        "arrayminus": [round(level.estimate - level.low, 4) for _, level in known],
                        "thickness": 1,
                        "width": 2,
                    },
                    "marker": style,
                    "ids": [one.line.first.identity] * len(known),
                }
            )
    if not traces:
        return ""
    layout = {
        "height": 140 + len(names) * max(40, 14 * len(entries)),
        "xaxis": {"title": {"text": metric}},
        "yaxis": {"tickvals": list(range(len(names))), "ticktext": list(names), "autorange": "reversed"},
    }
    caption = f"{metric} by {attribute} on {domain} ({task}); bars are intervals."
    return figure(traces, layout, caption=caption, described=f"{caption} The table above holds the same numbers.")
