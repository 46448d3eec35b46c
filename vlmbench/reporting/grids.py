"""The grid as a table of tiles: model x finetune against domain, seeds summarised, gaps and failures kept visible."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from vlmbench.reporting.ordering import ROLES, TASKS, line_key, order, rank, variants
from vlmbench.reporting.pairs import links
from vlmbench.reporting.rows import Row

# A colour scale narrower than this would paint noise in strong colours.
MIN_SPAN = 0.2

PAIR = "Pair: "

# What `shown_name` of a domain adds for a part of the train split.
_SUBSET = re.compile(r"@(\d+shots|[\d.e+-]+%)(-s\d+)?$")

State = Literal["done", "undefined", "failed", "missing"]


@dataclass(frozen=True, slots=True)
class Tile:
    """One cell of the heat map.

    Attributes:
        state: `done`; `undefined` (ran, metric null); `failed`; or `missing` (no record).
        value: Of the one seed, or the mean over seeds.
        low: Lower end of the one seed's interval, or the smallest seed; None where there is none.
        high: Upper end, likewise.
        seeds: Seeds that gave a value.
        failed: Seeds that failed.
        exposure: `id`, `ood`, `unknown`; empty for a missing tile.
        home: Transfer only: the domain the model was trained on.
        note: What a reader should know of it: an error, a reason, which seeds.
        cells: Identities of the records behind it.
    """

    state: State
    value: float | None = None
    low: float | None = None
    high: float | None = None
    seeds: int = 0
    failed: int = 0
    exposure: str = ""
    home: bool = False
    note: str = ""
    cells: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Line:
    """One row of the heat map: one model, adapted one way; `variant` says which recipe where there are several."""

    model: str
    role: str
    finetune: str
    scope: str
    trained_on: str
    variant: str
    tiles: tuple[Tile, ...]


@dataclass(frozen=True, slots=True)
class Matrix:
    """One heat map: the lines of one task and primary metric, by group of linked models."""

    task: str
    metric: str
    domains: tuple[tuple[str, str], ...]
    groups: tuple[tuple[str, tuple[Line, ...]], ...]
    scale: tuple[float, float]

    @property
    def lines(self) -> list[Line]:
        """All lines, without their grouping."""
        return [line for _, lines in self.groups for line in lines]


def cell_matrices(rows: Sequence[Row]) -> list[Matrix]:
    """The heat maps of the cells: one per task and primary metric."""
    return _matrices([row for row in rows if row.kind == "cell"], links(rows))


def transfer_matrices(rows: Sequence[Row]) -> list[Matrix]:
    """The same for transfers, with the tuned cell's own domain beside the domains it was tested on.

    A cell that was tuned on a part of the train split was tested on the whole test split: its own domain is the whole.
    """
    transfers = [row for row in rows if row.kind == "transfer"]
    sources = {line_key(row) for row in transfers}
    homes = [replace(row, trained_on=row.domain) for row in rows if row.kind == "cell"]
    homes = [replace(row, domain=_SUBSET.sub("", row.domain)) for row in homes if line_key(row) in sources]
    return _matrices([*homes, *transfers], links(rows))


def _matrices(rows: Sequence[Row], pairs: Sequence[tuple[str, str]]) -> list[Matrix]:
    found: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        if row.model and row.domain and row.task:
            found[(row.task, row.primary_metric)].append(row)
    keys = sorted(found, key=lambda key: (rank(key[0], TASKS), key[1]))
    return [_matrix(*key, found[key], pairs) for key in keys]


def _matrix(task: str, metric: str, rows: Sequence[Row], pairs: Sequence[tuple[str, str]]) -> Matrix:
    covered = {row.domain for row in rows if row.exposure == "id"}
    modality = {row.domain: row.modality for row in rows if row.modality}
    domains = sorted({row.domain for row in rows}, key=lambda name: (name not in covered, name))
    members: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row, variant in zip(rows, variants(rows), strict=True):
        members[(line_key(row), variant)].append(row)
    titles = _group_titles(rows, pairs)
    groups: dict[str, list[Line]] = defaultdict(list)
    for (_, variant), group in sorted(members.items(), key=lambda item: (order(item[1][0])[1:6], item[0][1])):
        first = group[0]
        tiles = tuple(summarise([row for row in group if row.domain == name]) for name in domains)
        line = Line(first.model, first.role, first.finetune, first.scope, first.trained_on, variant, tiles)
        groups[titles[first.model]].append(line)
    values = [
        tile.value for lines in groups.values() for line in lines for tile in line.tiles if tile.value is not None
    ]
    return Matrix(
        task=task,
        metric=metric,
        domains=tuple((name, modality.get(name, "")) for name in domains),
        groups=tuple(
            (title, tuple(groups[title]))
            for title in sorted(groups, key=lambda title: (not title.startswith(PAIR), title))
        ),
        scale=colour_range(values),
    )


def _group_titles(rows: Sequence[Row], pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Title of each model's group: the models that pairs link together, generalists first."""
    roles = {row.model: row.role for row in rows}
    cluster = {model: {model} for model in roles}
    for left, right in pairs:
        if left in cluster and right in cluster:
            merged = cluster[left] | cluster[right]
            for model in merged:
                cluster[model] = merged
    titles = {}
    for model, linked in cluster.items():
        named = [
            f"{name} ({roles[name] or 'role not recorded'})"
            for name in sorted(linked, key=lambda name: (rank(roles[name], ROLES), name))
        ]
        titles[model] = PAIR + " and ".join(named) if len(named) > 1 else f"{named[0]}, without a pair here"
    return titles


def summarise(rows: Sequence[Row]) -> Tile:
    """One tile of the rows of one line and domain: one seed with its interval, or the mean and range of several."""
    if not rows:
        return Tile("missing", note="not run: no record of this cell")
    failed = [row for row in rows if not row.done]
    valued = [(row, row.primary.value) for row in rows if row.primary.value is not None]
    tile = Tile(
        state="done" if valued else "failed" if failed else "undefined",
        seeds=len(valued),
        failed=len(failed),
        exposure=rows[0].exposure,
        home=any(row.kind == "cell" and row.trained_on for row in rows),
        cells=tuple(row.identity for row in rows if row.identity),
    )
    notes = [f"{_seed(row)}: {row.primary.reason}" for row in rows if row.primary.value is None]
    if len(valued) == 1:
        row, value = valued[0]
        low, high = row.primary.interval or (None, None)
        notes.insert(0, f"{_seed(row)}, {interval_words(row)}")
        tile = replace(tile, value=value, low=low, high=high)
    elif valued:
        values = [value for _, value in valued if value is not None]
        seeds = ", ".join(f"{_seed(row)}: {value:.4g}" for row, value in valued)
        notes.insert(0, f"mean of {len(values)} seeds, from the smallest to the largest ({seeds})")
        tile = replace(tile, value=math.fsum(values) / len(values), low=min(values), high=max(values))
    return replace(tile, note="; ".join(notes))


def _seed(row: Row) -> str:
    return "seed not recorded" if row.seed is None else f"seed {row.seed}"


def interval_words(row: Row) -> str:
    """What the interval of a row's primary metric is, in words."""
    if row.primary.interval is None:
        return f"no interval: {row.primary.reason or 'the record holds none'}"
    confidence = row.number("bootstrap", "confidence")
    share = "interval" if confidence is None else f"{100 * confidence:g} % interval"
    method, groups = row.text("bootstrap", "method"), row.number("bootstrap", "n_groups")
    unit = row.text("bootstrap", "unit") or "unit"
    told = [share, method, f"{groups:g} {unit}s" if groups is not None else ""]
    return ", ".join(word for word in told if word)


def colour_range(values: Sequence[float]) -> tuple[float, float]:
    """Ends of the colour scale: what the values span, rounded outwards to 0.05 and at least `MIN_SPAN` wide."""
    if not values:
        return 0.0, 1.0
    low, high = math.floor(min(values) * 20) / 20, math.ceil(max(values) * 20) / 20
    if high - low < MIN_SPAN:
        inside = low >= 0 and high <= 1  # a metric that lives in [0, 1] keeps a scale that does
        low = (low + high - MIN_SPAN) / 2
        low = min(max(low, 0.0), 1.0 - MIN_SPAN) if inside else low
        high = low + MIN_SPAN
    return round(low, 4), round(high, 4)
