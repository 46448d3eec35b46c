"""The section on robustness: what worse images cost each model, and who holds better elsewhere than foretold."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from vlmbench.metrics.comparison import Difference, holm
from vlmbench.reporting.corruptions import Condition, Damaged, change, condition_of, damaged, more_lost
from vlmbench.reporting.effective import Shift, shifts
from vlmbench.reporting.lines import Drawn, drawn, is_seeded, level, lines_of, measured
from vlmbench.reporting.marks import marks
from vlmbench.reporting.pairs import compare
from vlmbench.reporting.plots import figure
from vlmbench.reporting.rows import Row
from vlmbench.reporting.section import Section, rendered
from vlmbench.reporting.study import Settings, Study


@dataclass(frozen=True, slots=True)
class Lost:
    """What one model and method loses.

    Attributes:
        clean: Its metric on clean images.
        kinds: Per kind the change, mean over its severities; None where it was not tested.
        overall: The change, mean over kinds.
        conditions: Per condition the change.
    """

    one: Damaged
    clean: Difference
    kinds: Mapping[str, Difference | None]
    overall: Difference | None
    conditions: Mapping[Condition, Difference]


@dataclass(frozen=True, slots=True)
class Table:
    """One domain whose images were made worse."""

    task: str
    metric: str
    domain: str
    kinds: tuple[str, ...]
    rows: tuple[Lost, ...]
    plot: Markup


@dataclass
class Pair:
    """How much more one side loses than the other, on the conditions that both were tested under."""

    left: Damaged
    right: Damaged
    difference: Difference
    conditions: int
    p_holm: float = math.nan


def section(study: Study) -> Section | None:
    """Corruptions and shifts to other domains; None where nothing was tested away from home."""
    done = [row for row in study.rows if row.done and row.task in ("diagnosis", "vqa")]
    worse = [row for row in done if condition_of(row) is not None]
    cells = lines_of(row for row in done if row.kind == "cell" and condition_of(row) is None)
    transfers = lines_of(row for row in done if row.kind == "transfer" and condition_of(row) is None)
    damages = damaged(worse, cells)
    if not damages and not transfers:
        return None
    known = drawn(study, _needed(damages, cells, transfers))
    lost = [made for one in damages if (made := _lost(one, known, study.settings)) is not None]
    tables: dict[tuple[str, str, str], list[Lost]] = defaultdict(list)
    for made in lost:
        first = made.one.clean.first
        tables[first.task, first.primary_metric, made.one.domain].append(made)
    found = shifts(damages, cells, transfers, known, study.settings)
    if not tables and not found:
        return None
    body = rendered(
        "robustness.html.j2",
        tables=[_table(key, rows) for key, rows in tables.items()],
        pairs=_pairs(damages, known, study.settings),
        shifts=[one for one in found if not one.reason],
        refused=_refusals(found),
        unpaired=len(worse) - sum(len(rows) for one in damages for s in one.worse.values() for rows in s.values()),
        n_resamples=max((len(one.draws) for one in known.values()), default=0),
        confidence=study.settings.confidence,
    )
    return Section("robustness", "Robustness", body)


def _needed(damages: Sequence[Damaged], cells: Sequence[Any], transfers: Sequence[Any]) -> list[Row]:
    """Records to draw from, each once: tests away from home, and what they are set beside."""
    places = {(row.task, domain) for line in transfers for row in line.rows for domain in (row.domain, row.trained_on)}
    rows = [row for one in damages for row in one.rows]
    rows += [row for line in transfers for row in line.rows]
    rows += [row for line in cells for row in line.rows if (row.task, row.domain) in places]
    return list({row.path: row for row in rows}.values())


def _lost(one: Damaged, known: Mapping[str, Drawn], settings: Settings) -> Lost | None:
    def told(conditions: Sequence[Condition]) -> Difference | None:
        made = change(one, known, conditions)
        return None if made is None else measured(made, settings)

    clean = [known[row.path] for row in one.clean.rows if row.path in known]
    by_condition = {c: made for c in one.worse if (made := told([c])) is not None}
    if not clean or not by_condition:
        return None
    kinds = {
        kind: told([c for c in by_condition if c[0] == kind])
        for kind in dict.fromkeys(kind for kind, _ in by_condition)
    }
    whole = measured(level(clean, seeded=is_seeded(one.clean.first)), settings, unit=True)
    return Lost(one, whole, kinds, told(list(by_condition)), by_condition)


def _pairs(damages: Sequence[Damaged], known: Mapping[str, Drawn], settings: Settings) -> list[Pair]:
    """Generalist beside specialist where their clean cells may be compared."""
    of_cell = {row.path: number for number, one in enumerate(damages) for row in one.clean.rows}
    comparisons = compare([row for one in damages for row in one.clean.rows])
    sides = dict.fromkeys((of_cell[pair.generalist.path], of_cell[pair.specialist.path]) for pair in comparisons)
    pairs = []
    for left, right in sides:
        made = more_lost(damages[left], damages[right], known)
        if made is not None:
            pairs.append(Pair(damages[left], damages[right], measured(made[0], settings), made[1]))
    for pair, p in zip(pairs, holm([pair.difference.p for pair in pairs]), strict=True):
        pair.p_holm = float(p)
    return pairs


def _refusals(found: Sequence[Shift]) -> list[tuple[str, list[str]]]:
    """Shifts without a line, by the reason."""
    out: dict[str, list[str]] = defaultdict(list)
    for one in found:
        if one.reason:
            out[one.reason].append(f"{one.home} to {one.away}")
    return sorted(out.items())


def _table(key: tuple[str, str, str], rows: Sequence[Lost]) -> Table:
    task, metric, domain = key
    kinds = tuple(dict.fromkeys(kind for row in rows for kind in row.kinds))
    return Table(task, metric, domain, kinds, tuple(rows), _plot(metric, domain, kinds, rows))


def _plot(metric: str, domain: str, kinds: Sequence[str], rows: Sequence[Lost]) -> Markup:
    """One panel a kind: the metric from clean images to the worst."""
    traces: list[dict[str, Any]] = []
    styles = marks([row.one.clean.first for row in rows])
    for panel, kind in enumerate(kinds, start=1):
        for row, style in zip(rows, styles, strict=True):
            steps = [(severity, made) for (k, severity), made in row.conditions.items() if k == kind]
            if not steps:
                continue
            places = [(0, None), *steps]
            traces.append(
                {
                    "type": "scatter",
                    "mode": "lines+markers",
                    "name": row.one.clean.name,
                    "legendgroup": row.one.clean.name,
                    "showlegend": panel == 1,
                    "x": [place for place, _ in places],
                    "y": [round(row.clean.estimate + (made.estimate if made else 0), 4) for _, made in places],
                    "xaxis": f"x{panel}",
                    "yaxis": f"y{panel}",
                    "marker": {**style, "size": 7},
                    "line": {"width": 1.5, "dash": "dash" if row.one.clean.first.role == "specialist" else "solid"},
                    "ids": [row.one.clean.first.identity] * len(places),
                    "hovertext": [
                        "clean" if made is None else f"change {made.estimate:+.3f} [{made.low:+.3f}, {made.high:+.3f}]"
                        for _, made in places
                    ],
                }
            )
    lines = math.ceil(len(kinds) / 3)
    layout: dict[str, Any] = {
        "height": 120 + 260 * lines,
        "grid": {"rows": lines, "columns": min(3, len(kinds)), "pattern": "independent"},
    }
    for panel, kind in enumerate(kinds, start=1):
        number = panel if panel > 1 else ""  # plotly's layout has no xaxis1
        layout[f"xaxis{number}"] = {"title": {"text": f"severity of {kind}"}, "dtick": 1}
        layout[f"yaxis{number}"] = {"matches": "y"} if panel > 1 else {"title": {"text": metric}}
    caption = f"{metric} on {domain} as images get worse; 0 is clean. Dashed lines are specialists."
    table = rendered("robustness_conditions.html.j2", rows=rows)
    return figure(traces, layout, caption=caption, described=f"{caption} The numbers are below.", table=table)
