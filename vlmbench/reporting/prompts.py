"""The section on prompts: which wording each model took, how far wording moves it, and what that does to the pairs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from vlmbench.metrics.comparison import Difference, assess, contrast
from vlmbench.metrics.draws import draw, freedom, outcomes
from vlmbench.records.store import PROMPTS, RecordError, read_predictions
from vlmbench.reporting.colour import CATEGORIES
from vlmbench.reporting.ordering import order
from vlmbench.reporting.pairs import Comparison, compare
from vlmbench.reporting.plots import figure
from vlmbench.reporting.rows import Row
from vlmbench.reporting.section import Section, rendered
from vlmbench.reporting.study import Study

TITLE = "Prompts"
#: Behind the standard error of a gap on validation, which they give to within 3 %.
RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Tried:
    """The prompts of one cell.

    Attributes:
        row: The cell.
        chosen: Place of the chosen candidate.
        candidates: As recorded.
        spread: As recorded.
    """

    row: Row
    chosen: int
    candidates: Sequence[Mapping[str, Any]]
    spread: Mapping[str, Any]

    @property
    def metric(self) -> str:
        """What chose."""
        return self.row.text("prompts", "metric")

    @property
    def text(self) -> str:
        """The chosen one in words."""
        one = self.candidates[self.chosen]
        lines = [*one["templates"], *(f"{name}: {text}" for name, text in one["settings"].items())]
        return "\n".join(lines) or "as configured"


@dataclass(frozen=True, slots=True)
class Moved:
    """A pair's gap on validation, generalist minus specialist.

    Attributes:
        pair: The two cells.
        configured: Both with the configured prompt.
        chosen: Each with its own.
        change: The second minus the first.
    """

    pair: Comparison
    configured: Difference
    chosen: Difference
    change: Difference


def section(study: Study) -> Section | None:
    """The section; None where no cell chose a prompt."""
    tried = [found for row in sorted(study.rows, key=order) if (found := _tried(row)) is not None]
    if not tried:
        return None
    moved, lacking = gaps(study, tried)
    by_metric: dict[str, list[Tried]] = defaultdict(list)
    for one in tried:
        by_metric[one.metric].append(one)
    figures = [_figure(metric, each) for metric, each in sorted(by_metric.items())]
    context = {"tried": tried, "moved": moved, "lacking": lacking, "figures": figures, "settings": study.settings}
    return Section("prompts", TITLE, rendered("prompts.html.j2", **context))


def gaps(study: Study, tried: Sequence[Tried]) -> tuple[list[Moved], list[str]]:
    """Return how each pair's gap on validation moves with the prompts, and why some pairs are left out."""
    known = {one.row.path: one for one in tried}
    found, lacking = [], []
    for pair in compare([one.row for one in tried]):
        sides = known[pair.generalist.path], known[pair.specialist.path]
        try:
            found.append(_moved(study, pair, sides))
        except (RecordError, ValueError) as error:
            lacking.append(f"{pair.generalist.model} and {pair.specialist.model} on {pair.generalist.domain}: {error}")
    return found, lacking


def _moved(study: Study, pair: Comparison, sides: tuple[Tried, Tried]) -> Moved:
    columns = []
    for one in sides:
        frame = read_predictions(study.folder(one.row), PROMPTS)
        multi_label = bool(one.row.scalar("data", "multi_label"))
        for place in (0, one.chosen):
            own = frame[frame["candidate"] == place].drop(columns="candidate").dropna(axis=1, how="all")
            if own.empty:
                raise ValueError(f"{one.row.model} could not be asked with prompt {place}")
            columns.append(outcomes(own, one.row.task, one.metric, multi_label=multi_label))
    fingerprint = pair.generalist.text("data", "fingerprint")
    points, draws = draw(columns, n_resamples=RESAMPLES, seed=int(fingerprint[:8], 16))
    n_groups = len(set(columns[0].groups))
    asked = study.settings

    def tested(left: Sequence[int], right: Sequence[int]) -> Difference:
        # Sums of two: a change is the difference of two differences.
        ends = [(points[list(side)].sum()[None], draws[list(side)].sum(0)[None]) for side in (left, right)]
        one = contrast(*ends, n_groups=n_groups, seeded=(False, False), freedom=freedom(columns[0]))
        return assess(one, margin=asked.margin, confidence=asked.confidence, power=asked.power)

    return Moved(pair, tested([0], [2]), tested([1], [3]), tested([1, 2], [0, 3]))


def _tried(row: Row) -> Tried | None:
    prompts = row.mapping("prompts")
    if not row.done or row.kind != "cell" or not prompts:
        return None
    return Tried(row, prompts["chosen"], prompts["candidates"], prompts["spread"])


def _figure(metric: str, tried: Sequence[Tried]) -> Markup:
    """One line a cell, one mark a candidate."""
    names = {one.row.path: f"{one.row.model}, {one.row.domain}" for one in tried}
    looks = (
        ("other candidates", "circle-open", CATEGORIES[6], lambda one, place: place not in (0, one.chosen)),
        ("configured", "square", CATEGORIES[0], lambda one, place: place == 0),
        ("chosen", "diamond", CATEGORIES[1], lambda one, place: place == one.chosen),
    )
    traces = []
    for name, symbol, ink, belongs in looks:
        points = [
            (one, candidate)
            for one in tried
            for place, candidate in enumerate(one.candidates)
            if belongs(one, place) and candidate["value"] is not None
        ]
        trace: dict[str, Any] = {
            "type": "scatter",
            "mode": "markers",
            "name": name,
            "x": [candidate["value"] for _, candidate in points],
            "y": [names[one.row.path] for one, _ in points],
            "ids": [one.row.identity for one, _ in points],
            "marker": {"symbol": symbol, "color": ink, "size": 9},
        }
        if name == "chosen":
            ends = [(candidate["low"], candidate["value"], candidate["high"]) for _, candidate in points]
            trace["error_x"] = {
                "type": "data",
                "symmetric": False,
                "array": [None if high is None else high - value for _, value, high in ends],
                "arrayminus": [None if low is None else value - low for low, value, _ in ends],
            }
        traces.append(trace)
    layout = {
        "xaxis": {"title": {"text": f"{metric} on validation"}},
        "yaxis": {"automargin": True, "autorange": "reversed", "dtick": 1},
        "margin": {"t": 70, "b": 60},
        "height": 180 + 30 * len(tried),
        "legend": {"orientation": "h", "y": 1, "yanchor": "bottom"},
    }
    sds = [one.spread["sd"] for one in tried if one.spread.get("sd") is not None]
    widest = f"; the largest standard deviation over wordings is {max(sds):.3f}" if sds else ""
    return figure(
        traces,
        layout,
        caption=f"Each candidate prompt by {metric} on the validation split; bars are intervals of the chosen one.",
        described=f"Marks for the candidate prompts, one line for each of the {len(tried)} rows of the table{widest}.",
    )
