"""Which cells a section looks into, example by example, where all of them would take too long; it says which."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from vlmbench.reporting.ordering import line_key, order
from vlmbench.reporting.rows import Row

# What a record without a number of examples is taken to cost.
_UNKNOWN = 1000


@dataclass(frozen=True, slots=True)
class Detailed:
    """The cells that are looked into.

    Attributes:
        rows: In the order of tables.
        candidates: How many there were.
        rule: How they were chosen; empty where all of them were taken.
    """

    rows: tuple[Row, ...]
    candidates: int
    rule: str = ""


def detailed(rows: Sequence[Row], task: str, budget: int) -> Detailed:
    """Choose done cells of a task, by validation and never by test, such that their examples stay within a budget.

    Args:
        rows: Of a study; transfers are never chosen.
        task: `diagnosis` or `vqa`.
        budget: Number of test examples that may be read.

    Returns:
        All cells if they fit; else the first of these that does: one seed of each cell; of each model and domain
        zero-shot and the tuned cell that was best on validation; of each model and domain the best on validation; of
        each domain and role the best on validation, cut off at the budget.
    """
    cells = sorted((row for row in rows if row.done and row.kind == "cell" and row.task == task), key=order)
    chosen, rule = cells, ""
    for name, key in _RULES:
        if _examples(chosen) <= budget:
            break
        # Seeds of one cell do not compete: the first stands for them.
        best = best_by(chosen, key) if name != _ONE_SEED else list({key(row): row for row in reversed(chosen)}.values())
        if len(best) < len(chosen):
            chosen, rule = sorted(best, key=order), name
    if _examples(chosen) > budget:
        fitting = [row for i, row in enumerate(chosen) if _examples(chosen[: i + 1]) <= budget] or chosen[:1]
        rule, chosen = ", ".join(filter(None, (rule, f"the first {len(fitting)} of {len(chosen)}"))), fitting
    return Detailed(tuple(chosen), len(cells), rule)


def best_by(rows: Sequence[Row], key: Callable[[Row], Hashable]) -> list[Row]:
    """Return, of the rows with an equal key, the one that was best on validation; of equally good ones the first."""
    best: dict[Hashable, Row] = {}
    for row in rows:
        kept = best.setdefault(key(row), row)
        if _validation(row) > _validation(kept):
            best[key(row)] = row
    return list(best.values())


def _validation(row: Row) -> tuple[bool, bool, float]:
    """Sort key of how good a cell was on validation; one that selected nothing there comes last."""
    value = row.number("selection", "value")
    loss = "loss" in row.text("selection", "metric")
    return value is not None, not loss, 0.0 if value is None else -value if loss else value


def _examples(rows: Sequence[Row]) -> float:
    return sum(row.number("n", "examples") or _UNKNOWN for row in rows)


_ONE_SEED = "one seed of each cell"
_RULES: tuple[tuple[str, Callable[[Row], Hashable]], ...] = (
    (_ONE_SEED, lambda row: (line_key(row), row.domain)),
    (
        "of each model and domain zero-shot and the tuned cell that was best on validation",
        lambda row: (row.model, row.domain, row.finetune == "zero_shot"),
    ),
    ("of each model and domain the cell that was best on validation", lambda row: (row.model, row.domain)),
    ("of each role and domain the cell that was best on validation", lambda row: (row.role, row.domain)),
)
