"""Operating points of class scores under many weightings of the same examples: fixed specificity, fixed sensitivity.

Besides, the metrics of each class or label by itself, which a macro mean hides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmbench.metrics.diagnosis import OneVsRest
from vlmbench.metrics.weighted import nan_means, ranking

Floats = NDArray[np.float64]
Statistics = Callable[[Floats], dict[str, Floats]]
LEVELS = (0.9, 0.95)


def operating_points(task: OneVsRest, levels: Sequence[float] = LEVELS) -> Statistics:
    """Return sensitivity at fixed specificity, and the reverse, as a function of weights (R, N).

    The threshold is chosen on the examples themselves, and anew in each resample: the numbers describe the scores, not
    a threshold that was fixed beforehand.

    Returns:
        Of weights, per level, as `sensitivity_at_90_specificity` and `specificity_at_90_sensitivity`, arrays (R,): the
        mean over the task's columns on which it is defined.
    """
    ordered = [_Ordered(task.scores[:, k], task.truth[:, k]) for k in range(task.truth.shape[1])]

    def compute(weights: Floats) -> dict[str, Floats]:
        found: dict[str, list[Floats]] = {}
        for column in ordered:
            true_rate, false_rate = column.rates(weights)
            for level in levels:
                for name, rule in (
                    (f"sensitivity_at_{100 * level:g}_specificity", _sensitivity),
                    (f"specificity_at_{100 * level:g}_sensitivity", _specificity),
                ):
                    found.setdefault(name, []).append(rule(true_rate, false_rate, level))
        return {name: nan_means(np.stack(columns, axis=1)) for name, columns in found.items()}

    return compute


def of_each(task: OneVsRest, level: float = LEVELS[0]) -> Statistics:
    """Return the metrics of each column by itself, as a function of weights (R, N).

    Returns:
        Of weights, arrays (R,), NaN where undefined, named by the column's number, as `auroc_0`: `auroc`,
        `average_precision`, `sensitivity` and `specificity` of the decision, and `sensitivity_at_90_specificity`.
    """
    ordered = [_Ordered(task.scores[:, k], task.truth[:, k]) for k in range(task.truth.shape[1])]

    def compute(weights: Floats) -> dict[str, Floats]:
        out: dict[str, Floats] = {}
        for k, column in enumerate(ordered):
            truth, decided = task.truth[:, k], task.predicted[:, k]
            out[f"auroc_{k}"], out[f"average_precision_{k}"] = ranking(task.scores[:, k], truth, weights)
            out[f"sensitivity_{k}"] = _share(weights, truth & decided, truth)
            out[f"specificity_{k}"] = _share(weights, ~truth & ~decided, ~truth)
            out[f"sensitivity_at_{100 * level:g}_specificity_{k}"] = _sensitivity(*column.rates(weights), level)
        return out

    return compute


def support(task: OneVsRest, groups: Sequence[Any] | NDArray) -> dict[str, int]:
    """Return, as `bootstrap.intervals` takes it, among how many groups these metrics can vary.

    Of a column it is the smaller number of groups with a positive and with a negative; of a mean over columns, that of
    its best column.
    """
    names = np.asarray(groups, dtype=str)
    columns = [min(len(np.unique(names[truth])), len(np.unique(names[~truth]))) for truth in task.truth.T]
    whole = np.ones((1, len(names)))
    of_means = dict.fromkeys(operating_points(task)(whole), max(columns))
    return of_means | {name: columns[int(name.rpartition("_")[2])] for name in of_each(task)(whole)}


def _sensitivity(true_rate: Floats, false_rate: Floats, level: float) -> Floats:
    """The highest true positive rate (R,) at a specificity of at least `level`."""
    # Rates are ratios of whole numbers: the slack only undoes rounding.
    highest = np.where(false_rate <= 1 - level + 1e-9, true_rate, 0.0).max(axis=1)
    return np.where(_undefined(true_rate, false_rate), np.nan, highest)


def _specificity(true_rate: Floats, false_rate: Floats, level: float) -> Floats:
    """The highest specificity (R,) at a true positive rate of at least `level`."""
    lowest = np.where(true_rate >= level - 1e-9, false_rate, 1.0).min(axis=1)
    return np.where(_undefined(true_rate, false_rate), np.nan, 1 - lowest)


def _undefined(true_rate: Floats, false_rate: Floats) -> NDArray[np.bool_]:
    return np.isnan(true_rate[:, 0]) | np.isnan(false_rate[:, 0])


def _share(weights: Floats, part: NDArray[np.bool_], whole: NDArray[np.bool_]) -> Floats:
    held = weights @ whole.astype(np.float64)
    return np.divide(weights @ part.astype(np.float64), held, out=np.full(len(held), np.nan), where=held > 0)


class _Ordered:
    """One column in descending order of its scores: the points of its ROC curve under any weights."""

    def __init__(self, scores: Floats, truth: NDArray[np.bool_]) -> None:
        self.order = np.argsort(-scores, kind="stable")
        ranked = scores[self.order]
        self.truth = truth[self.order]
        # A threshold takes all of equal scores or none: only the last of each run is a point.
        self.last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))

    def rates(self, weights: Floats) -> tuple[Floats, Floats]:
        """True and false positive rate (R, K + 1) at each threshold, the one above all scores first."""
        ranked = weights[:, self.order]
        return self._rate(ranked * self.truth), self._rate(ranked * ~self.truth)

    def _rate(self, weights: Floats) -> Floats:
        above = np.cumsum(weights, axis=1)[:, self.last]
        above = np.concatenate([np.zeros((len(above), 1)), above], axis=1)
        total = above[:, -1:]
        return np.divide(above, total, out=np.full(above.shape, np.nan), where=total > 0)
