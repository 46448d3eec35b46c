"""The section on subgroups: each model's metric by sex, age, view, and whether the gaps are more than noise."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmbench.metrics.attributes import NOT_KNOWN, in_order, named
from vlmbench.metrics.comparison import Difference, contrast, holm
from vlmbench.metrics.draws import Outcomes, freedom
from vlmbench.metrics.fairness import LEAST_EACH, LEAST_GROUPS, Gap, Subgroups, by_subgroup, gap, rates
from vlmbench.metrics.parts import subset
from vlmbench.reporting.lines import (
    ATTRIBUTE,
    BUDGET,
    FEWEST,
    Line,
    base_of,
    is_seeded,
    lines_of,
    measured,
    resamples_for,
    seed_of,
    tested,
)
from vlmbench.reporting.marks import marks
from vlmbench.reporting.plots import figure
from vlmbench.reporting.section import Section, rendered
from vlmbench.reporting.study import Settings, Study


@dataclass
class Entry:
    """A line and an attribute: what is computed, and what came of it.

    Attributes:
        outcomes: Of each seed.
        labels: (N,) subgroup of each example.
        seed: Of the resamples of the test set.
        names: Of the subgroups, in order.
        levels: Of each subgroup of the table, or None where it is too small here.
        gap: None where fewer than two subgroups have a number.
        p_holm: Of the gap, corrected over the section.
        odds: Gaps of the true- and the false-positive rate.
    """

    line: Line
    outcomes: list[Outcomes]
    labels: NDArray[np.str_]
    seed: int
    names: tuple[str, ...]
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
    entries, left_out = _entries(study)
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


def _entries(study: Study) -> tuple[dict[tuple[str, ...], list[Entry]], int]:
    """Return what can be computed in seconds by task, metric, domain and attribute, and how many lines cannot.

    The first lines of every domain come before the last of any.
    """
    rows = [row for row in study.rows if row.kind == "cell" and row.done and row.task in ("diagnosis", "vqa")]
    by_domain: dict[tuple[str, ...], list[Line]] = defaultdict(list)
    for line in lines_of(row for row in rows if row.domain == base_of(row)):
        by_domain[line.first.task, line.first.primary_metric, line.first.domain].append(line)
    out: dict[tuple[str, ...], list[Entry]] = {}
    work, left_out = 0, 0
    for group in itertools.zip_longest(*by_domain.values()):
        for line in filter(None, group):
            made = _of_line(study, line) if work * FEWEST <= BUDGET else None
            left_out += made is None
            for attribute, one in (made or {}).items():
                first = line.first
                out.setdefault((first.task, first.primary_metric, first.domain, attribute), []).append(one)
                work += _work(one)
    return dict(sorted(out.items())), left_out


def _of_line(study: Study, line: Line) -> dict[str, Entry]:
    """Return one line by attribute; nothing where no attribute has two values."""
    made = [one for row in line.rows if (one := tested(study, row)) is not None]
    out = {}
    for column in made[0].attributes if made else ():
        attribute = str(column).removeprefix(ATTRIBUTE)
        recorded = list(line.first.mapping("data", "subgroups", attribute))
        labels = named(made[0].attributes[column], recorded)
        names = tuple(in_order(set(labels) - {NOT_KNOWN}))
        if len(names) > 1:
            same = [one.outcomes for one in made if one.test_set == made[0].test_set]
            out[attribute] = Entry(line, same, labels, seed_of(made[0].test_set), names)
    return out


def _work(one: Entry) -> int:
    """Examples that one resample and one permutation of patients go through."""
    return len(one.outcomes) * len(one.labels) * (1 + len(one.names))


def _compute(one: Entry, n_resamples: int, settings: Settings) -> None:
    def subgroups(cells: Sequence[Outcomes]) -> Subgroups:
        times = {"n_resamples": n_resamples, "n_permutations": n_resamples}
        return by_subgroup(cells, one.labels, one.names, seed=one.seed, **times)

    one.found = found = subgroups(one.outcomes)
    points, draws = found.by_seed
    nothing, seeded = (np.zeros(1), np.zeros((1, n_resamples))), (is_seeded(one.line.first), False)
    one.levels = tuple(
        None
        if np.isnan(points[:, s]).any()
        else measured(
            contrast(
                (points[:, s], draws[:, s]),
                nothing,
                n_groups=int(n),
                seeded=seeded,
                freedom=min(freedom(subset(cell, one.labels == one.names[s])) for cell in one.outcomes),
            ),
            settings,
            unit=True,
        )
        for s, n in enumerate(found.n_groups)
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
