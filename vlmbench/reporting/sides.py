"""The sides of a comparison: all seeds of one model, tuned one way, on one test set; and which way validation chose.

Two sides are matched by their treatment: method, scope, recipe, data and metric. What differs in more than the model is
refused by `pairs.obstacles`, whose reasons are repeated here.
"""

from __future__ import annotations

import hashlib
import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from vlmbench.config.twins import SEEDLESS
from vlmbench.reporting.ordering import FINETUNES, rank
from vlmbench.reporting.pairs import RECIPE_PARTS, obstacles, recipe
from vlmbench.reporting.rows import Row, as_number, dig
from vlmbench.reporting.text import method_text

UNTUNED = "zero_shot"
# Of sides that are tuned differently on purpose, what must still be the same: how they are asked and on what.
TEST_PARTS = ("task", "domain")


@dataclass(frozen=True, slots=True, order=True)
class Method:
    """A way of tuning.

    Attributes:
        weight: Its place among the methods, from the lightest.
        finetune: Its name.
        scope: Parts that it touches; empty where it has no choice.
        recipe: Digest of the recipe, and of the data and metric that it was run on.
    """

    weight: tuple[int, str]
    finetune: str
    scope: str
    recipe: str

    @property
    def label(self) -> str:
        """Its name for readers."""
        return method_text(self.finetune, self.scope)


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a comparison.

    Attributes:
        method: How the model was tuned.
        rows: Done records, one a seed.
        selections: Of each row what validation said of it: metric and value, or None where the record does not say.
    """

    method: Method
    rows: tuple[Row, ...]
    selections: tuple[tuple[str, float] | None, ...] = ()

    @property
    def seeded(self) -> bool:
        """Whether another seed could give another result."""
        return self.method.finetune not in SEEDLESS


def usable(row: Row) -> str:
    """Say why a record cannot be compared with any other; empty where it can."""
    if not row.done:
        return f"failed: {row.error_line}"
    if row.primary.value is None:
        return f"has no value: {row.primary.reason}"
    if not {"finetune", "trainer"} <= row.mapping("config").keys():
        return "its record holds no recipe"
    return "" if row.text("data", "fingerprint") else "its record does not say which data it is of"


def treatment(row: Row, parts: Sequence[str] = RECIPE_PARTS) -> str:
    """Digest what two records must share to be compared: metric, data and the parts of the recipe."""
    shared = [row.primary_metric, row.text("data", "fingerprint"), sorted(recipe(row, parts).items())]
    return hashlib.sha256(json.dumps(shared).encode(errors="replace")).hexdigest()[:16]


def sides(rows: Sequence[Row], sources: Mapping[str, Row | None]) -> dict[Method, Side]:
    """Gather usable records of one model and domain into sides, from the lightest method on.

    Args:
        rows: The records.
        sources: Path of a transfer to the cell that it evaluates, whose validation chose it.
    """
    found: dict[Method, list[Row]] = defaultdict(list)
    for row in rows:
        source = sources.get(row.path)
        key = treatment(row) + (treatment(source) if source else "")
        found[Method(rank(row.finetune, FINETUNES), row.finetune, row.scope, key)].append(row)
    return {
        method: Side(method, tuple(members), tuple(_selection(sources.get(row.path, row)) for row in members))
        for method, members in sorted(found.items())
    }


def unmatched(side: Side, others: Mapping[Method, Side], partner: str) -> str:
    """Say why a side has no match among those of the other model."""
    near = [other for other in others.values() if (other.method.finetune, other.method.scope) == _name(side)]
    if not near:
        return f"no cell of {partner} with {side.method.label} here"
    reasons = min((obstacles(side.rows[0], other.rows[0]) for other in near), key=len)
    return "; ".join(reasons) or "the cells that were transferred differ in their recipe or data"


def choose(*candidates: Mapping[Method, Side]) -> tuple[list[Side], str]:
    """Choose of each model's candidates the one that is best on validation, the mean over its seeds.

    Args:
        candidates: Of each model, its sides by method. The same metric must have selected all of them.

    Returns:
        The chosen sides and an empty reason, or no side and the reason why nothing can be chosen.
    """
    if all(len(one) == 1 for one in candidates):
        return [next(iter(one.values())) for one in candidates], ""
    everything = [side for one in candidates for side in one.values()]
    named = {
        side.method.label: sorted({told[0] if told else "nothing" for told in side.selections}) for side in everything
    }
    metrics = {metric for found in named.values() for metric in found}
    if len(metrics) > 1 or "nothing" in metrics:
        told = ", ".join(f"{label} by {' and '.join(found)}" for label, found in named.items())
        return [], f"validation cannot choose between methods that were selected by different metrics ({told})"
    (metric,) = metrics
    return [_best(one.values(), lowest=metric.endswith("loss")) for one in candidates], ""


def validation(side: Side) -> float | None:
    """Mean validation value of a side over its seeds; None where a record holds none."""
    values = [told[1] for told in side.selections if told]
    return statistics.fmean(values) if values and len(values) == len(side.rows) else None


def _best(candidates: Iterable[Side], *, lowest: bool) -> Side:
    # The first of equals, which is the lighter method.
    return (min if lowest else max)(candidates, key=lambda side: validation(side) or 0.0)


def _selection(row: Row | None) -> tuple[str, float] | None:
    """What validation says of a cell: of what was tuned, or of the prompt that was chosen for an untuned model."""
    if row is None:
        return None
    metric, value = row.text("selection", "metric"), row.number("selection", "value")
    if row.finetune == UNTUNED and not metric and row.text("prompts", "metric"):
        candidates, chosen = dig(row.record, "prompts", "candidates"), row.number("prompts", "chosen")
        if isinstance(candidates, list) and chosen is not None and 0 <= chosen < len(candidates):
            metric, value = f"val/{row.text('prompts', 'metric')}", as_number(dig(candidates[int(chosen)], "value"))
    return None if not metric or value is None else (metric, value)


def _name(side: Side) -> tuple[str, str]:
    return side.method.finetune, side.method.scope
