"""Every score beside what needs no picture: differences from baselines on the same examples, with intervals."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vlmbench.config.twins import SEEDLESS
from vlmbench.metrics.comparison import Difference, assess, contrast, within_unit
from vlmbench.metrics.draws import Outcomes, draw
from vlmbench.metrics.majority import majority_diagnosis, majority_vqa
from vlmbench.reporting.lines import drawn, lines_of, seed_of
from vlmbench.reporting.ordering import order
from vlmbench.reporting.rows import Row
from vlmbench.reporting.study import Settings, Study

if TYPE_CHECKING:
    import pandas as pd

#: Behind the standard error of a difference, which so many give to within 3 %.
RESAMPLES = 600
MAJORITY, RANDOM = "majority", "random features"
# In the order of the page; a model that was tuned on such images is a stronger baseline than one that only sees them.
BASELINES = (MAJORITY, "blank", "shuffled", "tuned on blank", "tuned on shuffled", RANDOM)
Drawn = tuple[NDArray[np.float64], NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Line:
    """One model tuned in one way, all seeds together.

    Attributes:
        rows: A row a seed.
        score: The mean score; `low` and `high` are its interval.
        baselines: By name of the baseline (its own score, score minus baseline).
        variant: What tells its recipe from others of the same name, or empty.
    """

    rows: tuple[Row, ...]
    score: Difference
    baselines: Mapping[str, tuple[float, Difference]]
    variant: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """The lines of one task, domain, test set and metric.

    Attributes:
        task: Name.
        domain: Name.
        metric: Name.
        columns: Baselines that any line has, in order.
        majority: The score of the majority, None where the metric has none.
        learned_from: Split whose answers or labels are the majority's: `train` or `test`.
        lines: In the order of all tables.
    """

    task: str
    domain: str
    metric: str
    columns: tuple[str, ...]
    majority: Difference | None
    learned_from: str
    lines: tuple[Line, ...]


def tables(study: Study) -> list[Table]:
    """Return the tables of all domains with predictions."""
    done = [row for row in study.rows if row.done and row.task in ("diagnosis", "vqa")]
    blind: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in done:
        if row.baseline and row.baseline != RANDOM:
            blind[(row.task, row.model, row.finetune, row.scope, _plain(row.trained_on or row.domain))].append(row)
    shown: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in sorted(done, key=order):
        if row.kind == "cell" and row.baseline in ("", RANDOM):
            shown[(row.task, row.domain, row.primary_metric)].append(row)
    return [table for key, rows in shown.items() for table in _tables(study, key, rows, blind)]


def _tables(
    study: Study, key: tuple[str, str, str], rows: Sequence[Row], blind: Mapping[tuple[str, ...], Sequence[Row]]
) -> list[Table]:
    """Return a table for each test set, of which there is one unless the data changed on the way."""
    n_resamples = min(RESAMPLES, study.settings.resamples)
    beside = {row.path: _beside(row, blind) for row in rows}
    everything = [*rows, *(other for each in beside.values() for other in each.values())]
    known = drawn(study, [row for row in everything if row.primary_metric == key[2]], n_resamples)
    sets: dict[str, dict[str, Row]] = defaultdict(dict)
    for row in everything:
        if row.path in known:
            sets[known[row.path].examples][row.path] = row
    made = []
    for which, members in sets.items():
        own = [row for row in rows if row.path in members]
        first = next(iter(members.values()))
        frame = study.predictions(first)
        majority, learned_from = (None, "") if frame is None else _majority(first, frame, key[2])
        under = {path: (np.array([known[path].point]), known[path].draws[None]) for path in members}
        if majority:
            under[MAJORITY] = draw([majority], n_resamples=n_resamples, seed=seed_of(which))
        sample = known[first.path].patients, known[first.path].freedom
        lines = tuple(_lines(own, beside, under, sample, study.settings))
        columns = tuple(name for name in BASELINES if any(name in line.baselines for line in lines))
        whole = _score(under[MAJORITY], sample, study.settings) if majority else None
        if lines:
            made.append(Table(*key, columns, whole, learned_from, lines))
    return made


def _lines(
    rows: Sequence[Row],
    beside: Mapping[str, Mapping[str, Row]],
    under: Mapping[str, Drawn],
    sample: tuple[int, float],
    settings: Settings,
) -> list[Line]:
    random = [row.path for row in rows if row.baseline == RANDOM]
    made = []
    for line in lines_of(rows):
        seeds = line.rows
        varies = seeds[0].finetune not in SEEDLESS
        own = _stacked(under, [row.path for row in seeds])
        against: dict[str, tuple[float, Difference]] = {}
        for name in BASELINES:
            if name == MAJORITY and MAJORITY in under:
                others = under[MAJORITY]
                against[name] = float(others[0].mean()), _tested(own, others, sample, settings, varies)
            elif name == RANDOM and random and seeds[0].baseline != RANDOM:
                others = _stacked(under, random)
                against[name] = float(others[0].mean()), _tested(own, others, sample, settings, varies)
            else:
                # Seed by seed, as the same weights are asked with and without the picture.
                both = [(row.path, beside[row.path][name].path) for row in seeds if name in beside[row.path]]
                both = [pair for pair in both if pair[1] in under]
                if both:
                    seeing, blind = (_stacked(under, side) for side in zip(*both, strict=True))
                    gain = seeing[0] - blind[0], seeing[1] - blind[1]
                    against[name] = float(blind[0].mean()), _tested(gain, None, sample, settings, varies)
        made.append(Line(seeds, _score(own, sample, settings, varies), against, line.variant))
    return made


def _tested(
    left: Drawn, right: Drawn | None, sample: tuple[int, float], settings: Settings, varies: bool = False
) -> Difference:
    """Test a difference; without a right side, a value against nothing.

    Args:
        left: Points and draws of one side.
        right: Those of the other.
        sample: Groups of the test set, and degrees of freedom of their resampling.
        settings: What the reader asks for.
        varies: Whether another seed could give the left side another result.
    """
    other = (np.zeros(1), np.zeros((1, left[1].shape[1]))) if right is None else right
    one = contrast(left, other, n_groups=sample[0], seeded=(varies, False), freedom=sample[1])
    return assess(one, margin=settings.margin, confidence=settings.confidence, power=settings.power)


def _score(side: Drawn, sample: tuple[int, float], settings: Settings, varies: bool = False) -> Difference:
    """A score with its interval."""
    return within_unit(_tested(side, None, sample, settings, varies))


def _stacked(drawn: Mapping[str, Drawn], paths: Sequence[str]) -> Drawn:
    points, draws = zip(*(drawn[path] for path in paths), strict=True)
    return np.concatenate(points), np.concatenate(draws)


def _majority(row: Row, frame: pd.DataFrame, metric: str) -> tuple[Outcomes | None, str]:
    if row.task == "vqa":
        return majority_vqa(frame, metric), "test"
    train, labels = row.mapping("data", "splits", "train"), row.record.get("data", {}).get("labels") or []
    counts = [train.get(f"label:{label}", 0) for label in labels]
    total = train.get("examples") or 0
    shares = [count / total for count in counts] if total and sum(counts) else None
    multi_label = bool(row.scalar("data", "multi_label"))
    made = majority_diagnosis(frame, metric, multi_label=multi_label, shares=shares)
    return made, "test" if shares is None else "train"


def _beside(row: Row, blind: Mapping[tuple[str, ...], Sequence[Row]]) -> dict[str, Row]:
    """Return what a cell scores without its pictures, by name of the baseline."""
    below = f"{PurePosixPath(row.path).parent}/"
    found: dict[str, Row] = {}
    for other in blind.get((row.task, row.model, row.finetune, row.scope, _plain(row.domain)), ()):
        tuned = other.kind == "cell" and row.finetune != "zero_shot"
        # A transfer lies below its cell; elsewhere the seed and the domain it was trained on say whose it is.
        same = other.seed == row.seed and (other.kind == "cell" or other.trained_on == row.domain)
        name = f"tuned on {other.baseline}" if tuned else other.baseline
        if _plain(other.domain) == _plain(row.domain) and same and (name not in found or other.path.startswith(below)):
            found[name] = other
    return found


def _plain(domain: str) -> str:
    """Return a domain's name without the training subset and what is done to the images."""
    return re.split(r"[@~]", domain, maxsplit=1)[0]
