"""One model and method over its seeds, with draws of its metric: what several sections of the page compare.

Rows that were tested on the same examples get the same resamples, whatever section asks and however the images were
corrupted: the seed of the resamples follows from the examples' names and groups. So all differences are paired.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vlmbench.config.twins import SEEDLESS
from vlmbench.metrics.comparison import Contrast, Difference, assess, contrast, within_unit
from vlmbench.metrics.contrasts import Resampled
from vlmbench.metrics.draws import Outcomes, draw, freedom, outcomes
from vlmbench.metrics.parts import support
from vlmbench.reporting.ordering import order, variants
from vlmbench.reporting.rows import Row
from vlmbench.reporting.study import Settings, Study
from vlmbench.reporting.text import method_text

Floats = NDArray[np.float64]
ATTRIBUTE = "attribute_"  # begins the columns of predictions that hold one
#: Examples that a section may draw in all: what two cores rank in two seconds.
BUDGET = 100_000_000
#: A standard error from so many resamples is right within 5 % (its own is 1 / sqrt(2 R) of it).
FEWEST = 200


@dataclass(frozen=True, slots=True)
class Line:
    """One model and method on one data set.

    Attributes:
        rows: One a seed.
        variant: What tells its recipe from others of the same name, or empty.
    """

    rows: tuple[Row, ...]
    variant: str = ""

    @property
    def first(self) -> Row:
        """What all rows share can be read off any."""
        return self.rows[0]

    @property
    def method(self) -> str:
        """Finetune and scope, for people."""
        return method_text(self.first.finetune, self.first.scope, self.variant)

    @property
    def name(self) -> str:
        """Model and method, for people."""
        return f"{self.first.model}, {self.method}"

    @property
    def cells(self) -> str:
        """Identities of its records, as `data-cells` takes them."""
        return " ".join(row.identity for row in self.rows)


@dataclass(frozen=True, slots=True)
class Drawn:
    """A row's metric under the resamples of its test set.

    Attributes:
        point: The metric.
        draws: (R,) NaN where undefined.
        n_groups: Groups among which the metric can vary.
        examples: Name of what was resampled: equal for rows whose draws are paired.
        patients: All groups of the test set.
        freedom: Degrees of freedom of the metric's variance over them; below 1 where it cannot vary.
    """

    point: float
    draws: Floats
    n_groups: int
    examples: str
    patients: int
    freedom: float


def lines_of(rows: Iterable[Row]) -> list[Line]:
    """Gather rows that differ in the seed alone, in the order of the page."""
    ordered = sorted(rows, key=order)
    found: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row, variant in zip(ordered, variants(ordered), strict=True):
        key = (row.task, row.primary_metric, row.domain, row.trained_on, row.model, row.finetune, row.scope, variant)
        found[key].append(row)
    return [Line(tuple(members), key[-1]) for key, members in found.items()]


def resamples_for(settings: Settings, examples: float) -> int:
    """Return how many resamples a section draws where its cells have so many examples in all."""
    return int(min(settings.resamples, max(FEWEST, BUDGET // max(examples, 1))))


@dataclass(frozen=True, slots=True)
class Tested:
    """What the sections keep of a cell's predictions.

    Attributes:
        outcomes: Of its primary metric.
        test_set: The same for cells that were tested on the same examples, whatever was done to their images.
        attributes: (N, A) of the examples, in the order of the outcomes.
    """

    outcomes: Outcomes
    test_set: str
    attributes: pd.DataFrame


def tested(study: Study, row: Row) -> Tested | None:
    """Return what a row's predictions give for its primary metric; None, and the reason in `study.lacking`."""
    known: dict[str, Tested | None] = study.memo.setdefault("tested", {})
    if row.path not in known:
        known[row.path] = _tested(study, row)
    return known[row.path]


def _tested(study: Study, row: Row) -> Tested | None:
    frame = study.predictions(row)
    if frame is None:
        return None
    try:
        multi_label = row.scalar("data", "multi_label") is True
        made = outcomes(frame, row.task, row.primary_metric, multi_label=multi_label)
    except (ValueError, KeyError) as error:
        study.lacking[row.path] = f"its predictions do not give {row.primary_metric}: {error}"
        return None
    # The same names in another domain are other examples, and so are those of which something else is true.
    text = "\n".join([base_of(row), *made.example_ids, "", *made.groups, "", *_truth(frame)])
    name = hashlib.sha256(text.encode(errors="replace"))
    if made.columns is not None:
        name.update(made.columns.truth.tobytes())
    columns = [column for column in map(str, frame.columns) if column.startswith(ATTRIBUTE)]
    attributes = frame.sort_values("example_id", kind="stable")[columns]
    # Kept once for all cells of a test set: thousands of cells hold the same names.
    named = Tested(made, name.hexdigest(), attributes)
    first: Tested = study.memo.setdefault("test sets", {}).setdefault(named.test_set, named)
    shared = dataclasses.replace(made, example_ids=first.outcomes.example_ids, groups=first.outcomes.groups)
    return Tested(shared, first.test_set, first.attributes)


def _truth(frame: pd.DataFrame) -> list[str]:
    """What is asked and answered, where anything is."""
    ordered = frame.sort_values("example_id", kind="stable")
    return [text for name in ("question", "answer") if name in ordered for text in ordered[name].astype(str)]


def base_of(row: Row) -> str:
    """Return the domain without what is said of fewer training examples or worse images."""
    return row.domain.partition("~")[0].partition("@")[0]


def drawn(study: Study, rows: Iterable[Row], n_resamples: int | None = None) -> dict[str, Drawn]:
    """Draw the primary metric of rows; what cannot be drawn is left out, with the reason in `study.lacking`.

    Each row is drawn once, as often as the first section needs: fewer resamples are the first of more.

    Args:
        study: Gives the predictions.
        rows: Done records.
        n_resamples: Number of resamples R; by default what the sections that describe can afford, the same in all.

    Returns:
        By the path of the record.
    """
    known: dict[str, Drawn] = study.memo.setdefault("drawn", {})
    wanted = list({row.path: row for row in rows}.values())
    if n_resamples is None:
        n_resamples = resamples_for(study.settings, sum(row.number("n", "examples") or 0 for row in study.rows))
    found: dict[tuple[str, str], list[tuple[Row, Outcomes]]] = defaultdict(list)
    for row in wanted:
        enough = row.path in known and len(known[row.path].draws) >= n_resamples
        made = None if enough else tested(study, row)
        if made is not None:
            found[made.outcomes.metric, made.test_set].append((row, made.outcomes))
    for (_, name), members in found.items():
        points, draws = draw([one for _, one in members], n_resamples=n_resamples, seed=seed_of(name))
        for (row, one), point, values in zip(members, points, draws, strict=True):
            patients = len(np.unique(one.groups))
            known[row.path] = Drawn(float(point), values, support(one), name, patients, freedom(one))
    given = {row.path: known[row.path] for row in wanted if row.path in known}
    return {path: dataclasses.replace(one, draws=one.draws[:n_resamples]) for path, one in given.items()}


def seed_of(test: str) -> int:
    """Return the seed of a test set's resamples."""
    return int(test[:12], 16)


def level(members: Sequence[Drawn], *, seeded: bool) -> Contrast:
    """The mean over seeds of the same test set, as a contrast with nothing."""
    nothing = np.zeros(1), np.zeros((1, len(members[0].draws)))
    points = np.array([one.point for one in members])
    draws = np.stack([one.draws for one in members])
    return contrast((points, draws), nothing, seeded=(seeded, False), **sample(members))


def sample(members: Sequence[Drawn]) -> dict[str, Any]:
    """What `contrast` asks of the test set that all of these were drawn from."""
    return {
        "n_groups": min(one.n_groups for one in members),
        "freedom": min(one.freedom for one in members),
        "test_set": members[0].examples,
    }


def unseeded(estimate: float, draws: Floats, n_groups: int, freedom: float) -> Contrast:
    """Something drawn (R,) as a contrast that knows nothing of seeds."""
    return Contrast(estimate, draws, n_groups, test_sets={"": Resampled(draws, freedom)})


def measured(one: Contrast, settings: Settings, *, unit: bool = False) -> Difference:
    """Test a contrast as the reader asked; `unit` keeps the interval of a metric within 0 and 1."""
    made = assess(one, margin=settings.margin, confidence=settings.confidence, power=settings.power)
    return within_unit(made) if unit else made


def is_seeded(row: Row) -> bool:
    """Whether another seed could give another result: not where nothing is drawn in training."""
    return row.finetune not in SEEDLESS
